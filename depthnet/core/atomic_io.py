"""The one writer of files that matter: a reader always sees the whole old file or the whole new one.

A file is written under a temporary name in its own directory, synced, renamed over the final name, and the directory
is synced. So a crash, a kill or a full disk leaves the old file. :func:`locked` keeps a directory to one run.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from depthnet.core.types import InputError

log = logging.getLogger("depthnet")


def cache_folder(stated: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of decoded pairs, validations and counts of tests: as stated, else ``DEPTHNET_CACHE``, else the
    user's cache.
    """
    users = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "depthnet")
    return Path(stated or os.environ.get("DEPTHNET_CACHE") or users).expanduser()


@contextlib.contextmanager
def open_durable(path: str | os.PathLike[str], needed: int | None = None) -> Iterator[IO[bytes]]:
    """Open ``path`` for writing; the file gets its name only when the block ends without an exception.

    Args:
        path: The final name. Its directory is made if it is missing.
        needed: How much will be written [bytes], if it is known; for the message when it does not fit.

    Yields:
        A binary file object.

    Raises:
        InputError: If the disk is full or the directory cannot be written; the old file is untouched. The line for a
            full disk states how much is needed and how much is free.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with open_durable(pathlib.Path(folder, "a.bin")) as file:
        ...         _ = file.write(b"whole")
        ...     pathlib.Path(folder, "a.bin").read_bytes()
        b'whole'
    """
    path = Path(path)
    temporary = path.parent / f".{path.name[:40]}.{secrets.token_hex(4)}.part"  # remove_leftovers knows this form
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        why = f"{error.strerror or error}{_shortage(error, temporary, needed)}"
        raise InputError(f"cannot write {path}: {why}; what was there before is untouched") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` whole to ``path``. Raises as :func:`open_durable`."""
    with open_durable(path, len(data)) as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, whole, to ``path``. Raises as :func:`open_durable`."""
    write_bytes(path, text.encode(errors="surrogateescape"))  # a file's name in it may be no valid text


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON, whole, to ``path``; a number that is not finite becomes null.

    Raises:
        InputError: As :func:`open_durable`.
        TypeError: If ``value`` holds something JSON has no form for.
    """
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
    write_text(path, json.dumps(finite, indent=2) + "\n")


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def sidecar(path: Path) -> Path:
    """Return the path of the digests beside a file, which it shares with the generation before it."""
    return path.with_name(f"{path.name.replace('.previous.', '.')}.sha256")


def digests_of(path: Path) -> list[str]:
    """Return the digests beside a file, its own first; none where there is no file of them."""
    beside = sidecar(path)
    text = beside.read_text(encoding="ascii", errors="replace") if beside.is_file() else ""
    return re.findall(r"^[0-9a-f]{64}\b", text.lower(), re.MULTILINE)


def require_writable(directory: str | os.PathLike[str]) -> Path:
    """Make ``directory`` and check that a file can be written there, before any work is done.

    Raises:
        InputError: If it is no directory, or nothing can be written in it, as when the disk is full.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"\0")  # a full disk still makes an empty file
    except OSError as error:
        raise InputError(f"cannot write in {directory}: {error.strerror or error}; name another directory") from error
    return directory


def remove_leftovers(directory: str | os.PathLike[str]) -> None:
    """Remove the temporary files that a killed process left in ``directory``, not in its sub-directories.

    Lock the directory first (:func:`locked`): another process may be writing there.
    """
    for path in Path(directory).glob(f".*.{'[0-9a-f]' * 8}.part"):
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def locked(directory: str | os.PathLike[str], wait: bool = False) -> Iterator[None]:
    """Lock ``directory`` for this process during the block; the system releases it however the process ends.

    The lock is on the file ``.lock`` in it, which names the holder and stays there afterwards. A process that is forked
    meanwhile does not hold it. A file system without locks gives a warning.

    Args:
        directory: Made if it is missing.
        wait: Whether to wait until another process releases it.

    Raises:
        InputError: If it is locked already, by this process or another, or cannot be written.
    """
    path = Path(directory, ".lock")
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path, fallback_to_soft=False)
            try:
                stack.enter_context(lock.acquire(blocking=False))
            except Timeout:
                holder = ""
                with contextlib.suppress(OSError):  # Windows does not let a locked file be read
                    holder = path.read_text(errors="replace")
                busy = f"{directory}: another run is at work in this directory ({holder or 'it has just begun'})"
                if not wait:
                    raise InputError(f"{busy}; wait for its end or name another directory") from None
                log.warning("%s; waiting for its end", busy)
                stack.enter_context(lock.acquire())
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                raise InputError(f"cannot write in {directory}: {error.strerror}; name another directory") from error
            log.warning("%s: cannot be locked (%s); make sure that only one run uses it", directory, error.strerror)
        with contextlib.suppress(OSError):  # on a full disk the lock holds without its holder's name
            since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {since}")
        yield


def _shortage(error: OSError, temporary: Path, needed: int | None) -> str:
    """Return how much room is needed and how much is free, if the disk was full; else nothing."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ""
    temporary.unlink(missing_ok=True)  # it may hold all that is free
    amount = f"{needed / 1e6:,.1f} MB needed, " if needed else ""
    return f"; {amount}{shutil.disk_usage(temporary.parent).free / 1e6:,.1f} MB free"


def _sync_directory(directory: Path) -> None:
    if os.name != "posix":  # other systems cannot open a directory
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
