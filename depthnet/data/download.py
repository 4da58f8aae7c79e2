"""Download NYU Depth V2: the official labelled file, or the copies on Kaggle and Hugging Face."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

from depthnet.core.atomic_io import require_writable
from depthnet.core.types import InputError, reason_of
from depthnet.data.layouts.labelled import LABELLED_FILE

URL = f"http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/{LABELLED_FILE}"
SIZE = 2_972_037_809
"""Bytes of the official file."""

MD5 = "520609c519fba3ba5ac58c8fefcc3530"
KAGGLE = "soumikrakshit/nyu-depth-v2"
HUB = "sayakpaul/nyu_depth_v2"
PATIENCE = 60.0
"""How long a server may be silent [s]."""

_BLOCK = 1 << 20
_BY_HAND = "docs/data.md states how to download it by hand"


def download(
    root: str | os.PathLike[str],
    url: str = URL,
    size: int = SIZE,
    md5: str = MD5,
    advance: Callable[[int, int], None] | None = None,
) -> Path:
    """Download the official labelled file; the same call resumes an interrupted download.

    The file gets its name only when its digest is right; an existing one stays until then, and a right one stays as it
    is.

    Args:
        root: The folder, made if it is missing.
        url: Where the file is.
        size: Its size [bytes].
        md5: Its MD5 digest, in hexadecimal.
        advance: Called with how many megabytes have arrived and how many there are.

    Returns:
        The path of the file.

    Raises:
        InputError: If the disk has too little room, the server fails, or another file arrives.
    """
    path = Path(root) / LABELLED_FILE
    if _has_digest(path, md5):
        print(f"{path} is there already, complete")
        return path
    part = require_writable(path.parent) / f".{path.name}.part"
    done = part.stat().st_size if part.exists() else 0
    if (free := shutil.disk_usage(path.parent).free) < size - done:
        raise InputError(
            f"{path.parent}: {free / 1e9:.1f} GB are free, {(size - done) / 1e9:.1f} GB needed; name another folder"
        )
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        if done < size:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                resumed = done > 0 and answer.status == http.client.PARTIAL_CONTENT
                with part.open("ab" if resumed else "wb") as file:
                    done = file.tell()
                    while block := answer.read(_BLOCK):
                        done += file.write(block)
                        if advance:
                            advance(done // _BLOCK, size // _BLOCK)
                    os.fsync(file.fileno())
    except (OSError, http.client.HTTPException) as error:
        again = f"the same command resumes after {done / 1e6:.1f} MB; {_BY_HAND}"
        raise InputError(f"{url}: {reason_of(error)}; {again}") from error
    if done < size:
        raise InputError(f"{url}: ended after {done} of {size} bytes; the same command resumes; {_BY_HAND}")
    if not _has_digest(part, md5):
        part.unlink()
        raise InputError(f"{url}: another file than the official one ({size} bytes, MD5 {md5}); {_BY_HAND}")
    part.replace(path)
    return path


def download_kaggle(root: str | os.PathLike[str]) -> Path:
    """Download DenseDepth's archive from Kaggle (4 GB), read by the ``kaggle`` layout; its digest is not known.

    Returns:
        The folder that holds its lists.

    Raises:
        InputError: If kagglehub is not installed, or Kaggle fails.
    """
    try:
        import kagglehub  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise InputError("--source kaggle needs kagglehub: pip install 'depthnet[kaggle]'") from None
    try:
        folder = Path(kagglehub.dataset_download(KAGGLE, output_dir=str(require_writable(root))))
    except Exception as error:  # requests, kagglehub and zipfile have no common error
        again = f"the same command resumes; {_BY_HAND}"
        raise InputError(f"Kaggle, {KAGGLE}: {reason_of(error)}; {again}") from error
    lists = next(folder.rglob("nyu2_train.csv"), None)
    if lists is None:
        raise InputError(f"{folder}: no nyu2_train.csv in what Kaggle sent; {_BY_HAND}")
    return lists.parent.parent if lists.parent.name == "data" else lists.parent


def download_hub(root: str | os.PathLike[str]) -> Path:
    """Download FastDepth's 47,584 + 654 pairs from the Hugging Face hub (32 GB), read by the ``h5`` layout.

    The hub checks each archive; an archive is removed once it is unpacked.

    Returns:
        The folder.

    Raises:
        InputError: If the hub fails, or an archive is damaged.
    """
    from huggingface_hub import HfApi, hf_hub_download

    root = require_writable(root)
    done = root / ".unpacked"
    try:
        done.touch()
        for name in sorted(HfApi().list_repo_files(HUB, repo_type="dataset")):
            if not name.endswith(".tar") or name in done.read_text().splitlines():
                continue
            archive = Path(hf_hub_download(HUB, name, repo_type="dataset", local_dir=root / ".archives"))
            with tarfile.open(archive) as file:
                file.extractall(root / Path(name).name.partition("-")[0], filter="data")
            with done.open("a") as noted:
                noted.write(f"{name}\n")
            archive.unlink()
            print(f"unpacked {name}", flush=True)
    except Exception as error:  # the hub, httpx and tarfile have no common error
        again = f"the same command resumes; {_BY_HAND}"
        raise InputError(f"Hugging Face hub, {HUB}: {reason_of(error)}; {again}") from error
    return root


def _has_digest(path: Path, md5: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == md5
