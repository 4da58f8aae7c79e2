"""Models that ship with the package: their names, and files of half-precision weights that describe themselves.

``depthnet/weights/NAME.safetensors`` is known by its NAME wherever a checkpoint may stand; ``NAME.md`` is its card.
Such a file holds a network's state, most of it in float16, and as its only metadata, ``depthnet``, the record that a
checkpoint has, as JSON. Nothing heavy is imported before a file is written or read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import depthnet
from depthnet.core.types import BEST, LAST, InputError

if TYPE_CHECKING:
    from torch import Tensor


WEIGHTS = Path(depthnet.__file__).parent / "weights"
SUFFIX = ".safetensors"

_DEFAULT = "nyu_small"
_KEY = "depthnet"
_NO_WEIGHTS = {
    b"<": "a web page, not weights; its address leads to a page: download the file itself",
    b"version https://git-lfs": "a Git LFS pointer, not the weights themselves; fetch them with: git lfs pull",
    b"\x89HDF": "an HDF5 file, as Keras writes them; only PyTorch's weights are read",
}
_SMALL = 4096  # numbers; by far most of rounding's harm to a network is done in its small convolutions
_ROUNDING = 2.0**-11  # of float16, relative to a number that is not among its smallest
_ABSOLUTE = re.compile(  # but no address: what follows "://" is none of this machine, unless it is "file:"
    r"(?<![\w/\\.}~*])(?!(?<=:)//(?!/))(?:~(?:[A-Za-z_][\w-]*)?/|/|[A-Za-z]:[\\/])[^\s,;'\"`()\[\]{}]+"
)


def shipped_models() -> list[str]:
    """Return the names of the models that are in the package."""
    return sorted(path.stem for path in WEIGHTS.glob(f"*{SUFFIX}"))


def is_shipped(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is one of the package's own."""
    return Path(path).resolve().parent == WEIGHTS.resolve()


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """Return the file that is meant where a checkpoint is named.

    Args:
        path: A file; else a shipped model's name; else a run's directory, which stands for its best checkpoint.

    Raises:
        InputError: If there is none of them, the run has no best checkpoint, or it is no regular file: a pipe would
            block, and a device has no end.
    """
    if os.path.isfile(path):  # noqa: PTH113  it answers False where pathlib raises
        return Path(path)
    name, names = os.fspath(path), shipped_models()
    if name in names:  # a folder of that name, as predict.py's --output makes one, is meant by ./NAME
        return WEIGHTS / f"{name}{SUFFIX}"
    if os.path.isdir(path):  # noqa: PTH112
        run = Path(path)
        if (run / BEST).is_file():
            return run / BEST
        if (run / LAST).is_file():
            raise InputError(
                f"checkpoint {name}: a run without a best checkpoint; its last weights are {run / LAST}: name that file"
            )
        raise InputError(f"checkpoint {name}: a folder, and no run with checkpoints (looked for {BEST} in it)")
    if os.path.lexists(path):
        raise InputError(f"checkpoint {name}: not a regular file")
    known = f"; models that ship with depthnet: {', '.join(names)}" if names else ""
    raise InputError(f"{name}: no such checkpoint file{known}")


def default_model() -> tuple[Path, str]:
    """Return the file of the model that is used where none is named, and a line that says what it is.

    Raises:
        InputError: If this copy of the package has none.
    """
    path = WEIGHTS / f"{_DEFAULT}{SUFFIX}"
    if not path.is_file():
        raise InputError("no checkpoint: add --ckpt PATH, such as runs/<run>/checkpoints/best.ckpt")
    about = "trained on NYU Depth V2; its figures are of indoor photographs like those"
    return path, f"model: {_DEFAULT}, {about}; see {path.with_suffix('.md')}"


def is_safetensors(path: str | os.PathLike[str], name: str) -> bool:
    """Return whether a file of weights is a safetensors file, by its bytes, or PyTorch's.

    Args:
        path: A file.
        name: What stands before a message, such as ``model.pretrained=PATH``.

    Raises:
        InputError: If it cannot be read, or is plainly no weights: a web page, a Git LFS pointer, HDF5.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123  it takes any path
            start = file.read(512)
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}") from None
    for beginning, advice in _NO_WEIGHTS.items():
        if start.lstrip().startswith(beginning):
            raise InputError(f"{name}: {advice}")
    return start[8:9] == b"{"  # after the header's length


def pack_weights(state: Mapping[str, Tensor], record: Mapping[str, Any]) -> bytes:
    """Return the bytes of a file of half-precision weights; the same input gives the same bytes.

    Vectors (biases, and all of normalisation) and small tensors stay as they are, and so does one that float16 would
    not hold to its own precision, having numbers too large for it, or none but tiny ones.

    Args:
        state: A network's state, by its own names.
        record: As :func:`depthnet.models.checkpoint.make_record` gives it; of its paths only the files' names are kept.
    """
    from safetensors.torch import save

    text = json.dumps(portable(record), sort_keys=True)
    return save({name: _halved(state[name]) for name in sorted(state)}, {_KEY: text})


def read_safetensors(path: str | os.PathLike[str], name: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the metadata and the tensors of a safetensors file; they lie in the file itself until they are used.

    Args:
        path: The file.
        name: What stands before a message, such as ``model.pretrained=PATH``.

    Raises:
        InputError: If it cannot be read or is torn.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no mapping
    except Exception as error:  # safetensors and torch have no common error
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{name}: cannot be read as a safetensors file ({reason}); it may be torn") from None


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file that :func:`pack_weights` made.

    Returns:
        Its record, unchecked, and the network's state, all that is not whole numbers as float32.

    Raises:
        InputError: If it cannot be read, is torn, or has no record of ours.
    """
    import torch

    header, tensors = read_safetensors(path, str(path))
    try:
        record = json.loads(header.get(_KEY, "null"))
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise InputError(
            f"{path}: not a depthnet model (its header has no '{_KEY}' record); weights of an encoder alone are named "
            "with model.pretrained=PATH"
        )
    # copied, because what is read is the file itself, which may change
    return record, {
        name: value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)
        for name, value in tensors.items()
    }


def portable(value: Any) -> Any:
    """Return plain data without what is true of one machine only: absolute paths, of which files' names are kept.

    Example:
        >>> portable({"root": "/home/me/nyu", "text": "data.root=/home/me/nyu ckpt=~/a/best.ckpt at 1/4 of it"})
        {'root': 'PATH', 'text': 'data.root=PATH ckpt=PATH/best.ckpt at 1/4 of it'}
    """
    if isinstance(value, Mapping):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    if not isinstance(value, str):
        return value
    if "\n" not in value and _ABSOLUTE.match(value):  # a path may have spaces
        return _without_folder(value)
    return _ABSOLUTE.sub(lambda found: _without_folder(found[0]), value)


def _without_folder(path: str) -> str:
    name = re.split(r"[\\/]", path)[-1]
    return f"PATH/{name}" if Path(name).suffix else "PATH"


def _halved(value: Tensor) -> Tensor:
    value = value.detach().cpu().contiguous()
    if not value.is_floating_point() or value.ndim < 2 or value.numel() <= _SMALL:
        return value
    half = value.half()
    return half if (half.float() - value).abs().max() <= _ROUNDING * value.abs().max() else value
