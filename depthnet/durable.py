"""The one writer of files that matter: a reader sees the whole old file or the whole new one, whatever happens.

A file is written under a temporary name in its own directory, synced, renamed over the final name, and the directory
is synced. So a crash, a kill or a full disk leaves what was there before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from depthnet.types import InputError

__all__ = ["file_digest", "open_durable", "require_writable", "write_bytes", "write_json", "write_text"]


@contextlib.contextmanager
def open_durable(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open ``path`` to be written whole; it gets its name only when the block ends without an exception.

    Args:
        path: The final name. Its directory is made if it is missing.

    Yields:
        A binary file object.

    Raises:
        InputError: If the disk is full or the directory cannot be written; what stood at ``path`` is still there.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with open_durable(pathlib.Path(folder, "a.bin")) as file:
        ...         _ = file.write(b"whole")
        ...     pathlib.Path(folder, "a.bin").read_bytes()
        b'whole'
    """
    path = Path(path)
    temporary = path.parent / f".{path.name[:40]}.{secrets.token_hex(4)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; what was there before is untouched"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` whole to ``path``. Raises as :func:`open_durable`."""
    with open_durable(path) as file:
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
    write_text(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_writable(directory: str | os.PathLike[str]) -> Path:
    """Make ``directory`` and prove that a file can be written there, before any work is done.

    Raises:
        InputError: If it is no directory, or nothing can be written in it.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise InputError(f"cannot write in {directory}: {error.strerror or error}; name another directory") from error
    return directory


def _sync_directory(directory: Path) -> None:
    if os.name != "posix":  # other systems cannot open a directory
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
