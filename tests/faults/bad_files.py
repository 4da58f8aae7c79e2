"""Files that would take all memory or time, or never end: photographs, depth arrays, lists and labelled files.

``PHOTOGRAPHS``, ``ARRAYS``, ``LISTS`` and ``LABELLED`` make them. Each function takes the path to write.
"""

import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from mat_file import random_frames, write_mat
from PIL import Image


def photograph(path: Path) -> None:
    """Write a sound photograph, small and noisy; the format follows the name."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(path: Path, size: tuple[int, int], *, colour: int = 2, rows: int | None = None) -> None:
    """Write a PNG of black pixels, 8 bits a channel, whatever its size."""
    width, height = size
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    line = bytes(1 + width * {0: 1, 2: 3, 6: 4}[colour])
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(line) for _ in range(height if rows is None else rows)) + packer.flush()
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def _jpeg(path: Path, size: tuple[int, int]) -> None:
    """Write a small JPEG whose header states another size."""
    photograph(path.with_suffix(".jpg"))
    data = bytearray(path.with_suffix(".jpg").read_bytes())
    path.with_suffix(".jpg").unlink()
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", size[1], size[0])
    path.write_bytes(data)


def _sparse(path: Path, start: bytes, length: int = 1 << 40) -> None:
    path.write_bytes(start)
    os.truncate(path, length)


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # an address has 107 bytes at most
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(path.name)
    os.chdir(here)


PHOTOGRAPHS: dict[str, Callable[[Path], object]] = {
    "a header of ten thousand million pixels": lambda path: _png(path, (100_000, 100_000), rows=1),
    "a header of 2^31 columns": lambda path: _png(path, (2**31 - 1, 1), rows=0),
    "a JPEG of 65500x65500": lambda path: _jpeg(path, (65_500, 65_500)),
    "a terabyte of zeros": lambda path: _sparse(path, b""),
    "a terabyte behind a PNG header": lambda path: _sparse(path, b"\x89PNG\r\n\x1a\n"),
    "a pipe": lambda path: os.mkfifo(path),
    "a socket": _socket,
    "a device without end": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a pickle": lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n"),
    "nothing": lambda path: path.write_bytes(b""),
}
"""None of them is a photograph; each must be refused with one line."""


def _npy(path: Path, header: str, body: bytes = b"") -> None:
    text = header.encode() + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + body)


def _stated(shape: str, kind: str = "<f4") -> str:
    return f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}"


def _large_array(path: Path) -> None:
    _npy(path, _stated("(20000, 20000)"))
    os.truncate(path, 4 * 20_000**2 + 1000)


ARRAYS: dict[str, Callable[[Path], object]] = {
    "a pickle in an array": lambda path: np.save(path, np.array([{}], object), allow_pickle=True),
    "a shape of 10^18 numbers": lambda path: _npy(path, _stated("(1000000000, 1000000000)")),
    "a shape of 2^70 numbers": lambda path: _npy(path, _stated(f"({2**35}, {2**35})")),
    "a shape below zero": lambda path: _npy(path, _stated("(-1, 64)")),
    "400 million numbers": _large_array,
    "a header that calls": lambda path: _npy(path, "__import__('os').getcwd()"),
    "numbers of a million bytes": lambda path: _npy(path, _stated("(2, 2)", "|V1000000")),
    "an array that is a pipe": lambda path: os.mkfifo(path),
    "an array that is a device": lambda path: path.symlink_to("/dev/zero"),
    "an array that is a link to itself": lambda path: path.symlink_to(path.name),
}
"""Depth files that are none; each must be refused with one line."""

LISTS: dict[str, Callable[[Path], object]] = {
    "a list that is a pipe": lambda path: os.mkfifo(path),
    "a list that is a device": lambda path: path.symlink_to("/dev/zero"),
    "a list that is a link to itself": lambda path: path.symlink_to(path.name),
    "a list that is a folder": lambda path: path.mkdir(),
    "a list of binary data": lambda path: path.write_bytes(bytes(range(256)) * 100),
}
"""List and CSV files that are none."""


def _with(change: Callable[[h5py.File, Path], object]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write_mat(path, random_frames(4))
        with h5py.File(path, "r+") as file:
            change(file, path)

    return make


def _external(file: h5py.File, path: Path) -> None:
    shape = file["depths"].shape
    del file["depths"]
    secret = path.with_name("secret.bin")
    secret.write_bytes(bytes(int(np.prod(shape)) * 4))
    file.create_dataset("depths", shape, np.float32, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def _link(file: h5py.File, name: str, link: object) -> None:
    del file[name]
    file[name] = link


def _virtual(file: h5py.File, path: Path) -> None:
    shape = file["depths"].shape
    del file["depths"]
    layout = h5py.VirtualLayout(shape, np.float32)
    layout[:] = h5py.VirtualSource("elsewhere.h5", "data", shape)
    file.create_virtual_dataset("depths", layout)


def _resize(file: h5py.File, width: int, height: int) -> None:
    for name in ("images", "depths", "rawDepths", "labels"):
        kind = file[name].dtype
        del file[name]
        file.create_dataset(name, (4, 3, width, height) if name == "images" else (4, width, height), kind)


LABELLED: dict[str, Callable[[Path], object]] = {
    "external storage": _with(_external),
    "an external link": _with(lambda file, path: _link(file, "depths", h5py.ExternalLink("elsewhere.h5", "/x"))),
    "a soft link": _with(lambda file, path: _link(file, "depths", h5py.SoftLink("/rawDepths"))),
    "a virtual array": _with(_virtual),
    "frames of 196 megapixels": _with(lambda file, path: _resize(file, 14_000, 14_000)),
    "another kind of number": _with(lambda file, path: (file.move("depths", "x"), file.move("labels", "depths"))),
    "an old MATLAB file": lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(1000)),
    "a torn file": lambda path: (write_mat(path, random_frames(4)), os.truncate(path, path.stat().st_size // 2)),
    "a labelled file that is a pipe": lambda path: os.mkfifo(path),
    "a labelled file that is a device": lambda path: path.symlink_to("/dev/zero"),
    "a terabyte of nothing": lambda path: _sparse(path, b""),
}
"""Files in the place of ``nyu_depth_v2_labeled.mat``, of which none may be read."""
