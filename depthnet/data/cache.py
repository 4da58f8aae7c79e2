"""Pairs decoded and resized once and kept on disk: what ``data.cache=disk`` chooses.

A cache is a folder, named by a key that holds all sizes. In its ``pairs.bin`` the frames lie one behind the other, each
as its depth, ``float32`` [m], and its image, ``uint8``; ``made.txt`` states how many of them are safe on the disk.
Nothing is read before all are. Caches are not deleted here; any may be while no run uses it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import PIL
import torch
from torch.utils.data import DataLoader

from depthnet.core.atomic_io import locked, write_text
from depthnet.core.images import resize_image, resize_nearest
from depthnet.core.types import InputError
from depthnet.data.layouts.layout import Layout, Pair

_FORMAT = 3  # part of every key: raise it when the files' form, or what decoding or resizing gives, changes
_WAYS = "set data.cache=none, or data.cache_dir=PATH on another disk"
_SYNC_SECONDS = 1.0  # a kill costs at most the frames of this time

IntArray = npt.NDArray[np.int64]
Size = tuple[int, int]


class PairCache:
    """The pairs of one split, resized: bit-equal to the layout's own, resized.

    Args:
        layout: Where the pairs come from.
        split: The split that is cached.
        folder: The folder of all caches; this one's is ``path`` in it, named by the key.
        image_size: (height, width) of the images [px], or of each one.
        depth_size: (height, width) that depth is resized to, or each one: the images', as for training, or its own.
    """

    def __init__(
        self,
        layout: Layout,
        split: str,
        folder: Path,
        image_size: Size | Sequence[Size],
        depth_size: Size | Sequence[Size],
    ) -> None:
        self._layout, self._split, self._count = layout, split, layout.count(split)
        self._sizes: IntArray = np.stack(  # of each frame's depth and image, (2, N, 2)
            [np.broadcast_to(np.array(size), (self._count, 2)) for size in (depth_size, image_size)]
        )
        lengths = [4, 3] @ self._sizes.prod(axis=2)
        self._starts = np.append(0, lengths.cumsum())  # of the frames in the file, and its end [bytes]
        facts = (_FORMAT, PIL.__version__, layout.identity(), split, self._sizes.tolist())
        self.path = folder / f"{layout.name}-{split}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"
        self._pairs, self._progress = self.path / "pairs.bin", self.path / "made.txt"
        self._whole = False

    def build(self, workers: int = 0, advance: Callable[[int, int], object] | None = None) -> None:
        """Complete the cache; do nothing where it is complete.

        Wait for another process that makes the same cache. After a kill or an error, the finished frames stay.

        Args:
            workers: Processes that decode; 0 decodes here.
            advance: Called after each frame with the number of frames made and of all.

        Raises:
            InputError: If a frame cannot be read (the layout's own error), or the disk is full or cannot be written.
        """
        if self._count_made() == self._count:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with locked(self.path, wait=True):
                self._make(workers, advance)
        except OSError as error:
            raise InputError(f"{self.path}: the cache cannot be written: {error.strerror or error}; {_WAYS}") from error

    def read(self, frame: int) -> Pair:
        """Return one pair as fresh arrays: the image at its size, depth [m] at its own.

        Raises:
            InputError: If the cache is incomplete.
        """
        if not self._whole and self._count_made() < self._count:
            raise InputError(f"{self.path}: the cache is incomplete; start again to complete it")
        self._whole = True
        start, end = self._starts[frame : frame + 2]
        depth_size, image_size = self._sizes[:, frame]
        pixels = np.fromfile(self._pairs, np.uint8, end - start, offset=start)
        depth, image = np.split(pixels, [4 * depth_size.prod()])
        return image.reshape(*image_size, 3), depth.view(np.float32).reshape(depth_size)

    def _count_made(self) -> int:
        """Return how many frames are made, the first of the split."""
        if not (self._progress.exists() and self._pairs.exists()):
            return 0
        there = np.searchsorted(self._starts, self._pairs.stat().st_size, side="right") - 1
        return min(int(self._progress.read_text()), int(there))

    def _make(self, workers: int, advance: Callable[[int, int], object] | None) -> None:
        """Write every frame that is not made, and how many are after their pixels are on the disk."""
        made = self._count_made()
        needed, free = self._starts[-1] - self._starts[made], shutil.disk_usage(self.path).free
        if free < needed:  # before any work is done
            raise InputError(
                f"{self.path}: the cache of {self._count} {self._split} frames needs {needed / 1e9:.3g} GB and "
                f"{free / 1e9:.3g} GB are free; {_WAYS}"
            )
        loader: DataLoader[Pair] = DataLoader(
            range(made, self._count),  # type: ignore[arg-type]  # all that a loader needs of a dataset
            batch_size=None,
            num_workers=workers,
            collate_fn=self._decode,  # in the worker
            generator=torch.Generator(),  # or it would draw from the run's
        )
        with self._pairs.open("ab") as pairs:
            pairs.truncate(self._starts[made])
            synced = time.monotonic()
            try:
                for image, depth in loader:
                    pairs.write(depth.tobytes() + image.tobytes())
                    made += 1
                    if time.monotonic() - synced >= _SYNC_SECONDS:
                        self._save_progress(pairs, made)
                        synced = time.monotonic()
                    if advance:
                        advance(made, self._count)
            finally:
                self._save_progress(pairs, made)

    def _save_progress(self, pairs: IO[bytes], made: int) -> None:
        pairs.flush()
        os.fsync(pairs.fileno())
        write_text(self._progress, str(made))

    def _decode(self, frame: Any) -> Pair:
        image, depth = self._layout.read(self._split, frame)
        depth_size, image_size = map(tuple, self._sizes[:, frame].tolist())
        return resize_image(image, image_size), resize_nearest(depth, depth_size)
