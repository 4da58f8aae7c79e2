"""The pinhole camera of an image: focal lengths and principal point, from files, words or a photograph's EXIF.

Pixels are counted as OpenCV does: the center of the top left pixel is (0, 0). A size is (height, width).
"""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from depthnet.core.images import read_film_focal
from depthnet.core.types import InputError

INTRINSICS_FILES = ("K.txt", "intrinsics.json")
"""The names under which a camera may lie beside images, the first that is there counts."""

_FORMS = "it holds a 3x3 matrix, a line of fx fy cx cy, or JSON with fx, fy, cx, cy or K"
_FILM_DIAGONAL = math.hypot(36, 24)  # of a 35-mm frame [mm]; EXIF's equivalent focal length goes by the diagonal
_MIDDLE = (0.35, 0.65)  # no camera has its principal point outside this share of width or height; 2:3 is a turned 4:3
_FOCAL = (0.2, 5.0)  # nor a focal length that is no such multiple of the longer side
_STATED_FOCAL = (0.1, 50.0)  # what is stated by hand may be a fisheye's or a telescope's, and no millimeters
_ASPECT = 0.02  # relative; a size that differs in aspect by more is not the image's, scaled
_FOLDERS = 3  # an intrinsics file is looked for in a photograph's folder and two above


class Intrinsics(NamedTuple):
    """Focal lengths and principal point of a pinhole camera [px of one image].

    Example:
        >>> half = Intrinsics(500.0, 500.0, 319.5, 239.5).resized((480, 640), (240, 320))
        >>> half
        Intrinsics(fx=250.0, fy=250.0, cx=159.5, cy=119.5)
    """

    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def of(cls, *values: str | float) -> Intrinsics:
        """Make one of fx, fy, cx and cy, also as words; ValueError for what no camera has."""
        fx, fy, cx, cy = map(float, values)
        if not all(map(math.isfinite, (fx, fy, cx, cy))) or fx <= 0 or fy == 0:
            raise ValueError(f"fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g} cannot be")
        return cls(fx, fy, cx, cy)

    @property
    def focal(self) -> float:
        """The geometric mean of the two focal lengths [px]."""
        return math.sqrt(abs(self.fx * self.fy))

    def resized(self, old_size: tuple[int, int], new_size: tuple[int, int]) -> Intrinsics:
        """Return the camera after a resize of the image between two (height, width)."""
        if tuple(old_size) == tuple(new_size):
            return self
        down, across = new_size[0] / old_size[0], new_size[1] / old_size[1]
        return Intrinsics(
            self.fx * across, self.fy * down, (self.cx + 0.5) * across - 0.5, (self.cy + 0.5) * down - 0.5
        )


def from_focal(pixels: float, size: tuple[int, int]) -> Intrinsics:
    """Return the camera of a focal length [px], its principal point in the center of an image of ``size``.

    Raises:
        InputError: If it is not a focal length in pixels.

    Example:
        >>> from_focal(500.0, (480, 640))
        Intrinsics(fx=500.0, fy=500.0, cx=319.5, cy=239.5)
    """
    low, high = (limit * max(size) for limit in _STATED_FOCAL)
    if not low <= pixels <= high:
        raise InputError(
            f"focal={pixels}: it is in pixels of the image, {size[1]}x{size[0]}, so a number from {low:g} to {high:g}"
        )
    return _centered(float(pixels), size)


def from_fov(degrees_x: float, size: tuple[int, int]) -> Intrinsics:
    """Return the camera of a horizontal field of view [degrees], from the left edge to the right one.

    Raises:
        InputError: If it is none of a pinhole camera.

    Example:
        >>> round(from_fov(90.0, (480, 640)).fx, 6)
        320.0
    """
    if not 1 <= degrees_x <= 170:
        raise InputError(f"fov_x={degrees_x}: it is the horizontal field of view in degrees, a number from 1 to 170")
    return _centered(size[1] / 2 / math.tan(math.radians(degrees_x) / 2), size)


def stated_camera(size: tuple[int, int], focal: float | None = None, fov_x: float | None = None) -> Intrinsics | None:
    """Return the camera that a focal length [px] or, without one, a horizontal field of view [degrees] states.

    Raises:
        InputError: If what is stated cannot be.
    """
    if focal is not None:
        return from_focal(focal, size)
    return None if fov_x is None else from_fov(fov_x, size)


def from_35mm(millimeters: float, size: tuple[int, int]) -> Intrinsics:
    """Return the camera of a focal length stated for 35-mm film [mm], as EXIF's FocalLengthIn35mmFilm: by the diagonal.

    Example:
        >>> round(from_35mm(26.0, (3000, 4000)).fx, 1)
        3004.6
    """
    return _centered(millimeters / _FILM_DIAGONAL * math.hypot(*size), size)


