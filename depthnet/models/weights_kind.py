"""What a file is that was named as weights, told by its bytes: nothing in it is run or loaded."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from typing import Literal

from depthnet.core.types import InputError

Kind = Literal["safetensors", "torch", "unknown"]
Owner = Literal["depthnet", "lightning", "other", "unknown"]

_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|\?xml)\b", re.IGNORECASE)
_HEADER = 100_000_000  # bytes, the most that a safetensors header may have
_PICKLE = 64 << 20  # bytes of a pickle that are searched for a key
_OURS = (b"X\x08\x00\x00\x00depthnet", b"\x8c\x08depthnet")  # the key as a pickle has it


def weights_kind(path: str | os.PathLike[str], name: str) -> Kind:
    """Return what kind of file of weights this is.

    Args:
        path: A file.
        name: What stands before a message, such as ``model.pretrained=PATH``.

    Raises:
        InputError: If it is empty, cannot be read, or is plainly no weights: a web page, a Git LFS pointer, HDF5.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123  it takes any path
            start = file.read(512)
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}") from None
    if not start:
        raise InputError(f"{name}: cannot be read: the file is empty; copy or download it again")
    if _PAGE.match(start):
        raise InputError(f"{name}: a web page, not weights; its address leads to a page: download the file itself")
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        raise InputError(f"{name}: a Git LFS pointer, not the weights themselves; fetch them with: git lfs pull")
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        raise InputError(f"{name}: an HDF5 file, as Keras writes them; only PyTorch's weights are read")
    if start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= _HEADER:
        return "safetensors"
    return "torch" if start.startswith((b"PK\x03\x04", b"\x80\x02")) else "unknown"


def torch_owner(path: str | os.PathLike[str]) -> Owner:
    """Return whose a file is that ``torch.save`` wrote, by the keys that it holds.

    Args:
        path: A file.

    Returns:
        "unknown" where it is torn, or of the form before torch 1.6.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            inside = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(inside) as file:
                text = file.read(_PICKLE)
    except (OSError, StopIteration, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        return "unknown"
    if any(key in text for key in _OURS):
        return "depthnet"
    return "lightning" if b"pytorch-lightning_version" in text else "other"
