"""Pairs decoded and resized once, kept on disk behind the seam of a layout: what ``data.cache=disk`` chooses.

A cache is a folder: ``images.bin`` (``uint8``), ``depths.bin`` (``uint16`` levels), ``scales.bin`` (the key, and what a
level of each frame stands for [m]: 0 until its pixels are safe on the disk), and last ``index.json``, without which
nothing is read. Caches are not deleted here; any may be while no run uses it. Building needs a POSIX system.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import mmap
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import PIL

from depthnet.camera import Intrinsics
from depthnet.data.layout import Layout, Pair
from depthnet.durable import write_bytes, write_json
from depthnet.image import resize_image, resize_nearest
from depthnet.types import DepthRange, InputError

__all__ = ["CachedLayout", "to_levels"]

_FORMAT = 1  # part of every key: raise it when the files' form, or what decoding or resizing gives, changes
_WAYS = "set data.cache=none, or data.cache_dir=PATH on another disk"
_SYNC_SECONDS = 1.0  # a kill costs at most the frames of this time
_FILES = ("images.bin", "depths.bin", "scales.bin")
_KEY_BYTES = 64

IntArray = npt.NDArray[np.int64]
Levels = npt.NDArray[np.uint16]
Size = tuple[int, int]
Made = tuple[npt.NDArray[np.uint8], Levels, float]


class _Maps(NamedTuple):
    files: tuple[mmap.mmap, ...]
    images: npt.NDArray[np.uint8]  # all frames, one behind the other
    levels: Levels  # all frames, one behind the other
    scales: npt.NDArray[np.float64]  # metres per level, (N,)
    sizes: IntArray  # of depth, (N, 2)
    ends: IntArray  # of each frame in levels, (N,)


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
        one_image, one_depth = _common(image_size), None if depth_size is None else _common(depth_size)
        self._image_sizes = np.broadcast_to(np.array(one_image, np.int64), (self._count, 2))
        self._image_ends = self._image_sizes.prod(axis=1).cumsum() * 3
        self._depth_sizes = None if one_depth is None else np.broadcast_to(np.array(one_depth), (self._count, 2))
        facts = (_FORMAT, PIL.__version__, layout.identity(), split, self._count, one_image, one_depth)
        self._key = hashlib.sha256(repr((facts, layout.depth_range)).encode()).hexdigest()
        self.path = folder / f"{layout.name}-{split}-{self._key[:16]}"
        self._maps: _Maps | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the maps behind: another process opens its own."""
        return {**vars(self), "_maps": None}

    def build(self, workers: int = 0, advance: Callable[[int, int], object] | None = None) -> None:
        """Make what is missing of the cache; does nothing where it is whole.

        Another process that makes the same cache is waited for. After a kill or an error, what was made stays.

        Args:
            workers: Processes that decode; 0 decodes here.
            advance: Called after each frame with the number of frames made and of all.

        Raises:
            InputError: If a frame cannot be read (the layout's own error), or the disk is full or cannot be written.
        """
        if self._find_whole() is not None:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with _lock(self.path / "lock"):
                if self._find_whole() is None:
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
        maps = self._opened()
        height, width = maps.sizes[frame]
        end = maps.ends[frame]
        depth = maps.levels[end - height * width : end].astype(np.float32).reshape(height, width)
        depth *= np.float32(maps.scales[frame])
        (height, width), end = self._image_sizes[frame], self._image_ends[frame]
        image = maps.images[end - height * width * 3 : end].reshape(height, width, 3).copy()
        for file in maps.files:  # or the process would seem to hold all it ever read, and be ended by a batch system
            file.madvise(mmap.MADV_DONTNEED)
        return image, depth

    def size(self, split: str, frame: int) -> tuple[int, int]:
        """Return (height, width) of the depth that :meth:`read` gives."""
        if split != self._split:
            return self._layout.size(split, frame)
        return _size(self._opened().sizes[frame])

    def count(self, split: str) -> int:
        """Return the layout's number of frames."""
        return self._layout.count(split)

    def scene(self, split: str, frame: int) -> str:
        """Return the layout's name of the frame's scene."""
        return self._layout.scene(split, frame)

    def label(self, split: str, frame: int) -> str:
        """Return the layout's name of the frame."""
        return self._layout.label(split, frame)

    def where(self, split: str, frame: int) -> str:
        """Return the layout's place of the frame."""
        return self._layout.where(split, frame)

    def identity(self) -> str:
        """Return the layout's digest."""
        return self._layout.identity()

    def files(self, split: str, frame: int) -> tuple[Path, ...]:
        """Return the layout's files of the frame."""
        return self._layout.files(split, frame)

    def metres_per_level(self, split: str, frame: int) -> float | None:
        """Return what a level of the layout's depth stands for [m]."""
        return self._layout.metres_per_level(split, frame)

    def intrinsics(self, split: str, frame: int) -> Intrinsics | None:
        """Return the camera of the image that :meth:`read` gives."""
        camera = self._layout.intrinsics(split, frame)
        if split != self._split or camera is None:
            return camera
        return camera.resized(self._layout.size(split, frame), _size(self._image_sizes[frame]))

    def scene_type(self, split: str, frame: int) -> str:
        """Return the layout's kind of room."""
        return self._layout.scene_type(split, frame)

    def objects(self, split: str, frame: int) -> npt.NDArray[np.uint16] | None:
        """Return the layout's object classes, at their full size."""
        return self._layout.objects(split, frame)

    def _opened(self) -> _Maps:
        if self._maps is None:
            sizes = self._find_whole()
            if sizes is None:
                raise InputError(f"{self.path}: the cache is not whole; start again to make what is missing")
            files = _map(self.path / _FILES[0]), _map(self.path / _FILES[1])
            self._maps = _Maps(
                files,
                np.frombuffer(files[0], np.uint8),
                np.frombuffer(files[1], np.uint16),
                np.fromfile(self.path / _FILES[2], "<f8", offset=_KEY_BYTES),
                sizes,
                sizes.prod(axis=1).cumsum(),
            )
        return self._maps

    def _find_whole(self) -> IntArray | None:
        """Return the depths' sizes, shape ``(N, 2)``, if the cache is whole and has this key; else None."""
        try:
            index = json.loads((self.path / "index.json").read_text())
            sizes = np.broadcast_to(np.array(index["sizes"], np.int64), (self._count, 2))
            return sizes if index["key"] == self._key and self._is_sound(sizes) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _lengths(self, sizes: IntArray) -> list[int]:
        """Return the bytes that each file takes."""
        return [int(self._image_ends[-1]), int(sizes.prod(axis=1).sum()) * 2, _KEY_BYTES + self._count * 8]

    def _is_sound(self, sizes: IntArray) -> bool:
        """Tell whether the files have this key and their full length, whichever frames are made."""
        try:
            with (self.path / _FILES[2]).open("rb") as file:
                key = file.read(_KEY_BYTES)
            found = [(self.path / name).stat().st_size for name in _FILES]
            return key == self._key.encode() and found == self._lengths(sizes)
        except OSError:
            return False

    def _make(self, workers: int, advance: Callable[[int, int], object] | None) -> None:
        sizes = self._depth_sizes
        if sizes is None:
            sizes = np.array([self._layout.size(self._split, i) for i in range(self._count)], np.int64)
        (self.path / "index.json").unlink(missing_ok=True)
        if not self._is_sound(sizes):
            self._allocate(self._lengths(sizes))
        self._fill(sizes, workers, advance)
        kept = sizes if len(np.unique(sizes, axis=0)) > 1 else sizes[:1]
        write_json(self.path / "index.json", {"key": self._key, "sizes": kept.tolist()})

    def _allocate(self, lengths: list[int]) -> None:
        """Make the files anew at their full length, so that a full disk shows before any work is done."""
        paths = [self.path / name for name in _FILES]
        for path in paths:
            path.unlink(missing_ok=True)
        needed, free = sum(lengths), shutil.disk_usage(self.path).free
        try:
            if free < needed:
                raise OSError(errno.ENOSPC, "")
            for path, length in zip(paths, lengths, strict=True):
                with path.open("xb") as file:
                    if hasattr(os, "posix_fallocate"):  # macOS has none
                        os.posix_fallocate(file.fileno(), 0, length)
                    file.truncate(length)
        except OSError as error:
            for path in paths:
                path.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(
                f"{self.path}: the cache of {self._count} {self._split} frames needs {needed / 1e9:.3g} GB and "
                f"{free / 1e9:.3g} GB are free; {_WAYS}"
            ) from None
        write_bytes(paths[-1], self._key.encode() + bytes(8 * self._count))

    def _fill(self, sizes: IntArray, workers: int, advance: Callable[[int, int], object] | None) -> None:
        """Write every frame that is not made; through files, as a full disk would end a process that writes to maps."""
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context((self.path / name).open("r+b", buffering=0)) for name in _FILES]
            images, depths, scales = (file.fileno() for file in files)
            missing = np.flatnonzero(np.fromfile(self.path / _FILES[2], "<f8", offset=_KEY_BYTES) == 0).tolist()
            ends = sizes.prod(axis=1).cumsum()
            fresh: list[tuple[int, float]] = []
            synced = time.monotonic()

            def flag() -> None:
                os.fsync(images)
                os.fsync(depths)
                for frame, scale in fresh:
                    _write(scales, np.array(scale, "<f8"), _KEY_BYTES + 8 * frame)
                fresh.clear()

            try:
                for made, (frame, (image, levels, scale)) in enumerate(self._decode(missing, workers), start=1):
                    if levels.shape != tuple(sizes[frame]):
                        raise InputError(f"{self.where(self._split, frame)}: its size is not what its header states")
                    _write(images, image, int(self._image_ends[frame]) - image.nbytes)
                    _write(depths, levels, int(ends[frame] - levels.size) * levels.itemsize)
                    fresh.append((frame, scale))
                    if time.monotonic() - synced >= _SYNC_SECONDS:
                        flag()
                        synced = time.monotonic()
                    if advance:
                        advance(self._count - len(missing) + made, self._count)
            finally:
                flag()
            os.fsync(scales)

    def _decode(self, frames: Iterable[int], workers: int) -> Iterator[tuple[int, Made]]:
        """Yield frames with what is stored of them, in order."""
        if not workers:
            yield from ((frame, self._prepare(frame)) for frame in frames)
            return
        with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(self,)) as pool:
            ahead: deque[tuple[int, Future[Made]]] = deque()
            for frame in frames:
                ahead.append((frame, pool.submit(_prepare, frame)))
                if len(ahead) > 4 * workers:  # a bound on the memory of pairs that wait to be written
                    first, future = ahead.popleft()
                    yield first, future.result()
            yield from ((frame, future.result()) for frame, future in ahead)

    def _prepare(self, frame: int) -> Made:
        """Return a frame's image, its levels of depth and what a level stands for [m]."""
        image, depth = self._layout.read(self._split, frame)
        if self._depth_sizes is not None:
            depth = resize_nearest(depth, _size(self._depth_sizes[frame]))
        metres = self._layout.metres_per_level(self._split, frame)
        return resize_image(image, _size(self._image_sizes[frame])), *to_levels(depth, metres, self.depth_range)


