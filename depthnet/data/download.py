"""Bring the official file of NYU Depth V2's labelled set, whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
from pathlib import Path

from depthnet.core.atomic_io import open_durable, require_writable
from depthnet.core.types import InputError
from depthnet.data.layouts.labelled import LABELLED_FILE

URL = f"http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/{LABELLED_FILE}"
SIZE = 2_972_037_809
"""Bytes of the official file."""

MD5 = "520609c519fba3ba5ac58c8fefcc3530"
PATIENCE = 60.0
"""How long a server may stay silent [s]; torchvision itself would wait for ever."""


def download(root: str | os.PathLike[str], url: str = URL, size: int = SIZE, md5: str = MD5) -> Path:
    """Download the labelled file into a folder, with torchvision's downloader and its progress bar.

    The file gets its name only when its digest is right; what stood there before stays until then. A right file that
    is there already is left as it is.

    Args:
        root: The folder, made if it is missing.
        url: Where the file lies.
        size: Its size [bytes].
        md5: Its MD5 digest, in hexadecimal.

    Returns:
        The path of the file.

    Raises:
        InputError: If the disk has too little room, the server fails, or what arrives is not the file; it says how to
            bring the file by hand.
    """
    path = Path(root) / LABELLED_FILE
    if path.is_file() and path.stat().st_size == size and _md5(path) == md5:
        print(f"{path} is there already, whole")
        return path
    require_writable(path.parent)
    for left in path.parent.glob(f".{LABELLED_FILE}.*.part"):  # of a download that was killed: gigabytes
        left.unlink(missing_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise InputError(
            f"{path.parent}: {free / 1e9:.1f} GB are free where {size / 1e9:.1f} GB are needed; make room, or name "
            "another folder"
        )
    with open_durable(path) as file:
        wrong = _fetch(url, Path(file.name), size, md5)
        if wrong:
            raise InputError(
                f"{url}: {wrong}; try again, or bring the file by hand ({size} bytes, MD5 {md5}) to {path}; then run "
                f"depthnet data check {path.parent}"
            )
    return path


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _fetch(url: str, part: Path, size: int, md5: str) -> str:
    """Download to ``part``; return what went wrong, in words, or an empty string."""
    from torchvision.datasets.utils import download_url  # type: ignore[import-untyped]  # and imports torch: seconds

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        download_url(url, part.parent, part.name, md5)
    except (OSError, http.client.HTTPException) as error:
        return " ".join(str(error).split()) or type(error).__name__
    except RuntimeError:  # the digest is wrong
        arrived = part.stat().st_size
        return f"{arrived} of {size} bytes arrived" if arrived < size else "what arrived has another MD5 digest"
    finally:
        socket.setdefaulttimeout(before)
    return ""
