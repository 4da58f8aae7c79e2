"""Facts about NYU Depth V2: the official split of its labelled set, and its camera.

Source: ``splits.mat`` of Silberman, Hoiem, Kohli and Fergus, "Indoor Segmentation and Support Inference from RGBD
Images", ECCV 2012; it counts from 1, these numbers count from 0, as file names like ``rgb_00018.jpg`` do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from depthnet.core.camera import Intrinsics, from_focal
from depthnet.core.types import DepthRange

LABELLED_FRAMES = 1449
"""Frames of the labelled set: 795 to train on, 654 to test on."""

KERAS_FRAMES = 654
"""The published Keras project evaluates frames 0 to 653, of which 386 are official training frames."""

NYU_INTRINSICS = (518.8579, 519.4696, 325.5824, 253.7362)
"""Focal lengths fx, fy and center cx, cy of the RGB camera at 640x480 [pixels]."""

NYU_CAMERA = "NYU's"
"""Where the camera of NYU's images is known from, in words."""

NYU_DEPTH_RANGE = DepthRange(1e-3, 10.0)
"""Depths that count as valid, if the user states none [m]."""

_SIZE = (480, 640)
_ROUNDED = 0.05  # lists state NYU's focal length as 518.8579 or 518.9 [px]


def _read_test_frames() -> Iterator[int]:
    for run in Path(__file__).with_name("official_test_frames.txt").read_text(encoding="utf-8").split():
        first, _, last = run.partition("-")
        yield from range(int(first), int(last or first) + 1)


TEST_FRAMES = frozenset(_read_test_frames())
"""The 654 official test frames, counted from 0; the other 795 are the official training frames."""


def is_nyu_focal(focal: float | None) -> bool:
    """Return whether a list's focal length [px], None if it states none, is that of NYU's camera."""
    return focal is None or abs(focal - NYU_INTRINSICS[0]) <= _ROUNDED


def nyu_camera(size: tuple[int, int], focal: float | None = None) -> Intrinsics | None:
    """Return the camera of an image of NYU.

    NYU's own where the image has NYU's aspect, scaled; else one of the focal length that its list states, its principal
    point in the center; None where no list states one. A focal length that is not NYU's is another camera's.

    Raises:
        InputError: If the focal length cannot be one.

    Example:
        >>> nyu_camera((240, 320)).fx, nyu_camera((480, 360)), nyu_camera((480, 640), 600.0).cx
        (259.42895, None, 319.5)
    """
    if size[0] * _SIZE[1] == size[1] * _SIZE[0] and is_nyu_focal(focal):
        return Intrinsics(*NYU_INTRINSICS).resized(_SIZE, size)
    return None if focal is None else from_focal(focal, size)
