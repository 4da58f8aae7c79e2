"""Checkpoint files as plain data: tensors, and a record that JSON could hold. No Lightning, and nothing is run.

A file is what Lightning writes (``state_dict`` and more) with one key of ours, ``depthnet``: the network's name and
constructor arguments, its unit, and the run's resolved config. :func:`read_checkpoint` needs only these two keys. It
always loads with ``weights_only=True``, so a hostile file can do nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from depthnet.core.atomic_io import cache_folder, file_digest, open_durable, write_json, write_text
from depthnet.core.types import InputError
from depthnet.models.shipped import find_checkpoint, is_safetensors, is_shipped, read_weights

FORMAT = 1
RECORD_KEY = "depthnet"
_PREFIX = "network."


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of its network.

    Attributes:
        network: The network class's name, for the allow list of networks.
        config: That class's constructor arguments.
        state: The network's state, by its own names.
        record: The whole record, the run's config among it.
    """

    network: str
    config: dict[str, Any]
    state: dict[str, Tensor]
    record: dict[str, Any]


def make_record(network: nn.Module, run: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describe a network so that the description and its state give it back.

    Args:
        network: One of this project's networks; its ``config()`` gives the constructor arguments.
        run: The resolved config of the run that trains it, kept as a record only.

    Raises:
        TypeError: If something in it is not plain data.
    """
    record = {
        "format": FORMAT,
        "network": type(network).__name__,
        "config": network.config(),  # type: ignore[operator]  # a method, though nn.Module's __getattr__ hides it
        "unit": "metre",
        "run": run,
    }
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain


def previous(path: str | os.PathLike[str]) -> Path:
    """Return where the generation before a checkpoint is kept.

    Example:
        >>> previous("checkpoints/last.ckpt").name
        'last.previous.ckpt'
    """
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_plain(path: str | os.PathLike[str], content: Mapping[str, Any], keep: bool = False) -> None:
    """Write ``content`` with torch.save, whole, and its SHA-256 beside it in ``<name>.sha256``.

    The digest file is written first, and accepts the old file and the new one until both have their names. So whenever
    this process is killed, each generation that is there is whole and its digest right.

    Args:
        path: The checkpoint's name.
        content: Tensors and plain data; for a moment they are in memory twice.
        keep: What stood at ``path`` stays as :func:`previous`.

    Raises:
        InputError: If it cannot be written; what stood there is untouched.
    """
    path = Path(path)
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    data = buffer.getbuffer()
    known = [hashlib.sha256(data).hexdigest(), *_digests(path)]
    if len(known) == 1 and keep and path.exists():
        known.append(file_digest(path))
    with open_durable(path, len(data)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # all of it is on the disk before the old one is moved
        _write_digests(path, known)
        if keep and path.exists():
            path.replace(previous(path))
    _write_digests(path, known[: 3 if keep else 1])  # the second is not there where a save was killed


def remove_plain(path: str | os.PathLike[str]) -> None:
    """Remove a checkpoint and its digest; none of them need be there."""
    Path(path).unlink(missing_ok=True)
    _sidecar(Path(path)).unlink(missing_ok=True)


def load_plain(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Load a file of tensors and plain data; whatever else it holds is refused, not run.

    Raises:
        InputError: If it is missing, torn, no checkpoint, holds anything but plain data, or is not what the digest
            beside it says.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint file")
    try:
        digest = file_digest(path)
        known = _digests(path)  # read last: a run that saves meanwhile writes it first
        if known and digest not in known:
            raise InputError(
                f"{path}: damaged, as its SHA-256 is not in {_sidecar(path).name}; use another copy of it, or, if "
                f"this file was put there on purpose, remove {_sidecar(path)}"
            )
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise InputError(f"{path}: its parts are compressed, which torch.save never does; not unpacked")
        with warnings.catch_warnings(action="ignore"), path.open("rb") as file:  # warnings of pickles that are refused
            content = torch.load(file, map_location="cpu", weights_only=True)  # by a name it would go by its ending
    except InputError:
        raise
    except pickle.UnpicklingError:
        raise InputError(f"{path}: holds more than tensors and plain data, so it is not loaded") from None
    except Exception as error:  # torch fails in many ways on what is no checkpoint
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{path}: cannot be read as a checkpoint ({reason}); it may be torn") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    return content


def newest_whole(path: str | os.PathLike[str]) -> tuple[Path | None, list[str]]:
    """Find the newest generation of a checkpoint that loads and is what its digest says.

    Args:
        path: The checkpoint's name; the generation before it is looked for as :func:`previous`.

    Returns:
        The path of the generation, None if there is none, and a line for each that was refused, with the reason.
    """
    refused = []
    for generation in filter(os.path.lexists, (Path(path), previous(path))):
        try:
            load_plain(generation)
        except InputError as error:
            refused.append(str(error))
        else:
            return generation, refused
    return None, refused


def not_finite(content: Any) -> list[str]:
    """Name the tensors in nested dicts and lists that hold a NaN or an infinity.

    Give it the parts that must be finite: some callbacks begin with a best score of infinity.

    Example:
        >>> not_finite({"state_dict": {"weight": torch.tensor([1.0, torch.nan]), "bias": torch.zeros(2)}})
        ['state_dict.weight']
    """
    return [name for name, tensor in _tensors(content) if not torch.isfinite(tensor).all()]


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read one of this project's checkpoints, or a file of half-precision weights.

    Args:
        path: As :func:`depthnet.models.shipped.find_checkpoint` takes it.

    Raises:
        InputError: If it cannot be loaded, was not written by this project or by a newer form of it, or its weights are
            not finite.
    """
    path = find_checkpoint(path)
    record: Any
    if is_safetensors(path, str(path)):
        record, weights = read_weights(path)
    else:
        content = load_plain(path)
        record, state = content.get(RECORD_KEY), content.get("state_dict")
        if not record or not isinstance(record, dict) or not isinstance(state, dict):
            raise InputError(f"{path}: not a depthnet checkpoint (it has no '{RECORD_KEY}' record)")
        weights = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
    if record.get("format") != FORMAT:
        raise InputError(f"{path}: its format is {record.get('format')!r}, this version reads {FORMAT}")
    network, config = record.get("network"), record.get("config")
    if not isinstance(network, str) or not isinstance(config, dict):
        raise InputError(f"{path}: its record names no network; it is damaged")
    if not_finite(weights):
        raise InputError(f"{path}: holds weights that are not finite; its training diverged, take another checkpoint")
    return Checkpoint(network, config, weights, record)


def fitting_weights(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of ``state`` that a network has by the same name and shape."""
    own = network.state_dict()
    return {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}


def fits(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Return whether ``state`` has just the tensors of a network, by name and shape."""
    return len(fitting_weights(network, state)) == len(state) == len(network.state_dict())


def load_weights(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Copy every tensor that fits into a network, to fine-tune from it.

    Args:
        network: Changed in place.
        state: Tensors by the network's own names.

    Returns:
        A line for everything that did not fit: missing, unknown, or of another shape.
    """
    own, fitting = network.state_dict(), fitting_weights(network, state)
    network.load_state_dict(fitting, strict=False)

    def shape(tensors: Mapping[str, Tensor], name: str) -> str:
        return str(tuple(tensors[name].shape)) if name in tensors else "nothing"

    names = (name for name in {**own, **state} if name not in fitting)
    return [f"{name}: {shape(state, name)} in the checkpoint, {shape(own, name)} here" for name in names]


def count_test(path: str | os.PathLike[str], entry: Mapping[str, Any]) -> int | None:
    """Note that a checkpoint was evaluated on a test split.

    A test split that is evaluated often, and by whose figures something is chosen, tests nothing any more; so every
    evaluation is kept, in ``<checkpoint>.tests.json``; for a model that ships with the package that is
    ``tests/<SHA-256>.json`` in the user's cache.

    Args:
        path: As :func:`depthnet.models.shipped.find_checkpoint` takes it.
        entry: What to keep of this evaluation, as plain values.

    Returns:
        How many evaluations of these very weights are noted there; None where it cannot be read or written.
    """
    try:
        path = find_checkpoint(path)
        digest = file_digest(path)
        own = cache_folder() / "tests" / f"{digest}.json"
        place = own if is_shipped(path) else Path(f"{path}.tests.json")
        noted = list(json.loads(place.read_text(encoding="utf-8"))) if place.is_file() else []
        known: int = sum(one["sha256"] == digest for one in noted)
        write_json(place, [*noted, {"sha256": digest, **entry}])
    except (InputError, OSError, ValueError, TypeError, LookupError):  # a record is torn, or anything else
        return None
    return known + 1


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _tensors(item, f"{name}.{key}" if name else str(key))


def _sidecar(path: Path) -> Path:
    """Return the digest file of a checkpoint, which it shares with the generation before it."""
    return path.with_name(f"{path.name.replace('.previous.', '.')}.sha256")


def _digests(path: Path) -> list[str]:
    """Return the digests that stand beside a checkpoint, its own first."""
    text = _sidecar(path).read_text(encoding="ascii", errors="replace") if _sidecar(path).is_file() else ""
    return re.findall(r"^[0-9a-f]{64}\b", text.lower(), re.MULTILINE)


def _write_digests(path: Path, digests: Sequence[str]) -> None:
    names = [path.name, *[previous(path).name] * (len(digests) - 1)]
    write_text(_sidecar(path), "".join(f"{digest}  {name}\n" for digest, name in zip(digests, names, strict=True)))
