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

from depthnet.core.images import read_lens
from depthnet.core.types import InputError

INTRINSICS_FILES = ("K.txt", "intrinsics.txt", "intrinsics.json", "camera.json")
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
        >>> half.cropped(top=10, left=20).flipped(width=300).cx
        159.5
    """

    fx: float
    fy: float
    cx: float
    cy: float

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

    def cropped(self, top: float, left: float) -> Intrinsics:
        """Return the camera after rows above ``top`` and columns left of ``left`` [px] are cut off."""
        return Intrinsics(self.fx, self.fy, self.cx - left, self.cy - top)

    def flipped(self, width: int) -> Intrinsics:
        """Return the camera after an image of ``width`` [px] is mirrored left to right."""
        return Intrinsics(self.fx, self.fy, width - 1 - self.cx, self.cy)


def from_focal(pixels: float, size: tuple[int, int]) -> Intrinsics:
    """Return the camera of a focal length [px], its principal point in the center of an image of ``size``.

    Raises:
        InputError: If it is not a focal length in pixels.

    Example:
        >>> from_focal(500.0, (480, 640))
        Intrinsics(fx=500.0, fy=500.0, cx=319.5, cy=239.5)
    """
    low, high = (limit * max(size) for limit in _STATED_FOCAL)
    if not _is_number(pixels) or not low <= pixels <= high:
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
    if not _is_number(degrees_x) or not 1 <= degrees_x <= 170:
        raise InputError(f"fov_x={degrees_x}: it is the horizontal field of view in degrees, a number from 1 to 170")
    return _centered(size[1] / 2 / math.tan(math.radians(degrees_x) / 2), size)


def from_35mm(millimeters: float, size: tuple[int, int]) -> Intrinsics:
    """Return the camera of a focal length stated for 35-mm film [mm], as EXIF's FocalLengthIn35mmFilm: by the diagonal.

    Raises:
        InputError: If it is not a focal length.

    Example:
        >>> round(from_35mm(26.0, (3000, 4000)).fx, 1)
        3004.6
    """
    if not _is_number(millimeters) or millimeters <= 0:
        raise InputError(f"a 35-mm focal length of {millimeters}: it is in millimeters, above 0")
    return _centered(millimeters / _FILM_DIAGONAL * math.hypot(*size), size)


def read_intrinsics(path: str | os.PathLike[str]) -> tuple[Intrinsics, tuple[int, int] | None]:
    """Read a file of intrinsics: text (a 3x3, 3x4 or 4x4 matrix, or a line of fx fy cx cy) or JSON.

    Returns:
        The intrinsics, and the (height, width) of the image they are of, where the file states it.

    Raises:
        InputError: If the file cannot be read or holds anything else; the message names it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InputError(f"{path}: cannot be read: {reason}; {_FORMS}") from None
    try:
        values, size = _parse_json(text) if text.lstrip()[:1] == "{" else (_parse_text(text), None)
        found = _camera_of(values)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: no intrinsics of a camera ({reason}); {_FORMS}") from None
    return found, size


def intrinsics_of_file(path: str | os.PathLike[str], size: tuple[int, int]) -> Intrinsics:
    """Return the intrinsics that a file states, for an image of ``size``: scaled where the file states its own size.

    Raises:
        InputError: As :func:`read_intrinsics`, or if they are of an image of another size or aspect.
    """
    found, stated = read_intrinsics(path)
    height, width = size
    if stated is not None:
        if abs(width / height * stated[0] / stated[1] - 1) > _ASPECT:
            raise InputError(
                f"{path}: its camera is of an image of {stated[1]}x{stated[0]}, and this one is {width}x{height}, of "
                "another aspect; give each camera its own folder"
            )
        return found.resized(stated, size)
    check_camera(found, size, str(path))
    return found


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


def find_intrinsics_file(folder: Path) -> Path | None:
    """Return the intrinsics file that lies in a folder; None where there is none."""
    return next((folder / name for name in INTRINSICS_FILES if _holds_camera(folder / name)), None)


def _holds_camera(path: Path) -> bool:
    """Whether a file is there and states intrinsics; other programs have a camera.json of their own."""
    if path.suffix != ".json" or not path.is_file():
        return path.is_file()
    try:
        stated = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return True  # whoever reads it reports it
    return isinstance(stated, dict) and not stated.keys().isdisjoint((*Intrinsics._fields, "K", "camera_matrix"))


