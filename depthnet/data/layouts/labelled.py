"""The ``labelled`` layout: ``nyu_depth_v2_labeled.mat``, the official file of NYU Depth V2, read as it lies.

The file is MATLAB 7.3, which is HDF5 behind a header of 512 bytes, with every array's axes reversed. It holds both
kinds of ground truth, a scene and a kind of room for each frame, and the object class of each pixel.

Source: Silberman, Hoiem, Kohli and Fergus, "Indoor Segmentation and Support Inference from RGBD Images", ECCV 2012.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from depthnet.core.camera import Intrinsics
from depthnet.core.types import InputError
from depthnet.data.layouts.layout import Pair, Source, SourceLayout
from depthnet.data.layouts.official import (
    KERAS_FRAMES,
    LABELLED_FRAMES,
    NYU_CAMERA,
    NYU_DEPTH_RANGE,
    TEST_FRAMES,
    nyu_camera,
)
from depthnet.data.layouts.scenes import scene_name

LABELLED_FILE = "nyu_depth_v2_labeled.mat"

_FIX = "download the official file again: depthnet data download FOLDER"
_MAX_FRAME = 1 << 24  # pixels; the official frames have 640x480


class _Frame(NamedTuple):
    """One frame of the file; its number counts from 0."""

    number: int
    label: str
    where: str
    scene: str
    recording: str
    scene_type: str


class LabelledLayout(SourceLayout):
    """NYU's labelled set, straight from its one file; the official test frames, and val scenes held out of the others.

    A further split, ``keras_frames``, has the frames that the published Keras project evaluates, most of them official
    training frames. A file with fewer frames than the official 1449 counts as their first ones. Each process opens the
    file for itself.

    Args:
        source: Its ``root`` is the file, or the folder that holds it under its official name; ``ground_truth`` "raw" is
            the sensor's depth, "filled" or "auto" the in-painted one.

    Raises:
        InputError: If the file is missing, torn, of another kind, or without an array that it must hold.
    """

    name = "labelled"
    nyu = True
    known_by = LABELLED_FILE
    scene_rule = "the scenes of the labelled file"
    camera = NYU_CAMERA
    _rows: dict[str, list[_Frame]]

    def __init__(self, source: Source) -> None:
        self._path = _mat_file(source)
        self.description = f"NYU, {self.name} layout, {self._path}"
        self.val = source.val
        self.depth_range = source.depth_range or NYU_DEPTH_RANGE
        self.ground_truth = "raw" if source.ground_truth == "raw" else "filled"
        self._depths = "rawDepths" if self.ground_truth == "raw" else "depths"
        self._file: tuple[int, Any] | None = None  # the process that opened it, and the file
        with self._opened(str(self._path)) as file:
            status = self._path.stat()
            count, width, height = file[self._depths].shape
            recordings, scene_types = (_texts(file, name, (1, count)) for name in ("scenes", "sceneTypes"))
            self.object_names = ("unlabelled", *_texts(file, "names"))
        self._size = (height, width)
        about = [self.name, self._path.name, status.st_size, status.st_mtime_ns, self.ground_truth, source.val]
        self._identity = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        self.notes = [] if count == LABELLED_FRAMES else [f"{self._path.name}: {count} of {LABELLED_FRAMES} frames"]
        frames = []
        for number, (recording, scene_type) in enumerate(zip(recordings, scene_types, strict=True)):
            where = f"{self._path.name}: frame {number} (counted from 0)"
            frames.append(_Frame(number, f"rgb_{number:05d}", where, scene_name(recording), recording, scene_type))
        rest = [frame for frame in frames if frame.number not in TEST_FRAMES]
        train, val = self._hold_out_val(rest, [], [frame.label for frame in rest])
        test = [frame for frame in frames if frame.number in TEST_FRAMES]
        self._rows = {"train": train, "val": val, "test": test, "keras_frames": frames[:KERAS_FRAMES]}
        self.numbered = list(self._rows)

    @staticmethod
    def holds(source: Source) -> bool:
        """Return whether the source is a MATLAB file, or a folder with the official one."""
        return _mat_file(source).is_file() and _mat_file(source).suffix.lower() == ".mat"

    def read(self, split: str, frame: int) -> Pair:
        """Read one pair at its full size; see :meth:`Layout.read`."""
        row = self._rows[split][frame]
        with self._opened(row.where) as file:
            image, depth = file["images"][row.number], file[self._depths][row.number]
        return np.ascontiguousarray(image.transpose(2, 1, 0)), np.ascontiguousarray(depth.T)

    def size(self, split: str, frame: int) -> tuple[int, int]:
        """Return (height, width), the same for all frames."""
        return self._size

    def recording(self, split: str, frame: int) -> str:
        """Return the scene as the file names it; parts of one scene end in a letter, such as ``kitchen_0028b``."""
        return self._rows[split][frame].recording

    def identity(self) -> str:
        """Return a digest of the file (name, size, time of change), the ground truth and how val is held out."""
        return self._identity

    def intrinsics(self, split: str, frame: int) -> Intrinsics | None:
        """Return NYU's camera."""
        return nyu_camera(self._size)

    def scene_type(self, split: str, frame: int) -> str:
        """Return what kind of room the frame shows, such as "kitchen"."""
        return self._rows[split][frame].scene_type

    def objects(self, split: str, frame: int) -> npt.NDArray[np.uint16]:
        """Return the object class of each pixel, shape ``(H, W)``; :attr:`object_names` names them."""
        row = self._rows[split][frame]
        with self._opened(row.where) as file:
            return np.ascontiguousarray(file["labels"][row.number].T)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    @contextmanager
    def _opened(self, where: str) -> Iterator[Any]:
        """Give the file as this process opened it; every way in which HDF5 fails becomes one line."""
        try:
            if self._file is None or self._file[0] != os.getpid():  # a worker must not read through its parent's
                self._file = os.getpid(), _open_file(self._path, self._depths)
            yield self._file[1]
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{where}: no such file; {_FIX}", "missing") from None
        except Exception as error:  # of h5py, in a dozen ways, and in several lines
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"{where}: cannot be read: {reason}; {_FIX}", "torn") from None


