"""Download the official file of NYU Depth V2's labelled set, completely or not at all."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
from pathlib import Path

from depthnet.core.atomic_io import open_durable, remove_leftovers, require_writable
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
        InputError: If the disk has too little room, the server fails, or what arrives is not the file; it states how to
            download the file by hand.
    """
    from torchvision.datasets.utils import (  # type: ignore[import-untyped]  # imports torch: seconds
        check_integrity,
        download_url,
    )

    path = Path(root) / LABELLED_FILE
    if check_integrity(path, md5):
        print(f"{path} is there already, whole")
        return path
    require_writable(path.parent)
    remove_leftovers(path.parent)  # of a download that was killed: gigabytes
    if (free := shutil.disk_usage(path.parent).free) < size:
        raise InputError(
            f"{path.parent}: {free / 1e9:.1f} GB are free, {size / 1e9:.1f} GB needed; name another folder"
        )
    before = socket.getdefaulttimeout()
    with open_durable(path) as file:
        socket.setdefaulttimeout(PATIENCE)
        try:
            download_url(url, path.parent, Path(file.name).name, md5)
        except (OSError, http.client.HTTPException, RuntimeError) as error:  # RuntimeError: the digest is wrong
            by_hand = f"try again, or download the file by hand ({size} bytes, MD5 {md5}) to {path}"
            raise InputError(f"{url}: {' '.join(str(error).split())}; {by_hand}") from error
        finally:
            socket.setdefaulttimeout(before)
    return path