def photo_intrinsics(path: str | os.PathLike[str], size: tuple[int, int]) -> tuple[Intrinsics | None, str]:
    """Return the camera of a photograph on disk, and where it is known from, such as "K.txt".

    An intrinsics file (:data:`INTRINSICS_FILES`) in the photograph's folder or up to two above counts first, then
    EXIF's focal length. Unknown: None and an empty string.

    Args:
        path: A PNG or JPEG file.
        size: (height, width) of the photograph, turned upright by its EXIF orientation [px].

    Raises:
        InputError: If an intrinsics file is wrong or of another image size, or the photograph cannot be read.
    """
    for folder in list(Path(os.path.abspath(path)).parents)[:_FOLDERS]:  # noqa: PTH100  a link stays where it lies
        file = find_intrinsics_file(folder)
        if file is not None:
            return intrinsics_of_file(file, size), file.name
    return exif_intrinsics(path, size)


def exif_intrinsics(path: str | os.PathLike[str], size: tuple[int, int]) -> tuple[Intrinsics | None, str]:
    """Return the camera by a photograph's EXIF alone; arguments, values and errors as :func:`photo_intrinsics`."""
    lens = read_lens(path)
    try:
        if lens.film > 0:
            return from_35mm(lens.film, size), f"EXIF 35-mm focal length {lens.film:g} mm"
        if lens.fx > 0 and lens.fy > 0:
            found = from_focal(lens.fx, size)._replace(fy=from_focal(lens.fy, size).fy)
            return found, f"EXIF focal length {lens.millimeters:g} mm and sensor resolution"
    except InputError:  # a camera that writes nonsense there; nobody stated it
        pass
    return None, ""


def _centered(focal: float, size: tuple[int, int]) -> Intrinsics:
    return Intrinsics(focal, focal, (size[1] - 1) / 2, (size[0] - 1) / 2)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _parse_text(text: str) -> list[list[float]]:
    lines = (re.split(r"[\s,;\[\]]+", line.split("#")[0].strip(" \t,;[]")) for line in text.splitlines())
    rows = [[float(word) for word in line if word] for line in lines]
    return [row for row in rows if row]


def _parse_json(text: str) -> tuple[Any, tuple[int, int] | None]:
    stated = json.loads(text)
    size = None
    if "width" in stated or "height" in stated:
        width, height = stated["width"], stated["height"]
        if not all(_is_number(side) and side >= 1 for side in (width, height)):
            raise ValueError("width and height are pixels, at least 1")
        size = int(height), int(width)
    matrix = next((stated[name] for name in ("K", "camera_matrix") if name in stated), None)
    if matrix is None:
        return [[float(stated[name]) for name in Intrinsics._fields]], size
    if isinstance(matrix, dict):  # as OpenCV writes it
        matrix = matrix["data"]
    return ([[float(value) for value in row] if isinstance(row, list) else float(row) for row in matrix]), size


def _camera_of(values: list[Any]) -> Intrinsics:
    """Return the intrinsics of rows of numbers, or of one row that holds them all."""
    flat = [value for row in values for value in (row if isinstance(row, list) else [row])]
    rows = [row for row in values if isinstance(row, list)]
    if len(flat) == 4 and len(rows) == 1:
        fx, fy, cx, cy = flat
    else:
        wide = {9: 3, 12: 4, 16: 4}.get(len(flat), 0)
        if not wide or (len(rows) > 1 and {len(row) for row in rows} != {wide}):
            raise ValueError(f"{len(flat)} numbers")
        fx, cx, fy, cy = flat[0], flat[2], flat[wide + 1], flat[wide + 2]
        if (flat[wide], *flat[2 * wide : 2 * wide + 3]) != (0, 0, 0, 1):
            raise ValueError("its matrix is not fx 0 cx, 0 fy cy, 0 0 1")
    if not all(map(math.isfinite, (fx, fy, cx, cy))) or fx <= 0 or fy == 0:
        raise ValueError(f"fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g} cannot be")
    return Intrinsics(fx, fy, cx, cy)
