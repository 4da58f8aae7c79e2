"""Augmentation of image and depth together, and the way of a pair to the tensors of a sample.

albumentations draws and applies the transforms; what it draws is a pure function of the seed that comes with each
sample, so workers, restarts and processes change nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # without it the import asks the network for a newer version

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt

from depthnet.types import InputError

__all__ = ["Augment"]

cv2.setNumThreads(0)  # a worker process is one thread; OpenCV's pool would fight the others for the cores


class Augment:
    """A chain of albumentations transforms, applied to image and depth with the same draws.

    Depth goes as a mask, so geometric transforms take the nearest pixel and never mix two depths; where they leave the
    picture, depth is 0 (missing). A transform that changes the distance to things (zoom) must change depth itself and
    does not belong here.

    Args:
        transforms: albumentations transforms in order; none for no augmentation.

    Raises:
        InputError: If one is no albumentations transform.

    Example:
        >>> import albumentations
        >>> flip = Augment([albumentations.HorizontalFlip(p=1.0)])
        >>> image, depth = flip(np.zeros((1, 2, 3), np.uint8), np.array([[1.0, 2.0]], np.float32), seed=0)
        >>> depth.tolist()
        [[2.0, 1.0]]
    """

    def __init__(self, transforms: Sequence[Any] = ()) -> None:
        for transform in transforms:
            if not isinstance(transform, A.BasicTransform | A.BaseCompose):
                raise InputError(f"augment.transforms: {transform!r} is no albumentations transform")
        self._chain = A.Compose(list(transforms), additional_targets={"depth": "mask"}) if transforms else None

    def __call__(
        self, image: npt.NDArray[np.uint8], depth: npt.NDArray[np.float32], seed: int
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """Augment one pair.

        Args:
            image: RGB, ``uint8``, shape ``(H, W, 3)``.
            depth: Metres, ``float32``, shape ``(H, W)``, 0 = missing.
            seed: All that is random here follows from it; 0 to 2**32 - 1.

        Returns:
            The pair, in the shapes the transforms give.
        """
        if self._chain is None:
            return image, depth
        self._chain.set_random_seed(seed)
        out = self._chain(image=image, depth=depth)
        return out["image"], out["depth"]
