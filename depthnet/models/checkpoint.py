"""Checkpoint files as plain data: tensors, and a record that JSON could hold. No Lightning, and nothing is run.

A file is what Lightning writes (``state_dict`` and more) with one key of ours, ``depthnet``: the network's name and
constructor arguments, its unit, and the run's resolved config. :func:`read_checkpoint` needs only these two keys. It
always loads with ``weights_only=True``, so a hostile file can do nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from depthnet.core.atomic_io import cache_folder, file_digest, open_durable, temporary_name, write_json, write_text
from depthnet.core.types import InputError
from depthnet.models.shipped import SUFFIX, find_checkpoint, is_shipped, read_weights
from depthnet.models.weights_kind import torch_owner, weights_kind

FORMAT = 1
RECORD_KEY = "depthnet"
_PREFIX = "network."
_FOREIGN = {
    "lightning": "a Lightning checkpoint of another project",
    "other": "a PyTorch file of another program",
}


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

    Until the new file has its name, the digest file accepts the old one and the new one. So whenever this process is
    killed, what stands at ``path`` is whole and its digest right.

    Args:
        path: The checkpoint's name.
        content: Tensors and plain data.
        keep: What stood at ``path`` stays as :func:`previous`, with its digest.

    Raises:
        InputError: If it cannot be written; the checkpoint that stood there is untouched.
    """
    path = Path(path)
    keep = keep and path.exists()
    digests = _digests(path)
    if keep and not digests:
        digests = [_digest(path)]
    old = temporary_name(path)  # a second name for what stands there, so that there is something at every moment
    try:
        with open_durable(path, _stored_size(content)) as file:
            digest = _write(content, file)
            if digests is not None:
                _write_digests(path, [*digests, digest])
            if keep:
                with contextlib.suppress(OSError):
                    os.link(path, old)
                if not old.exists():  # the file system knows no hard links: for a moment only the previous one is there
                    file.flush()
                    os.fsync(file.fileno())
                    _move(path, previous(path), digests or [])
        _write_digests(path, [digest])
        if old.exists():
            _move(old, previous(path), digests or [])
    finally:
        with contextlib.suppress(OSError):
            old.unlink(missing_ok=True)


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
    # A run may save while this reads, so the digest counts that stands there before or after.
    known = _digests(path)
    if known is not None and (digest := _digest(path)) not in known and digest not in (_digests(path) or []):
        raise InputError(
            f"{path}: damaged, as its SHA-256 is not the one in {_sidecar(path).name}; use another copy of it, or, if "
            f"this file was put there on purpose, remove {_sidecar(path)}"
        )
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise InputError(f"{path}: its parts are compressed, which torch.save never does; not unpacked")
        with warnings.catch_warnings(action="ignore"):  # of pickles that are refused
            content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError:
        raise InputError(f"{path}: holds more than tensors and plain data, so it is not loaded") from None
    except Exception as error:  # torch fails in many ways on what is no checkpoint
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
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
    for generation in (Path(path), previous(path)):
        if not os.path.lexists(generation):
            continue
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
    return [
        name
        for name, tensor in _tensors(content)
        if (tensor.is_floating_point() or tensor.is_complex())
        and not torch.isfinite(tensor.sum())  # needs no memory; of large finite numbers it may overflow
        and not torch.isfinite(tensor).all()
    ]


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read one of this project's checkpoints, or a file of half-precision weights.

    Args:
        path: As :func:`depthnet.models.shipped.find_checkpoint` takes it.

    Raises:
        InputError: If it cannot be loaded, was not written by this project or by a newer form of it, or its weights are
            not finite.
    """
    path = find_checkpoint(path)
    kind = weights_kind(path, str(path))
    if kind == "safetensors" or (kind == "unknown" and path.suffix == SUFFIX):
        record, weights = read_weights(path)
    else:
        owner = torch_owner(path)
        if owner in _FOREIGN and not _sidecar(path).exists():  # with a digest beside it, it may be our own, damaged
            raise InputError(f"{path}: {_FOREIGN[owner]}, not a depthnet checkpoint (it has no '{RECORD_KEY}' record)")
        content = load_plain(path)
        record, state = content.get(RECORD_KEY, {}), content.get("state_dict")
        if not isinstance(record, dict) or not isinstance(state, dict) or not record:
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
    own = {name: value.shape for name, value in network.state_dict().items()}
    return own == {name: value.shape for name, value in state.items()}


def load_weights(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Copy every tensor that fits into a network, to fine-tune from it.

    Args:
        network: Changed in place.
        state: Tensors by the network's own names.

    Returns:
        A line for everything that did not fit: missing, unknown, or of another shape.
    """
    own = network.state_dict()
    fitting = fitting_weights(network, state)
    network.load_state_dict(fitting, strict=False)
    lines = [
        f"{name}: {tuple(value.shape)} in the checkpoint, {tuple(own[name].shape)} here"
        for name, value in state.items()
        if name in own and name not in fitting
    ]
    lines += [f"{name}: not in the checkpoint" for name in own if name not in state]
    lines += [f"{name}: only in the checkpoint" for name in state if name not in own]
    return lines


