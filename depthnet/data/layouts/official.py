"""Facts about NYU Depth V2: the official split of its labelled set, and its camera.

Source: ``splits.mat`` of Silberman, Hoiem, Kohli and Fergus, "Indoor Segmentation and Support Inference from RGBD
Images", ECCV 2012; it counts from 1, these numbers count from 0, as file names like ``rgb_00018.jpg`` do.
"""

from __future__ import annotations

from depthnet.core.camera import Intrinsics, from_focal
from depthnet.core.types import DepthRange

LABELLED_FRAMES = 1449
"""Frames of the labelled set: 795 to train on, 654 to test on."""

PUBLISHED_FRAMES = 654
"""The published Keras project evaluates frames 0 to 653, of which 386 are official training frames."""

NYU_INTRINSICS = (518.8579, 519.4696, 325.5824, 253.7362)
"""Focal lengths fx, fy and centre cx, cy of the RGB camera at 640x480 [pixels]."""

NYU_CAMERA = "NYU's"
"""Where the camera of NYU's images is known from, in words."""

NYU_DEPTH_RANGE = DepthRange(1e-3, 10.0)
"""Depths that count as valid, if the user states none [m]."""

_SIZE = (480, 640)
_ROUNDED = 0.05  # lists state NYU's focal length as 518.8579 or 518.9 [px]

_TEST_RUNS = """
    0-1 8 13-17 20 27-42 45-46 55-56 58-62 75-78 83-90 116-118 124-128 130-133 136 152-154 166-168 170-175 179-201
    206-211 219-221 249 263 270-272 278-284 295-301 309-311 314-316 324-334 350-351 354-363 383-389 394-396 410-413
    429-434 440-447 461-465 468-476 507-512 514-525 530-532 536-538 548-550 554-570 578-582 590-593 602-606 611-612
    616-620 632-637 643-644 649-650 655-657 662-663 667-672 675-680 685-689 692-693 696-698 705-712 716-717 723-727
    730-733 742-743 758-786 799-803 809-813 820-822 832-845 849-851 856-861 868-870 905-907 916-918 925-927 931-934
    944-946 958-961 964-966 969-976 990-994 1000-1003 1009-1011 1020-1022 1031-1033 1037-1038 1047-1048 1051-1052
    1056-1057 1074-1083 1087-1095 1097-1103 1105-1108 1116-1118 1122-1130 1134-1135 1143-1157 1161-1166 1169-1170
    1173-1175 1178-1183 1191-1195 1200-1211 1215-1219 1225-1229 1232-1234 1246-1249 1253-1264 1274-1279 1284-1294
    1296-1298 1301-1307 1313-1314 1328-1331 1334-1339 1346-1348 1352-1355 1363-1364 1367-1368 1383-1390 1393-1400
    1406-1413 1420-1423 1429-1432 1440-1448
"""


def _numbers(runs: str) -> frozenset[int]:
    ends = ([int(end) for end in run.split("-")] for run in runs.split())
    return frozenset(number for first, *last in ends for number in range(first, (last or [first])[0] + 1))


TEST_FRAMES = _numbers(_TEST_RUNS)
"""The 654 official test frames, counted from 0; the other 795 are the official training frames."""


def is_nyu_focal(focal: float | None) -> bool:
    """Tell whether a focal length that a list states [px], or does not, is that of NYU's camera."""
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
