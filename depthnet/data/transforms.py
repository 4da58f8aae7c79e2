"""Augmentation of image and depth together.

albumentations draws and applies the transforms; what it draws is a pure function of the seed that comes with each
sample, so workers, restarts and processes change nothing.
"""

from __future__ import annotations

import math
import os
import random
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # without it the import asks the network for a newer version

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from depthnet.core.camera import Intrinsics
from depthnet.core.types import DepthRange, InputError, RangeLike

Image = npt.NDArray[np.uint8]
Depth = npt.NDArray[np.float32]
Probability = Annotated[float, Field(ge=0, le=1)]

cv2.setNumThreads(0)  # a worker process is one thread; OpenCV's pool would fight the others for the cores


class Augment:
    """A chain of albumentations transforms, applied to image and depth with the same draws.

    Depth goes as a mask, so geometric transforms take the nearest pixel and never mix two depths; where they leave the
    picture, depth is 0 (missing). A transform that changes the distance to things must change depth too, as
    :class:`DepthZoom` does; albumentations' own zooms and crops with a resize do not.

    Args:
        transforms: albumentations transforms in order; none for no augmentation.

    Raises:
        InputError: If one is no albumentations transform.

    Example:
        >>> import albumentations
        >>> flip = Augment([albumentations.HorizontalFlip(p=1.0)])
        >>> image, depth, _ = flip(np.zeros((1, 2, 3), np.uint8), np.array([[1.0, 2.0]], np.float32), seed=0)
        >>> depth.tolist()
        [[2.0, 1.0]]
    """

    def __init__(self, transforms: Sequence[Any] = ()) -> None:
        for transform in transforms:
            if not isinstance(transform, A.BasicTransform | A.BaseCompose):
                raise InputError(f"augment.transforms: {transform!r} is no albumentations transform")
        points = A.KeypointParams("xyz", remove_invisible=False)
        with warnings.catch_warnings(action="ignore"):  # a chain may move no points
            chain = A.Compose(list(transforms), keypoint_params=points, additional_targets={"depth": "mask"})
        self._chain = chain if transforms else None

    def __call__(
        self, image: Image, depth: Depth, seed: int, camera: Intrinsics | None = None
    ) -> tuple[Image, Depth, Intrinsics | None]:
        """Augment one pair and its camera.

        Args:
            image: RGB, ``uint8``, shape ``(H, W, 3)``.
            depth: Meters, ``float32``, shape ``(H, W)``, 0 = missing.
            seed: All that is random here follows from it; 0 to 2**32 - 1.
            camera: Of the image [px]; None where it is not known.

        Returns:
            The pair in the shapes the transforms give, and the camera of the augmented image: None where it is not
            known, or the transforms leave no pinhole camera, as a distortion does. albumentations' resizes move points
            up to half a pixel less than the pixels, so the principal point is that much off after one.
        """
        if self._chain is None:
            return image, depth, camera
        # set_random_seed would start every transform from the same seed: those of one p would always come together
        self._chain.set_random_state(np.random.default_rng(seed), random.Random(seed))
        if camera is None:
            out = self._chain(image=image, depth=depth)
            return out["image"], out["depth"], None
        try:
            out = self._chain(image=image, depth=depth, keypoints=_PROBES)
        except NotImplementedError:  # a transform of a user's own that moves no points
            return self(image, depth, seed)
        return out["image"], out["depth"], _moved(camera, np.asarray(out["keypoints"], np.float64))


_REACH = 1024.0  # between probes [px]; float32, which points become, holds flips and crops of it exactly
_PROBES = np.array([(0, 0, 1), (_REACH, 0, 1), (0, _REACH, 1), (_REACH, _REACH, 1)], np.float32)  # column, row, depth
_BENT = 0.5  # the last probe is farther than this from where an affine transform takes it: a distortion [px]
_DIGITS = 6  # of a factor; float32 has no more


def _moved(camera: Intrinsics, points: npt.NDArray[np.float64]) -> Intrinsics | None:
    """Return a camera after what the probes show: an affine transform of the pixels, and a factor of depth.

    A turned or mirrored image is one by a turned or mirrored camera, so only the lengths of the axes count.
    """
    if len(points) != len(_PROBES):
        return None
    origin, right, below, last = points[:, :2]
    if not np.isfinite(points).all() or np.abs(right + below - origin - last).max() > _BENT:
        return None
    linear = np.stack([right - origin, below - origin], axis=1) / _REACH
    center = linear @ (camera.cx, camera.cy) + origin
    fx, fy = (math.hypot(across * camera.fx, down * camera.fy) * points[0, 2] for across, down in linear)
    if not fx * fy:
        return None
    scale = round(math.sqrt(fx * fy) / camera.focal, _DIGITS)  # exactly 1 for a flip, a crop, a turn and DepthZoom
    aspect = round(math.sqrt(fx / fy * abs(camera.fy / camera.fx)), _DIGITS)
    return Intrinsics(camera.fx * scale * aspect, camera.fy * scale / aspect, float(center[0]), float(center[1]))


