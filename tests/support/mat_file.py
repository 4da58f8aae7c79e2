"""A writer of small files in the true form of ``nyu_depth_v2_labeled.mat``: MATLAB 7.3, reversed axes, references."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

USER_BLOCK = 512
NAMES = ("book", "bottle", "cabinet", "wall")


class MatFrame(NamedTuple):
    """A frame, its arrays as a layout gives them: (H, W, 3) uint8, (H, W) float32 [m], (H, W) float32 [m], 0: hole."""

    image: np.ndarray
    depth: np.ndarray
    raw: np.ndarray
    scene: str
    scene_type: str
    labels: np.ndarray  # (H, W) uint16, 0: unlabelled


def random_frames(count: int, size: tuple[int, int] = (48, 64), per_scene: int = 2) -> list[MatFrame]:
    """Make frames of whole millimetres; each ``per_scene`` neighbours show one scene, in recordings ``a`` and ``b``."""
    frames = []
    height, width = size
    for number in range(count):
        rng = np.random.default_rng(number)
        slope = np.linspace(0, 2000, height)[:, None] + np.linspace(0, 500, width)
        levels = (slope + rng.uniform(700, 4000) + rng.integers(0, 9, size)).astype(np.uint16)
        depth = levels.astype(np.float32) * np.float32(1e-3)
        raw = np.where(rng.random(size) < 0.2, np.float32(0), depth)
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        kind = ("kitchen", "living_room", "office")[number // per_scene % 3]
        scene = f"{kind}_{number // per_scene:04d}{'ab'[number % 2]}"
        frames.append(MatFrame(image, depth, raw, scene, kind, rng.integers(0, len(NAMES) + 1, size, dtype=np.uint16)))
    return frames


def write_mat(path: Path, frames: Sequence[MatFrame], names: Sequence[str] = NAMES) -> None:
    """Write frames as MATLAB 7.3 does; a frame's number in the file is its place in ``frames``."""
    with h5py.File(path, "w", libver="earliest", userblock_size=USER_BLOCK) as file:
        references = file.create_group("#refs#")
        arrays = {
            "images": ("uint8", np.stack([frame.image.transpose(2, 1, 0) for frame in frames])),
            "depths": ("single", np.stack([frame.depth.T for frame in frames])),
            "rawDepths": ("single", np.stack([frame.raw.T for frame in frames])),
            "labels": ("uint16", np.stack([frame.labels.T for frame in frames])),
            "instances": ("uint8", np.stack([frame.labels.T.astype(np.uint8) for frame in frames])),
            "accelData": ("single", np.zeros((4, len(frames)), np.float32)),
        }
        for name, (kind, array) in arrays.items():
            chunks = (min(4, len(array)), *(1 if n == 3 else -(-n // 2) for n in array.shape[1:]))
            file.create_dataset(name, data=array, chunks=chunks, compression="gzip", compression_opts=3)
            file[name].attrs["MATLAB_class"] = np.bytes_(kind)
        cells = {
            "names": list(names),
            "scenes": [frame.scene for frame in frames],
            "sceneTypes": [frame.scene_type for frame in frames],
            "rawDepthFilenames": [f"{frame.scene}/d-{number}.pgm" for number, frame in enumerate(frames)],
            "rawRgbFilenames": [f"{frame.scene}/r-{number}.ppm" for number, frame in enumerate(frames)],
        }
        for name, texts in cells.items():
            _write_cell(file, references, name, texts)
        file["namesToIds"] = np.array([[0xDD000000, 2, 1, 1, 1, 1]], np.uint32)  # an object that only MATLAB can read
        file["namesToIds"].attrs["MATLAB_class"] = np.bytes_("containers.Map")
        file["namesToIds"].attrs["MATLAB_object_decode"] = np.int32(3)
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Nov 26 11:41:50 2012 HDF5 schema 1.00 ."
    with path.open("r+b") as block:
        block.write(header.ljust(116) + bytes(8) + b"\x00\x02IM")


def _write_cell(file: h5py.File, references: h5py.Group, name: str, texts: Sequence[str]) -> None:
    """Write a cell array of strings, a column in MATLAB and so of shape (1, n) here."""
    cell = np.empty((1, len(texts)), h5py.ref_dtype)
    for place, text in enumerate(texts):
        characters = np.frombuffer(text.encode("utf-16-le"), np.uint16)[:, None]
        node = references.create_dataset(f"{name}{place}", data=characters)
        node.attrs["MATLAB_class"] = np.bytes_("char")
        node.attrs["MATLAB_int_decode"] = np.int32(2)
        node.attrs["H5PATH"] = np.bytes_(f"/{name}")
        cell[0, place] = node.ref
    file.create_dataset(name, data=cell, dtype=h5py.ref_dtype).attrs["MATLAB_class"] = np.bytes_("cell")
