"""Pairs decoded and resized once, kept on disk behind the seam of a layout: what ``data.cache=disk`` chooses.

A cache is a folder, named by a key, of two files that only grow. ``pairs.bin`` holds the frames one behind the other:
depth as ``float32`` [m], then the image as ``uint8``. ``index.bin`` has a row of three integers for each frame that is
safe on the disk: height and width of its depth, and where it ends in ``pairs.bin`` [bytes]. Nothing is read before all
frames are made. Caches are not deleted here; any may be while no run uses it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import torch
from torch.utils.data import DataLoader, Dataset

from depthnet.core.atomic_io import locked
from depthnet.core.camera import Intrinsics
from depthnet.core.images import resize_image, resize_nearest
from depthnet.core.types import InputError
from depthnet.data.layouts.layout import Layout, Pair

_FORMAT = 3  # part of every key: raise it when the files' form, or what decoding or resizing gives, changes
_WAYS = "set data.cache=none, or data.cache_dir=PATH on another disk"
_SYNC_SECONDS = 1.0  # a kill costs at most the frames of this time
_ROW = np.dtype((np.int64, 3))

IntArray = npt.NDArray[np.int64]
Size = tuple[int, int]


def _forward(name: str) -> Any:
    """Return a method that asks the cached layout."""

    def method(self: CachedLayout, *arguments: Any) -> Any:
        return getattr(self._layout, name)(*arguments)

    return method


class CachedLayout(Layout):
    """One split of a layout, with resized images; the other splits, and all but the pixels, are the layout's own.

    A pair is bit-equal to the layout's own, resized.

    Args:
        layout: Where the pairs come from.
        split: The split that is cached.
        folder: The folder of all caches; this one's is ``path`` in it, named by the key.
        image_size: (height, width) of the images [pixels], or of each one.
        depth_size: (height, width) that depth is resized to, or each one, as for training; None keeps each file's own.
    """

    def __init__(
        self,
        layout: Layout,
        split: str,
        folder: Path,
        image_size: Size | Sequence[Size],
        depth_size: Size | Sequence[Size] | None = None,
    ) -> None:
        vars(self).update({name: getattr(layout, name) for name in Layout.__annotations__})
        self._layout, self._split = layout, split
        shape = layout.count(split), 2
        self._image_sizes: IntArray = np.broadcast_to(np.array(image_size), shape)
        self._depth_sizes = None if depth_size is None else np.broadcast_to(np.array(depth_size), shape)
        sizes = [None if each is None else each.tolist() for each in (self._image_sizes, self._depth_sizes)]
        facts = (_FORMAT, PIL.__version__, layout.identity(), split, sizes)
        self.path = folder / f"{layout.name}-{split}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"
        self._pairs, self._index = self.path / "pairs.bin", self.path / "index.bin"
        self._rows: IntArray | None = None  # of the index, once the cache is whole

    def build(self, workers: int = 0, advance: Callable[[int, int], object] | None = None) -> None:
        """Make what is missing of the cache; does nothing where it is whole.

        Another process that makes the same cache is waited for. After a kill or an error, what was made stays.

        Args:
            workers: Processes that decode; 0 decodes here.
            advance: Called after each frame with the number of frames made and of all.

        Raises:
            InputError: If a frame cannot be read (the layout's own error), or the disk is full or cannot be written.
        """
        if len(self._made()) == len(self._image_sizes):
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with locked(self.path, wait=True):
                self._make(workers, advance)
        except OSError as error:
            raise InputError(f"{self.path}: the cache cannot be written: {error.strerror or error}; {_WAYS}") from error

    def read(self, split: str, frame: int) -> Pair:
        """Return one pair from the cache, as fresh arrays: the image at its size, depth [m] at its own.

        Raises:
            InputError: If the cache is not whole.
        """
        if split != self._split:
            return self._layout.read(split, frame)
        (height, width, end), image_size = self._row(frame), self._image_sizes[frame]
        depth_bytes = 4 * height * width
        length = depth_bytes + 3 * int(image_size.prod())
        pixels = np.fromfile(self._pairs, np.uint8, length, offset=end - length)
        image = pixels[depth_bytes:].reshape(*image_size, 3)
        return image, pixels[:depth_bytes].view(np.float32).reshape(height, width)

    def size(self, split: str, frame: int) -> tuple[int, int]:
        """Return (height, width) of the depth that :meth:`read` gives."""
        return self._row(frame)[:2] if split == self._split else self._layout.size(split, frame)

    count, scene, label, where = map(_forward, ("count", "scene", "label", "where"))
    identity, files, metres_per_level = map(_forward, ("identity", "files", "metres_per_level"))
    scene_type, objects = map(_forward, ("scene_type", "objects"))

    def intrinsics(self, split: str, frame: int) -> Intrinsics | None:
        """Return the camera of the image that :meth:`read` gives."""
        camera = self._layout.intrinsics(split, frame)
        if split != self._split or camera is None:
            return camera
        return camera.resized(self._layout.size(split, frame), _size(self._image_sizes[frame]))

    def _row(self, frame: int) -> tuple[int, int, int]:
        """Return a frame's row of the index."""
        if self._rows is None:
            rows = self._made()
            if len(rows) < len(self._image_sizes):
                raise InputError(f"{self.path}: the cache is not whole; start again to make what is missing")
            self._rows = rows
        height, width, end = self._rows[frame].tolist()
        return height, width, end

    def _made(self) -> IntArray:
        """Return the index's rows of the frames that are made: the first of the split, (M, 3)."""
        if not (self._index.exists() and self._pairs.exists()):
            return np.empty((0, 3), np.int64)
        rows: IntArray = np.fromfile(self._index, _ROW)
        return rows[rows[:, 2] <= self._pairs.stat().st_size]

    def _make(self, workers: int, advance: Callable[[int, int], object] | None) -> None:
        """Write every frame that is not made; its row, the sign that it is, after its pixels are on the disk."""
        made, count = self._made(), len(self._image_sizes)
        missing = range(len(made), count)
        self._require_space(missing)
        loader = DataLoader(
            _Decoder(self._layout, self._split, self._image_sizes, self._depth_sizes),
            batch_size=None,
            sampler=missing,
            num_workers=workers,
            collate_fn=tuple,  # as it is: arrays, not tensors
            generator=torch.Generator(),  # or it would draw from the run's
        )
        end = int(made[-1, 2]) if len(made) else 0
        rows: list[tuple[int, int, int]] = []  # of frames that are not yet safe on the disk
        with self._pairs.open("ab") as pairs, self._index.open("ab") as index:
            pairs.truncate(end)
            index.truncate(made.nbytes)

            def sync() -> None:
                pairs.flush()
                os.fsync(pairs.fileno())
                index.write(np.array(rows, np.int64).tobytes())
                index.flush()
                os.fsync(index.fileno())
                rows.clear()

            try:
                synced = time.monotonic()
                for frame, (image, depth) in zip(missing, loader, strict=True):
                    end += pairs.write(depth.tobytes() + image.tobytes())
                    rows.append((*depth.shape, end))
                    if time.monotonic() - synced >= _SYNC_SECONDS:
                        sync()
                        synced = time.monotonic()
                    if advance:
                        advance(frame + 1, count)
            finally:
                sync()

    def _require_space(self, frames: range) -> None:
        """Raise InputError where frames will not fit on the disk, before any work is done."""
        if self._depth_sizes is None:
            depth_sizes = np.array([self._layout.size(self._split, frame) for frame in frames])
        else:
            depth_sizes = self._depth_sizes[frames.start :]
        image_sizes = self._image_sizes[frames.start :]
        needed = 4 * depth_sizes.prod(axis=-1).sum() + 3 * image_sizes.prod(axis=-1).sum()
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise InputError(
                f"{self.path}: the cache of {len(frames)} {self._split} frames needs {needed / 1e9:.3g} GB and "
                f"{free / 1e9:.3g} GB are free; {_WAYS}"
            )


class _Decoder(Dataset[Pair]):
    """What is stored of each frame, for a loader's workers."""

    def __init__(self, layout: Layout, split: str, image_sizes: IntArray, depth_sizes: IntArray | None) -> None:
        self._layout, self._split, self._image_sizes, self._depth_sizes = layout, split, image_sizes, depth_sizes

    def __getitem__(self, frame: int) -> Pair:
        image, depth = self._layout.read(self._split, frame)
        if self._depth_sizes is not None:
            depth = resize_nearest(depth, _size(self._depth_sizes[frame]))
        return resize_image(image, _size(self._image_sizes[frame])), depth


def _size(row: IntArray) -> Size:
    height, width = row.tolist()
    return height, width
