"""The ``h5`` layout: NYU as FastDepth and the Hugging Face hub distribute it, one HDF5 file for each pair.

``train/<recording>/<number>.h5`` and ``val/official/<number>.h5`` hold ``rgb``, uint8 of shape (3, H, W), and
``depth``, floats in meters of shape (H, W). Its ``val`` is the 654 official test frames, numbered from 1: the split
``test`` here. Whole scenes of the training files are held out as val.
Source: Wofk et al., "FastDepth", ICRA 2019; ``sayakpaul/nyu_depth_v2`` on the hub.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from depthnet.core.types import InputError, reason_of
from depthnet.data.layouts.files import FileLayout, FileRow, explained
from depthnet.data.layouts.layout import SPLITS, Pair, Source

_FOLDERS = {"train": "train", "test": "val"}


class _TestRow(FileRow):
    """A test frame, named by the number that it has in the labelled set, from 0."""

    __slots__ = ()

    @property
    def label(self) -> str:
        path = Path(self.image)
        return f"{path.parent.as_posix()}/{int(path.stem) - 1:05d}" if path.stem.isdigit() else super().label


class H5Layout(FileLayout):
    """NYU in one HDF5 file for each pair.

    Args:
        source: Its ``root`` is the folder that holds ``train`` and ``val``.
    """

    name = "h5"
    nyu = True
    known_by = "train/<recording>/<number>.h5"

    def __init__(self, source: Source) -> None:
        rows: dict[str, list[FileRow]] = {}
        for split, folder in _FOLDERS.items():
            row = _TestRow if split == "test" else FileRow
            paths = sorted((source.root / folder).rglob("*.h5"), key=lambda path: (path.parent, len(path.stem), path))
            names = [path.relative_to(source.root).as_posix() for path in paths]
            rows[split] = [row(name, name, name, bits=32) for name in names]
        super().__init__(source, dict.fromkeys(SPLITS, source.root), rows)

    @staticmethod
    def holds(source: Source) -> bool:
        """Return whether there is such a file."""
        return any(next((source.root / folder).rglob("*.h5"), None) for folder in _FOLDERS.values())

    def read(self, split: str, frame: int) -> Pair:
        """Read one pair; see :meth:`Layout.read`."""
        with explained(self.where(split, frame)), _opened(self.files(split, frame)[0]) as file:
            image, depth = (np.asarray(file[name]) for name in ("rgb", "depth"))
        if image.dtype != np.uint8 or image.shape != (3, *depth.shape) or depth.dtype.kind != "f":
            forms = f"rgb {image.dtype} {image.shape}, depth {depth.dtype} {depth.shape}"
            line = f"{forms}; needs uint8 (3, H, W) and floats (H, W)"
            raise InputError(f"{self.where(split, frame)}: {line}", "unreadable")
        return np.ascontiguousarray(image.transpose(1, 2, 0)), depth.astype(np.float32)

    def size(self, split: str, frame: int) -> tuple[int, int]:
        """Return (height, width) of a frame's depth from the file's header."""
        if (split, frame) not in self._sizes:
            with explained(self.where(split, frame)), _opened(self.files(split, frame)[0]) as file:
                height, width = file["depth"].shape
            self._sizes[split, frame] = (int(height), int(width))
        return self._sizes[split, frame]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"cannot be read as HDF5 with rgb and depth ({reason_of(error)})", "unreadable") from None