class DepthZoom(A.DualTransform):  # type: ignore[misc]  # albumentations has no types
    """Enlarge a window of the picture to its full size and divide depth by the factor.

    A point at depth d seen with focal length z f falls on the pixel on which one at depth d / z falls with f. So a
    picture enlarged z times is one by the camera the network knows only if everything in it is z times as near.

    Args:
        scale: The range of the factor z, at least 1: (lowest, highest), drawn uniformly.
        p: How often it is applied.

    Raises:
        InputError: If not 1 <= lowest <= highest.

    Source:
        Eigen et al., NeurIPS 2014, "Depth Map Prediction from a Single Image using a Multi-Scale Deep Network", the
        augmentation by scale.

    Example:
        >>> zoom = Augment([DepthZoom(scale=(2.0, 2.0), p=1.0)])
        >>> zoom(np.zeros((2, 2, 3), np.uint8), np.full((2, 2), 6, np.float32), seed=0)[1].tolist()
        [[3.0, 3.0], [3.0, 3.0]]
    """

    def __init__(self, scale: tuple[float, float] = (1.0, 1.5), p: Probability = 0.5) -> None:
        super().__init__(p=p)
        low, high = scale
        if not 1 <= low <= high < math.inf:
            raise InputError(f"DepthZoom: scale={scale}; it is [lowest,highest] with 1 <= lowest <= highest")
        self.scale = (low, high)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the zoom and the window's upper left corner [px]."""
        zoom = self.py_random.uniform(*self.scale)
        top, left = (self.py_random.random() * side * (1 - 1 / zoom) for side in params["shape"][:2])
        return {"zoom": zoom, "top": top, "left": left}

    def apply(self, img: npt.NDArray[Any], zoom: float, top: float, left: float, **params: Any) -> npt.NDArray[Any]:
        """Enlarge the image bilinearly."""
        pixel = 1 / zoom
        center = (pixel - 1) / 2  # OpenCV counts from the center of the first pixel
        window = np.array([[pixel, 0, left + center], [0, pixel, top + center]])
        size = img.shape[1], img.shape[0]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(img, window, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def apply_to_mask(self, mask: Depth, zoom: float, top: float, left: float, **params: Any) -> Depth:
        """Take the depth under each output pixel's center, divided by the zoom."""
        places = zip((top, left), mask.shape, strict=True)
        rows, columns = ((start + (np.arange(side) + 0.5) / zoom).astype(np.intp) for start, side in places)
        return mask.take(rows, axis=0).take(columns, axis=1) / np.float32(zoom)

    def apply_to_keypoints(
        self, keypoints: npt.NDArray[np.float32], zoom: float, top: float, left: float, **params: Any
    ) -> npt.NDArray[np.float32]:
        """Move points as the pixels, and divide their depth by the zoom: columns x, y, z and more."""
        moved = keypoints.copy()
        for column, start in enumerate((left, top)):
            moved[:, column] = (keypoints[:, column] + 0.5 - start) * zoom - 0.5
        moved[:, 2] /= zoom
        return moved


class CutDepth(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations has no types
    """Replace a rectangle of the image by its depth, as gray; depth stays.

    With a, b, c, d uniform in [0, 1], the rectangle begins at (a W, b H) and is share c (1 - a) W wide and
    share d (1 - b) H high, at least a pixel. White is the depth range's max, black is 0; where depth is missing or not
    below the max, the image stays. For use with :class:`Augment`, as its last transform, so that nothing recolors the
    depth.

    Args:
        depth_range: Depths that count as valid [m].
        share: The largest share of the way to the picture's right and lower edge that is replaced, in (0, 1].
        p: How often it is applied.

    Raises:
        InputError: If it is no depth range.

    Source:
        Ishii and Yamashita, 2021, "CutDepth: Edge-aware Data Augmentation in Depth Estimation", arXiv 2107.07684.

    Example:
        >>> image, depth = np.zeros((1, 1, 3), np.uint8), np.full((1, 1), 2, np.float32)
        >>> Augment([CutDepth((0.001, 10.0), p=1.0)])(image, depth, seed=0)[0].tolist()
        [[[51, 51, 51]]]
    """

    def __init__(
        self, depth_range: RangeLike | None, share: Annotated[float, Field(gt=0, le=1)] = 0.75, p: Probability = 0.25
    ) -> None:
        super().__init__(p=p)
        self.depth_range = DepthRange.of(depth_range)
        self.share = share

    @property
    def targets_as_params(self) -> list[str]:
        """The names of what the draw needs to see."""
        return ["depth"]

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the rectangle, and cut it from the depth."""
        rectangle = []
        for side in data["depth"].shape:
            start = int(self.py_random.random() * side)
            size = int(self.py_random.random() * (side - start) * self.share)
            rectangle.append(slice(start, start + max(1, size)))
        return {"rectangle": tuple(rectangle), "depth": data["depth"][tuple(rectangle)]}

    def apply(self, img: Image, rectangle: tuple[slice, slice], depth: Depth, **params: Any) -> Image:
        """Paste the depth."""
        most = self.depth_range.max
        valid = (depth > 0) & (depth < most)
        gray = np.where(valid, depth, 0) * np.float32(255 / most)
        image = img.copy()
        image[rectangle] = np.where(valid[..., None], np.rint(gray).astype(np.uint8)[..., None], image[rectangle])
        return image