def _common(sizes: Size | Sequence[Size]) -> Size | tuple[Size, ...]:
    """Return the one size of all frames, where they have one."""
    if isinstance(sizes[0], int):
        return sizes[0], cast("int", sizes[1])
    several = cast("Sequence[Size]", sizes)
    return several[0] if len(set(several)) == 1 else tuple(several)


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


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock between processes; one that waits longer than a second says so."""
    import fcntl  # not everywhere, and only building needs it

    message = f"{path.parent}: another process makes this cache; waiting for it"
    told = threading.Timer(1, print, [message], {"file": sys.stderr, "flush": True})
    with path.open("ab") as file:
        told.start()
        try:  # not flock: decoding processes would inherit it, and keep it when this process is killed
            fcntl.lockf(file, fcntl.LOCK_EX)
        finally:
            told.cancel()
        yield


def _write(descriptor: int, data: npt.NDArray[Any], offset: int) -> None:
    rest = np.ascontiguousarray(data).data.cast("B")
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


_maker: CachedLayout  # in a decoding process: whose frames it prepares


def _start_worker(layout: CachedLayout) -> None:
    import torch

    torch.set_num_threads(1)  # resizing; there is a process for each core
    global _maker
    _maker = layout
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()  # type: ignore[union-attr]  # there is one
    os._exit(1)  # or this process would wait for work for ever, its parent killed


def _prepare(frame: int) -> Made:
    return _maker._prepare(frame)
