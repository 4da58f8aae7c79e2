"""Pairs decoded and resized once, kept on disk behind the seam of a layout: what ``data.cache=disk`` chooses.

A cache is a folder, named by a key, of three arrays in NumPy's format: ``images.npy`` (``uint8``) and ``depths.npy``
(``uint16`` levels) hold all frames, one behind the other; ``frames.npy`` holds each frame's size of depth and what a
level of it stands for [m]. That is 0 until the frame's pixels are safe on the disk: nothing is read before all are
made. Caches are not deleted here; any may be while no run uses it.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import PIL
import torch
from numpy.lib.format import open_memmap
from torch.utils.data import DataLoader, Dataset

from depthnet.core.atomic_io import locked, open_durable
from depthnet.core.camera import Intrinsics
from depthnet.core.images import resize_image, resize_nearest
from depthnet.core.types import DepthRange, InputError
from depthnet.data.layouts.layout import Layout, Pair

_FORMAT = 2  # part of every key: raise it when the files' form, or what decoding or resizing gives, changes
_WAYS = "set data.cache=none, or data.cache_dir=PATH on another disk"
_SYNC_SECONDS = 1.0  # a kill costs at most the frames of this time
_FILES = ("images.npy", "depths.npy", "frames.npy")
_FRAME = np.dtype([("height", "<i8"), ("width", "<i8"), ("scale", "<f8")])

IntArray = npt.NDArray[np.int64]
Levels = npt.NDArray[np.uint16]
Size = tuple[int, int]
Decoded = tuple[npt.NDArray[np.uint8], Levels, float]


class _Arrays(NamedTuple):
    images: np.memmap[Any, np.dtype[np.uint8]]  # all frames, one behind the other
    depths: np.memmap[Any, np.dtype[np.uint16]]  # likewise, in levels
    frames: np.memmap[Any, np.dtype[np.void]]  # of _FRAME, (N,); scale: metres per level
    ends: IntArray  # of each frame in depths, (N,)


def _forward(name: str) -> Any:
    """Return a method that asks the cached layout."""

    def method(self: CachedLayout, *arguments: Any) -> Any:
        return getattr(self._layout, name)(*arguments)

    return method


class CachedLayout(Layout):
    """One split of a layout, with resized images; the other splits, and all but the pixels, are the layout's own.

    A pair is bit-equal to the layout's own, resized, wherever depth is stored as levels, or as floats that are whole
    millimetres. Other floats are rounded as :func:`to_levels` says; which pixels are valid never changes. Depth that is
    negative or not finite becomes 0, missing.

    Args:
        layout: Where the pairs come from.
        split: The split that is cached.
        folder: The folder of all caches; this one's is ``path`` in it, named by the key.
        image_size: (height, width) of the images [pixels], or of each one.
        depth_size: (height, width) that depth is resized to, or each one, as for training; None keeps each file's own.

    Raises:
        InputError: If the split has no frames.
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
        self._layout, self._split, self._count = layout, split, layout.count(split)
        if not self._count:
            raise InputError(f"{layout.description}: it has no {split} frames")
        self._image_sizes: IntArray = np.broadcast_to(np.array(image_size), (self._count, 2))
        self._image_ends = self._image_sizes.prod(axis=1).cumsum() * 3
        self._depth_sizes = None if depth_size is None else np.broadcast_to(np.array(depth_size), (self._count, 2))
        sizes = [None if each is None else each.tolist() for each in (self._image_sizes, self._depth_sizes)]
        facts = (_FORMAT, PIL.__version__, layout.identity(), split, layout.depth_range, sizes)
        self.path = folder / f"{layout.name}-{split}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"
        self._arrays: _Arrays | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the arrays behind: another process opens its own."""
        return {**vars(self), "_arrays": None}

    def build(self, workers: int = 0, advance: Callable[[int, int], object] | None = None) -> None:
        """Make what is missing of the cache; does nothing where it is whole.

        Another process that makes the same cache is waited for. After a kill or an error, what was made stays.

        Args:
            workers: Processes that decode; 0 decodes here.
            advance: Called after each frame with the number of frames made and of all.

        Raises:
            InputError: If a frame cannot be read (the layout's own error), or the disk is full or cannot be written.
        """
        if self._open():
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with locked(self.path, wait=True):
                if not self._open():
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
        arrays = self._opened()
        height, width, scale = arrays.frames[frame].item()
        end = arrays.ends[frame]
        depth = np.asarray(arrays.depths)[end - height * width : end].astype(np.float32).reshape(height, width)
        depth *= np.float32(scale)
        (height, width), end = self._image_sizes[frame], self._image_ends[frame]
        image = np.asarray(arrays.images)[end - height * width * 3 : end].reshape(height, width, 3).copy()
        for pixels in arrays[:2]:
            _forget(pixels)
        return image, depth

    def size(self, split: str, frame: int) -> tuple[int, int]:
        """Return (height, width) of the depth that :meth:`read` gives."""
        if split != self._split:
            return self._layout.size(split, frame)
        height, width, _ = self._opened().frames[frame].item()
        return height, width

    count, scene, label, where = map(_forward, ("count", "scene", "label", "where"))
    identity, files, metres_per_level = map(_forward, ("identity", "files", "metres_per_level"))
    scene_type, objects = map(_forward, ("scene_type", "objects"))

    def intrinsics(self, split: str, frame: int) -> Intrinsics | None:
        """Return the camera of the image that :meth:`read` gives."""
        camera = self._layout.intrinsics(split, frame)
        if split != self._split or camera is None:
            return camera
        return camera.resized(self._layout.size(split, frame), _size(self._image_sizes[frame]))

    def _opened(self) -> _Arrays:
        self._arrays = self._arrays or self._open()
        if self._arrays is None:
            raise InputError(f"{self.path}: the cache is not whole; start again to make what is missing")
        return self._arrays

    def _open(self, mode: Literal["r", "r+"] = "r", unfinished: bool = False) -> _Arrays | None:
        """Return the arrays; None where a file is not whole, or, unless ``unfinished`` may be, a frame is not made."""
        try:
            images, depths, frames = (open_memmap(self.path / name, mode=mode) for name in _FILES)
        except (OSError, ValueError):
            return None
        if (frames.dtype, frames.shape) != (_FRAME, (self._count,)) or not (unfinished or frames["scale"].all()):
            return None
        ends = np.asarray((frames["height"] * frames["width"]).cumsum())
        whole = (images.size, depths.size) == (self._image_ends[-1], ends[-1])
        return _Arrays(images, depths, frames, ends) if whole else None

    def _make(self, workers: int, advance: Callable[[int, int], object] | None) -> None:
        """Write every frame that is not made; its scale, the sign that it is, after its pixels are on the disk."""
        if not self._open(unfinished=True):
            self._allocate()
        arrays = cast("_Arrays", self._open("r+", unfinished=True))
        missing = np.flatnonzero(arrays.frames["scale"] == 0).tolist()
        scales: dict[int, float] = {}

        def flag() -> None:
            for pixels in arrays[:2]:
                pixels.flush()
                _forget(pixels)
            for frame, scale in scales.items():
                arrays.frames["scale"][frame] = scale
            arrays.frames.flush()
            scales.clear()

        loader = DataLoader(
            _DecodedFrames(self),
            batch_size=None,
            sampler=missing,
            num_workers=workers,
            collate_fn=tuple,  # as it is: arrays, not tensors
            generator=torch.Generator(),  # or it would draw from the run's
        )
        try:
            synced = time.monotonic()
            for made, (frame, (image, levels, scale)) in enumerate(zip(missing, loader, strict=True), start=1):
                if levels.shape != arrays.frames[["height", "width"]][frame].item():
                    raise InputError(f"{self.where(self._split, frame)}: its size is not what its header states")
                arrays.images[self._image_ends[frame] - image.size : self._image_ends[frame]] = image.ravel()
                arrays.depths[arrays.ends[frame] - levels.size : arrays.ends[frame]] = levels.ravel()
                scales[frame] = scale
                if time.monotonic() - synced >= _SYNC_SECONDS:
                    flag()
                    synced = time.monotonic()
                if advance:
                    advance(self._count - len(missing) + made, self._count)
        finally:
            flag()

    def _allocate(self) -> None:
        """Make the files anew at their full length, so that a full disk shows before any work is done."""
        frames = np.zeros(self._count, _FRAME)
        sizes = self._depth_sizes
        if sizes is None:
            sizes = np.array([self._layout.size(self._split, frame) for frame in range(self._count)])
        frames["height"], frames["width"] = sizes.T
        lengths = int(self._image_ends[-1]), int(sizes.prod(axis=1).sum())
        paths = [self.path / name for name in _FILES]
        for path in paths:
            path.unlink(missing_ok=True)
        needed, free = lengths[0] + 2 * lengths[1], shutil.disk_usage(self.path).free
        if free < needed:
            raise InputError(
                f"{self.path}: the cache of {self._count} {self._split} frames needs {needed / 1e9:.3g} GB and "
                f"{free / 1e9:.3g} GB are free; {_WAYS}"
            )
        try:
            for path, length, kind in zip(paths, lengths, (np.uint8, np.uint16), strict=False):
                open_memmap(path, mode="w+", dtype=kind, shape=(length,))  # sparse
                if hasattr(os, "posix_fallocate"):  # macOS has none
                    with path.open("r+b") as file:
                        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError:
            for path in paths:
                path.unlink(missing_ok=True)
            raise
        with open_durable(paths[2]) as file:
            np.save(file, frames)

    def decode(self, frame: int) -> Decoded:
        """Return a frame's image, its levels of depth and what a level stands for [m], as they are stored."""
        image, depth = self._layout.read(self._split, frame)
        if self._depth_sizes is not None:
            depth = resize_nearest(depth, _size(self._depth_sizes[frame]))
        metres = self._layout.metres_per_level(self._split, frame)
        return resize_image(image, _size(self._image_sizes[frame])), *to_levels(depth, metres, self.depth_range)


class _DecodedFrames(Dataset[Decoded]):
    """What is stored of each frame, for a loader's workers."""

    def __init__(self, layout: CachedLayout) -> None:
        self._layout = layout

    def __getitem__(self, frame: int) -> Decoded:
        return self._layout.decode(frame)


def _forget(array: np.memmap[Any, Any]) -> None:
    """Drop pages from memory: else this process seems to hold all it ever touched, and a batch system ends it."""
    cast("mmap.mmap", array.base).madvise(mmap.MADV_DONTNEED)


def _size(row: IntArray) -> Size:
    height, width = row.tolist()
    return height, width


def to_levels(depth: npt.NDArray[np.float32], metres: float | None, depth_range: DepthRange) -> tuple[Levels, float]:
    """Turn depth into 16-bit levels of ``metres``, else of 1 mm, where that is exact; else rounded to a finer step.

    The step is ``max / 65534.5``: a valid depth moves by half of it, 0.08 mm for 10 m, and by a whole one at most where
    it would else leave the range at ``min``. Valid depth stays valid, and what is beyond the range stays beyond it.

    Args:
        depth: Depth [m], shape ``(H, W)``. What is negative or not finite becomes 0.
        metres: What a level of the depth's file stands for [m], where it has levels.
        depth_range: Depths that are valid [m].

    Returns:
        The levels, shape ``(H, W)``, and what one stands for [m]: depth is ``float32(level) * float32(metres)``.

    Example:
        >>> depth = np.array([[0, 2.5, 9.9999, 70.0]], np.float32)
        >>> levels, metres = to_levels(depth, None, DepthRange(1e-3, 10.0))
        >>> (levels * metres).round(4).tolist()
        [[0.0, 2.5001, 9.9999, 10.0001]]
    """
    with np.errstate(over="ignore"):
        depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))
        for scale in filter(None, (metres, 1e-3)):
            levels = np.rint(depth / np.float32(scale))
            if levels.max() <= 65535 and np.array_equal(levels * np.float32(scale), depth):
                return levels.astype(np.uint16), scale
    step = depth_range.max / 65534.5  # the range's end lies halfway between the last two levels
    lowest = int(depth_range.min / step * (1 + 1e-6)) + 1  # more than float32's rounding above the range's beginning
    levels = np.clip(np.rint(depth.astype(np.float64) / step), lowest, 65534)
    levels[depth <= depth_range.min] = 0
    levels[depth >= depth_range.max] = 65535
    return levels.astype(np.uint16), step