def intrinsics_of_file(path: str | os.PathLike[str], size: tuple[int, int]) -> Intrinsics:
    """Read the intrinsics that a file states, for an image of ``size``: scaled where the file states its own size.

    Args:
        path: Text (a 3x3, 3x4 or 4x4 matrix, or a line of fx fy cx cy) or JSON.
        size: (height, width) of the image [px].

    Raises:
        InputError: If the file cannot be read or holds anything else, or its camera is of an image of another size or
            aspect; the message names it.
    """
    height, width = size
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        stated: dict[str, Any]
        rows = map(str.split, re.sub(r"[][,;]|#.*", " ", text).splitlines())
        stated = json.loads(text) if text.lstrip()[:1] == "{" else {"K": [row for row in rows if row]}
        found = _from_numbers(stated["K"] if "K" in stated else [stated[name] for name in Intrinsics._fields])
        sized = "width" in stated or "height" in stated
        own_height, own_width = (int(stated["height"]), int(stated["width"])) if sized else size
        if min(own_height, own_width) < 1:
            raise ValueError("width and height are pixels, at least 1")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; {_FORMS}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: no intrinsics of a camera ({reason}); {_FORMS}") from None
    if not sized:
        check_camera(found, size, str(path))
    if abs(width / height * own_height / own_width - 1) > _ASPECT:
        raise InputError(
            f"{path}: its camera is of an image of {own_width}x{own_height}, and this one is {width}x{height}, of "
            "another aspect; give each camera its own folder"
        )
    return found.resized((own_height, own_width), size)


def check_camera(camera: Intrinsics, size: tuple[int, int], where: str, cropped: bool = False) -> None:
    """Refuse a camera that cannot be that of an image of ``size``: its numbers are of another image, or normalized.

    Args:
        camera: As it is stated [px].
        size: (height, width) of the image [px].
        where: Begins the message.
        cropped: Whether the image may be a part of the camera's, so that its principal point lies anywhere.

    Raises:
        InputError: If it cannot.
    """
    height, width = size
    inside = cropped or all(
        _MIDDLE[0] * side <= center <= _MIDDLE[1] * side for center, side in ((camera.cx, width), (camera.cy, height))
    )
    low, high = (factor * max(size) for factor in (_STATED_FOCAL if cropped else _FOCAL))
    if not inside or not low <= camera.focal <= high:
        fx, fy, cx, cy = (f"{value:.6g}" for value in camera)
        raise InputError(
            f"{where}: fx {fx}, fy {fy}, cx {cx}, cy {cy} are of another image size than {width}x{height}; scale them, "
            "or state width and height in an intrinsics.json"
        )


def find_camera(
    path: Path,
    size: tuple[int, int],
    focal: float | None = None,
    fov_x: float | None = None,
    top: Path | None = None,
) -> tuple[Intrinsics | None, str]:
    """Return the camera of an image on disk, and where it is known from: its file's name, or in words.

    What is stated counts first, then an intrinsics file (:data:`INTRINSICS_FILES`) in the image's folder or above, the
    nearest one, then EXIF's 35-mm focal length. Unknown: None and an empty string.

    Args:
        path: A PNG or JPEG file.
        size: (height, width) of the image, turned upright by its EXIF orientation [px].
        focal: The focal length, if it is stated [px].
        fov_x: The horizontal field of view, if it is stated [degrees].
        top: The last folder that is looked in; None for the second above the image's.

    Raises:
        InputError: If what is stated cannot be, or an intrinsics file is wrong or of another image size, or the image
            cannot be read.
    """
    if camera := stated_camera(size, focal, fov_x):
        return camera, "the stated focal length" if focal is not None else "the stated field of view"
    folders = list(Path(os.path.abspath(path)).parents)  # noqa: PTH100  a link stays where it lies
    end = _FOLDERS if top is None else folders.index(Path(os.path.abspath(top))) + 1  # noqa: PTH100
    for file in (folder / name for folder in folders[:end] for name in INTRINSICS_FILES):
        if file.is_file():
            return intrinsics_of_file(file, size), file.name
    film = read_film_focal(path)
    return (from_35mm(film, size), f"EXIF 35-mm focal length {film:g} mm") if film else (None, "")


def _centered(focal: float, size: tuple[int, int]) -> Intrinsics:
    return Intrinsics(focal, focal, (size[1] - 1) / 2, (size[0] - 1) / 2)


def _from_numbers(numbers: Any) -> Intrinsics:
    """Return the intrinsics of a matrix, of all its numbers in a row, or of a row of fx, fy, cx and cy."""
    values = np.array(numbers, np.float64).ravel()
    if values.size == 4:
        return Intrinsics.of(*values)
    if values.size not in (9, 12, 16):
        raise ValueError(f"{values.size} numbers")
    (fx, _, cx), (zero, fy, cy), last = values.reshape(4 if values.size == 16 else 3, -1)[:3, :3].tolist()
    if (zero, *last) != (0, 0, 0, 1):
        raise ValueError("its matrix is not fx 0 cx, 0 fy cy, 0 0 1")
    return Intrinsics.of(fx, fy, cx, cy)