def count_test(path: str | os.PathLike[str], entry: Mapping[str, Any]) -> int | None:
    """Note that a checkpoint was evaluated on a test split.

    A test split that is evaluated often, and by whose figures something is chosen, tests nothing any more; so every
    evaluation is kept, in ``<checkpoint>.tests.json``. For a model that ships with the package, and where nothing can
    be written beside the checkpoint, that is ``tests/<SHA-256>.json`` in the user's cache.

    Args:
        path: As :func:`depthnet.models.shipped.find_checkpoint` takes it.
        entry: What to keep of this evaluation, as plain values.

    Returns:
        How many evaluations of these very weights are noted in the two places; None where one cannot be read, or none
        can be written.
    """
    try:
        path = find_checkpoint(path)
        digest = file_digest(path)
        own = cache_folder() / "tests" / f"{digest}.json"
        places = [own] if is_shipped(path) else [Path(f"{path}.tests.json"), own]
        noted = [_entries(place) for place in places]
        known: int = sum(one["sha256"] == digest for entries in noted for one in entries)
    except (InputError, OSError, ValueError, TypeError, LookupError):  # a record is torn, or anything else
        return None
    for place, entries in zip(places, noted, strict=True):
        with contextlib.suppress(InputError, TypeError):  # a checkpoint only lent
            write_json(place, [*entries, {"sha256": digest, **entry}])
            return known + 1
    return None


def _entries(path: Path) -> list[dict[str, Any]]:
    entries = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    if not isinstance(entries, list):
        raise TypeError(f"{path}: not a list")
    return entries


class _DigestWriter:
    """Passes on what torch writes, and computes its SHA-256."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.sha256.update(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()


def _write(content: Mapping[str, Any], file: IO[bytes]) -> str:
    """Save to an open file and return the SHA-256 of what was written."""
    writer = _DigestWriter(file)
    try:
        torch.save(dict(content), writer)  # type: ignore[arg-type]  # it needs these two methods only
    except RuntimeError:
        if writer.error:  # torch hides a full disk behind an error of its own
            raise writer.error from None
        raise
    return writer.sha256.hexdigest()


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _tensors(item, f"{name}.{key}" if name else str(key))


def _stored_size(content: Mapping[str, Any]) -> int:
    """Return the bytes of all tensors; torch.save writes their storages, each once."""
    storages = (tensor.untyped_storage() for _, tensor in _tensors(content))
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _digests(path: Path) -> list[str] | None:
    """Return the digests in the file beside a checkpoint; None where there is no such file."""
    if not _sidecar(path).is_file():
        return None
    try:
        with _sidecar(path).open("rb") as file:
            lines = file.read(1 << 16).decode("ascii", errors="replace").lower().splitlines()
    except OSError as error:
        raise InputError(f"{_sidecar(path)}: cannot be read: {error.strerror}") from error
    return [line[:64] for line in lines if re.fullmatch(r"[0-9a-f]{64}\b.*", line)]


def _write_digests(path: Path, digests: Sequence[str]) -> None:
    write_text(_sidecar(path), "".join(f"{digest}  {path.name}\n" for digest in dict.fromkeys(digests)))


def _move(source: Path, target: Path, digests: Sequence[str]) -> None:
    """Rename a checkpoint over another; at every moment its digest file accepts what stands there."""
    _write_digests(target, [*(_digests(target) or []), *digests])
    try:
        source.replace(target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}; what was there before is untouched") from error
    _write_digests(target, digests)
