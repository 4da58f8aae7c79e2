"""Checkpoint files as plain data: tensors, and a record that JSON could hold. No Lightning; no code of a file is run.

A run's file is what Lightning writes (``state_dict`` and more) with one key of ours, ``depthnet``: the network's name
and constructor arguments, its unit, and the run's resolved config. :func:`read_checkpoint` needs only these two keys,
and always loads with ``weights_only=True``. An exported model is a safetensors file of the network's state, most of it
in float16, with the same record as JSON in its header. torch is imported where it is needed.
"""
# os.path answers False where pathlib raises: a name too long, a link to itself, a closed folder
# ruff: noqa: PTH112, PTH113

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthnet.core.atomic_io import cache_folder, digests_of, file_digest, open_durable, sidecar, write_json, write_text
from depthnet.core.types import BEST, InputError, reason_of
from depthnet.models.shipped import shipped_models

if TYPE_CHECKING:
    from torch import Tensor, nn


FORMAT = 1
RECORD_KEY = "depthnet"

_PREFIX = "network."
_RENAMED = {"PublishedNet": "KerasNet"}  # in older checkpoints


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint states about its network.

    Attributes:
        network: The network class's name, for the allow list of networks.
        config: That class's constructor arguments.
        state: The network's state, by its own names.
        record: The whole record, with the run's config.
    """

    network: str
    config: dict[str, Any]
    state: dict[str, Tensor]
    record: dict[str, Any]


def make_record(network: nn.Module, run: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describe a network so that it can be rebuilt from the description and its state.

    Args:
        network: One of this project's networks; its ``config()`` gives the constructor arguments.
        run: The resolved config of the run that trains it, kept as a record only.

    Raises:
        TypeError: If it holds something that is not plain data.
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
    """Return the path at which the generation before a checkpoint is kept.

    Example:
        >>> previous("checkpoints/last.ckpt").name
        'last.previous.ckpt'
    """
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_plain(path: str | os.PathLike[str], content: Mapping[str, Any], keep: bool = False) -> None:
    """Write ``content`` with torch.save, whole, and its SHA-256 beside it in ``<name>.sha256``.

    The digest file is written first, and accepts the old file and the new one until both have their names. So if this
    process is killed at any time, each generation that exists is whole and has the right digest.

    Args:
        path: The checkpoint's name.
        content: Tensors and plain data; they are in memory twice while they are written.
        keep: Keep the file that was at ``path`` as :func:`previous`.

    Raises:
        InputError: If it cannot be written; the file that was there is untouched.
    """
    import torch

    path = Path(path)
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    data = buffer.getbuffer()
    known = [hashlib.sha256(data).hexdigest(), *digests_of(path)]
    if len(known) == 1 and keep and path.exists():
        known.append(file_digest(path))
    with open_durable(path, len(data)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # all of it is on the disk before the old one is moved
        _write_digests(path, known)
        if keep and path.exists():
            path.replace(previous(path))
    _write_digests(path, known[: 3 if keep else 1])  # there is no second one after a save that was killed


def remove_plain(path: str | os.PathLike[str]) -> None:
    """Remove a checkpoint and its digest, where they exist."""
    Path(path).unlink(missing_ok=True)
    sidecar(Path(path)).unlink(missing_ok=True)


def load_plain(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Load a file of tensors and plain data; anything else in it is refused, not run.

    Raises:
        InputError: If it is missing, torn, no checkpoint, holds anything but plain data, or does not match the digest
            beside it.
    """
    import torch

    path = Path(path)
    try:
        digest = file_digest(path)
        known = digests_of(path)  # read last: a run that saves meanwhile writes it first
        if known and digest not in known:
            beside = sidecar(path)
            raise InputError(f"{path}: damaged, or not the file of {beside.name}; if it is intended, remove {beside}")
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise InputError(f"{path}: its parts are compressed, which torch.save never does; not unpacked")
        with warnings.catch_warnings(action="ignore"), path.open("rb") as file:  # about pickles that are refused
            content = torch.load(file, map_location="cpu", weights_only=True)  # of a path, it would use the suffix
    except InputError:
        raise
    except pickle.UnpicklingError:
        raise InputError(f"{path}: holds more than tensors and plain data, or is no checkpoint; not loaded") from None
    except Exception as error:  # torch fails in many ways on what is no checkpoint
        raise InputError(f"{path}: cannot be read as a checkpoint ({reason_of(error)}); it may be torn") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    return content


