"""From a layout's pairs to samples: read, resize, augment, mask."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from depthnet.core.images import resize_image, resize_nearest
from depthnet.core.types import Sample
from depthnet.data.layouts.layout import Layout, Pair
from depthnet.data.sampler import derive_seed

if TYPE_CHECKING:  # albumentations takes seconds
    from depthnet.data.transforms import Augment

_UNKNOWN = (math.nan,) * 4  # intrinsics

Change = Callable[[npt.NDArray[np.uint8], int], npt.NDArray[np.uint8]]
"""Makes another photograph of one, ``uint8``, ``(H, W, 3)``, and a seed."""


class DepthDataset(Dataset[Sample]):
    """The samples of one split.

    To train, image and depth are resized to ``image_size`` (depth by the nearest pixel) and augmented; depth outside
    the layout's range is 0, missing. To evaluate, only the image is resized: the ground truth keeps its
    file's size and is never touched.

    Args:
        layout: Where the pairs come from.
        split: "train", "val" or "test".
        image_size: (height, width) of the images handed out, or of each one.
        augment: The augmentation of training; None to evaluate.
        seed: The run's seed, for the augmentation.
        change: What is done to each photograph at its full size, its frame's number the seed.
        read: Reads a frame's pair in place of the layout, as a cache does, perhaps resized already.
    """

    def __init__(
        self,
        layout: Layout,
        split: str,
        image_size: tuple[int, int] | Sequence[tuple[int, int]],
        augment: Augment | None = None,
        seed: int = 0,
        change: Change | None = None,
        read: Callable[[int], Pair] | None = None,
    ) -> None:
        self.layout = layout
        self.split = split
        self._sizes = np.broadcast_to(np.array(image_size), (layout.count(split), 2))
        self._augment = augment
        self._seed = seed
        self._change = change
        self._read = read or functools.partial(layout.read, split)

    def __len__(self) -> int:
        """Return the number of frames."""
        return self.layout.count(self.split)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Return a sample.

        Args:
            key: A frame's number, or (epoch, frame) as the samplers give it.

        Raises:
            InputError: If the frame's files are wrong; it names them.
        """
        epoch, frame = key if isinstance(key, tuple) else (0, key)
        size: tuple[int, int] = tuple(self._sizes[frame].tolist())
        image, depth = self._read(frame)
        camera = self.layout.intrinsics(self.split, frame)
        if camera is not None:
            camera = camera.resized(self.layout.size(self.split, frame), size)
        if self._change is not None:
            image = self._change(image, frame)
        image = resize_image(image, size)
        if self._augment is not None:
            depth = resize_nearest(depth, size)
            valid = self.layout.depth_range.contains(depth)
            depth = np.where(valid, depth, np.float32(0))  # else a zoom would bring it into the range
            image, depth, camera = self._augment(image, depth, derive_seed(self._seed, epoch, frame), camera)
        mask = self.layout.depth_range.contains(depth)
        return Sample(
            image=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            depth=torch.from_numpy(np.ascontiguousarray(depth))[None],
            mask=torch.from_numpy(mask)[None],
            frame=frame,
            intrinsics=torch.tensor(_UNKNOWN if camera is None else camera, dtype=torch.float32),
        )


class MixedDataset(Dataset[Sample]):
    """A training set with some frames of another one beside it, others in each epoch until all were used.

    Args:
        main: All its frames are in every epoch.
        extra: Its frames take turns.
        share: How many of them an epoch has.
    """

    def __init__(self, main: DepthDataset, extra: DepthDataset, share: int) -> None:
        self._main = main
        self._extra = extra
        self._share = share

    def __len__(self) -> int:
        """Return the number of frames in an epoch."""
        return len(self._main) + self._share

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Return the sample of an (epoch, place) key; its ``frame`` counts the second set's after the first's."""
        epoch, place = key
        if place < len(self._main):
            return self._main[key]
        frame = (epoch * self._share + place - len(self._main)) % len(self._extra)
        return self._extra[epoch, frame]._replace(frame=len(self._main) + frame)