def _mat_file(source: Source) -> Path:
    return source.root / LABELLED_FILE if source.root.is_dir() else source.root


def _open_file(path: Path, depths_name: str) -> Any:
    """Open the file and check the arrays of frames, without reading them."""
    import h5py

    if not h5py.is_hdf5(path):
        found = "empty" if not path.stat().st_size else "torn"
        raise InputError(f"{path}: no MATLAB file of version 7.3 (HDF5); {_FIX}", found)
    file = h5py.File(path, "r", locking=False)  # nobody writes it, and file locks fail on network disks
    shape = _dataset(file, depths_name, np.float32).shape
    count, width, height = shape if len(shape) == 3 else (0, 0, 0)
    if not (0 < count <= LABELLED_FRAMES and 0 < width * height <= _MAX_FRAME):
        limits = f"(1 to {LABELLED_FRAMES}, width, height) of at most {_MAX_FRAME} pixels"
        raise InputError(f"{path}: {depths_name} has the shape {shape}, not {limits}; {_FIX}")
    _dataset(file, "images", np.uint8, (count, 3, width, height))
    _dataset(file, "labels", np.uint16, shape)
    return file


def _dataset(file: Any, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...] | None = None) -> Any:
    """Return a dataset that lies in the file itself: a link or external storage could name any file of the machine."""
    import h5py

    if name not in file:
        raise InputError(f"{file.filename}: has no {name}; {_FIX}")
    node = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(node, h5py.Dataset) or node.is_virtual or node.external is not None:
        raise InputError(f"{file.filename}: {name} is no array in the file itself; {_FIX}")
    if node.dtype != dtype:
        raise InputError(f"{file.filename}: {name} holds {node.dtype}, not {np.dtype(dtype)}; {_FIX}", "bit_depth")
    if shape not in (None, node.shape):
        raise InputError(f"{file.filename}: {name} has the shape {node.shape}, not {shape}; {_FIX}")
    return node


def _texts(file: Any, name: str, shape: tuple[int, ...] | None = None) -> list[str]:
    """Read a cell array of strings: references to arrays of UTF-16 characters."""
    import h5py

    cells = _dataset(file, name, h5py.ref_dtype, shape)
    return [file[reference][()].tobytes().decode("utf-16-le") for reference in cells[()].ravel()]