def newest_whole(path: str | os.PathLike[str]) -> tuple[Path | None, list[str]]:
    """Find the newest generation of a checkpoint, itself or :func:`previous`, that loads and matches its digest.

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

    Example:
        >>> import torch
        >>> not_finite({"state_dict": {"weight": torch.tensor([1.0, torch.nan]), "bias": torch.zeros(2)}})
        ['state_dict.weight']
    """
    import torch

    return [name for name, tensor in _tensors(content) if not torch.isfinite(tensor).all()]


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """Return the file that the name of a checkpoint stands for.

    Args:
        path: A file; else a shipped model's name; else a run's directory, which stands for its best checkpoint.

    Raises:
        InputError: If there is none of them, the run has no best checkpoint, or it is no regular file: a pipe would
            block, and a device has no end.
    """
    if os.path.isfile(path):
        return Path(path)
    name, run, shipped = os.fspath(path), Path(path), shipped_models()
    if name in shipped:  # ./NAME is a folder of that name, as predict.py's --output may make one
        return shipped[name]
    if not os.path.lexists(path):
        known = f"; models that ship with depthnet: {', '.join(shipped)}" if shipped else ""
        raise InputError(f"{name}: no such checkpoint file{known}")
    if not os.path.isdir(path):
        raise InputError(f"checkpoint {name}: not a regular file")
    if not (run / BEST).is_file():
        raise InputError(f"checkpoint {name}: a folder without {BEST}; name a run that has one, or a file")
    return run / BEST


def read_safetensors(path: str | os.PathLike[str], name: str) -> tuple[dict[str, str], dict[str, Tensor]] | None:
    """Return the metadata and the tensors of a safetensors file; None for a file of another kind, by its bytes.

    Args:
        path: A file. The tensors are mapped from it, not copied.
        name: The start of a message, such as ``model.pretrained=PATH``.

    Raises:
        InputError: If it cannot be read or is torn.
    """
    from safetensors import safe_open

    try:
        with open(path, "rb") as file:  # noqa: PTH123
            if file.read(9)[8:] != b"{":  # after the header's length
                return None
        with safe_open(path, framework="pt") as tensors:
            return tensors.metadata() or {}, {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors and torch have no common error
        raise InputError(f"{name}: cannot be read ({reason_of(error)}); it may be torn") from None


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint of this project or an exported model, whose weights become float32.

    Args:
        path: As :func:`find_checkpoint` takes it.

    Raises:
        InputError: If it cannot be loaded, was not written by this project or by a newer form of it, or its weights are
            not finite.
    """
    path = find_checkpoint(path)
    exported = read_safetensors(path, str(path))
    record: Any = None
    if exported is None:
        content = load_plain(path)
        if isinstance(state := content.get("state_dict"), dict):
            record = content.get(RECORD_KEY)
            weights = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
    else:
        header, state = exported
        with contextlib.suppress(LookupError, ValueError, RecursionError):
            record = json.loads(header[RECORD_KEY])
        # copied, because the tensors are mapped from the file, which may change
        weights = {k: (value.float() if value.is_floating_point() else value).clone() for k, value in state.items()}
    if not record or not isinstance(record, dict):
        advice = "weights of an encoder are named with model.pretrained=PATH"
        raise InputError(f"{path}: not a depthnet checkpoint (it has no '{RECORD_KEY}' record); {advice}")
    if record.get("format") != FORMAT:
        raise InputError(f"{path}: its format is {record.get('format')!r}, this version reads {FORMAT}")
    network, config = record.get("network"), record.get("config")
    if not isinstance(network, str) or not isinstance(config, dict):
        raise InputError(f"{path}: its record names no network; it is damaged")
    if not_finite(weights):
        raise InputError(f"{path}: holds weights that are not finite; its training diverged, take another checkpoint")
    return Checkpoint(_RENAMED.get(network, network), config, weights, record)


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
    lines = []
    for name in {**own, **state}:
        if name in fitting:
            continue
        there, here = (str(tuple(some[name].shape)) if name in some else "nothing" for some in (state, own))
        lines.append(f"{name}: {there} in the checkpoint, {here} here")
    return lines


def count_test(path: str | os.PathLike[str], entry: Mapping[str, Any]) -> int | None:
    """Record that a checkpoint was evaluated on a test split.

    A test split that is evaluated often, and by whose figures something is chosen, tests nothing any more; so every
    evaluation is kept, in ``<checkpoint>.tests.json``; of a model that ships with the package, in
    ``tests/<SHA-256>.json`` in the user's cache.

    Args:
        path: As :func:`find_checkpoint` takes it.
        entry: What to keep of this evaluation, as plain values.

    Returns:
        How many evaluations of these weights are recorded there; None if it cannot be read or written.
    """
    try:
        path = find_checkpoint(path)
        digest = file_digest(path)
        place = Path(f"{path}.tests.json")
        if path.resolve() in shipped_models().values():
            place = cache_folder() / "tests" / f"{digest}.json"
        noted = list(json.loads(place.read_text(encoding="utf-8"))) if place.is_file() else []
        known: int = sum(one["sha256"] == digest for one in noted)
        write_json(place, [*noted, {"sha256": digest, **entry}])
    except (InputError, OSError, ValueError, TypeError, LookupError):  # such as a record that is torn
        return None
    return known + 1


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    import torch

    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _tensors(item, f"{name}.{key}" if name else str(key))


def _write_digests(path: Path, digests: Sequence[str]) -> None:
    names = [path.name, *[previous(path).name] * (len(digests) - 1)]
    write_text(sidecar(path), "".join(f"{digest}  {name}\n" for digest, name in zip(digests, names, strict=True)))
