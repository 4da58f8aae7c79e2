"""The one decoder and the one resize of images and depth files, shared by training, evaluation and prediction.

Pillow, PNG and JPEG only; depth also as a NumPy array of floats. The size is read from the header before any pixel is
decoded, a torn file is an error and never a half-grey array, and a photograph's EXIF orientation is honoured.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from depthnet.core.atomic_io import write_bytes
from depthnet.core.types import InputError

MAX_PIXELS = 200_000_000
"""More pixels than this are refused from the header alone; the largest phones take 200 megapixels."""

CONVERT = "convert it: photographs to PNG or JPEG, depth to 16-bit PNG or .npy"
"""What to do with files of other kinds."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own bound is 89 million, below what a phone takes

np.empty(31 << 20, np.uint8)  # once such a block was freed, glibc keeps freed pictures for the next: 1.7 times as fast

_STRETCHED = 1.15  # in aspect; less comes from sides that are rounded
_EXIF_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # the orientations in which height and width change places
_EXIF_IFD = 0x8769
_EXIF_FILM = 0xA405  # focal length of 35-mm film that sees the same [mm]
_EXIF_PIXELS = (0xA002, 0xA003)  # width and height of the image that the camera wrote

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]
Number = TypeVar("Number", bound=np.generic)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open ``path`` lazily; every way in which a file can be wrong becomes one InputError that names it."""
    try:
        _require_file(path)
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            _check_pixels(path, picture.width, picture.height)
            yield picture
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a PNG or JPEG image; replace it, take it out, or {CONVERT}") from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, TypeError, struct.error and more
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())[:120]
        missing = isinstance(error, FileNotFoundError)
        raise InputError(f"{path}: cannot be read: {reason.rstrip('.')}", "missing" if missing else "torn") from None


def _require_file(path: str | os.PathLike[str]) -> None:
    """Raise InputError for what is no file with something in it: to open a pipe would block, a device has no end."""
    status = os.stat(path)  # noqa: PTH116
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: not a regular file; give a PNG, JPEG or .npy file")
    if not status.st_size:
        raise InputError(f"{path}: the file is empty; replace it or take it out", "empty")


def _check_pixels(path: str | os.PathLike[str], width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"{path}: {width}x{height} pixels; at most {MAX_PIXELS} are read")


def _exif(picture: Image.Image, path: str | os.PathLike[str]) -> Image.Exif:
    """Return the EXIF of an opened file; Pillow itself would decode a PNG without any to look behind its pixels."""
    if picture.format != "PNG" or "exif" in picture.info:
        return picture.getexif()
    with Path(path).open("rb") as file:
        place = 8
        while len(head := (file.seek(place), file.read(8))[1]) == 8:
            if head[4:] == b"eXIf":
                return picture.getexif()
            place += 12 + int.from_bytes(head[:4], "big")
    return Image.Exif()


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (height, width) in pixels as :func:`read_image` or :func:`read_depth` would give them, from the header.

    Raises:
        InputError: If the file is missing or no PNG, JPEG or, by its name, NPY.
    """
    if is_array(path):
        height, width = _load_array(path).shape
        return height, width
    with _opened(path) as picture:
        if _exif(picture, path).get(_EXIF_ORIENTATION) in _TURNED:
            return picture.width, picture.height
        return picture.height, picture.width


def read_film_focal(path: str | os.PathLike[str]) -> float:
    """Return the 35-mm focal length that a photograph's EXIF states [mm]; 0 for none, or if it was cropped since.

    Raises:
        InputError: As :func:`image_size`, for an image.
    """
    with _opened(path) as picture:
        exif = _exif(picture, path)
        try:
            stated = exif.get_ifd(_EXIF_IFD)
        except Exception:  # damaged, in one of Pillow's many ways; the pixels can be whole
            stated = {}
        sides = sorted(picture.size)
    written = sorted(_exif_number(stated.get(tag)) for tag in _EXIF_PIXELS)
    if written[0] > 0 and abs(sides[0] / written[0] / (sides[1] / written[1]) - 1) > 0.02:
        return 0.0
    return _exif_number(stated.get(_EXIF_FILM))


def _exif_number(value: object) -> float:
    """Return a number that EXIF holds; 0 for none, and for one that cannot be."""
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number is caught
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if 0 < number < float("inf") else 0.0


def read_image(path: str | os.PathLike[str]) -> UInt8Array:
    """Read a photograph, turned upright by its EXIF orientation.

    Args:
        path: A PNG or JPEG file. Grey, palette, 16-bit and transparent files become 8-bit RGB (transparent: on white).

    Returns:
        RGB, ``uint8``, shape ``(H, W, 3)``, C-contiguous and writable.

    Raises:
        InputError: If the file is missing, torn, too large or no PNG or JPEG; the message names it.
    """
    with _opened(path) as picture:
        picture.load()
        turned = picture.getexif().get(_EXIF_ORIENTATION, 1) != 1
        upright: Image.Image = ImageOps.exif_transpose(picture) if turned else picture
        if upright.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips instead of scaling
            grey = np.asarray(upright).astype(np.uint32) >> 8
            return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
        if upright.has_transparency_data:
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
        return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"))


def is_array(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is a NumPy array, by its name."""
    return os.fspath(path).lower().endswith(".npy")


def depth_bits(path: str | os.PathLike[str]) -> int:
    """Return the bits of a depth file's levels from its header: 8 or 16; 32 for a NumPy array of floats.

    Raises:
        InputError: As :func:`image_size`.
    """
    if is_array(path):
        return 32
    with _opened(path) as picture:
        return 16 if picture.mode.startswith("I") else 8


def read_depth(path: str | os.PathLike[str], metres_per_level: float, bits: int) -> Float32Array:
    """Read a depth file.

    Args:
        path: A PNG or JPEG with one channel, or with three equal ones; or a ``.npy`` file of floats.
        metres_per_level: What one grey level stands for [m]: 0.001 for 16-bit millimetres, 10/255 for 8-bit files that
            span 10 m. For floats, what 1.0 stands for.
        bits: What the data set promises: 8 or 16 bits, or 32 for a ``.npy`` file.

    Returns:
        Depth in metres, ``float32``, shape ``(H, W)``, 0 where the file holds 0 (missing).

    Raises:
        InputError: If the file is missing or torn, has another bit depth, or three channels that differ.
    """
    if is_array(path):
        with np.errstate(over="ignore", invalid="ignore"):
            array = _load_array(path).astype(np.float32) * np.float32(metres_per_level)
        if bits != 32:
            raise InputError(f"{path}: an array of floats where {bits}-bit depth was stated", "bit_depth")
        return array
    with _opened(path) as picture:
        picture.load()
        levels = np.asarray(picture)
    found = 8 if levels.dtype == np.uint8 else 16
    if levels.dtype == np.bool_ or picture.mode == "P":
        raise InputError(f"{path}: a {picture.mode} image is no depth file; {bits}-bit grey is expected", "coloured")
    if levels.ndim == 3:
        if not (levels[..., :1] == levels[..., 1:3]).all():
            raise InputError(
                f"{path}: its channels differ, so it is a coloured picture; {bits}-bit grey is expected", "coloured"
            )
        levels = levels[..., 0]
    if found != bits:
        raise InputError(f"{path}: {found}-bit depth where {bits}-bit is expected; write it anew", "bit_depth")
    depth = levels.astype(np.float32)
    depth *= np.float32(metres_per_level)
    return depth


def _load_array(path: str | os.PathLike[str]) -> npt.NDArray[np.floating]:
    """Map a ``.npy`` file of one (H, W) array of floats: its header is read, and no number before it is asked for."""
    try:
        _require_file(path)
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except InputError:
        raise
    except Exception as error:  # NumPy fails in a dozen ways on what is no array: zip, pickle and tokenizer errors too
        reason = " ".join(str(error).split())[:120]
        finding = "missing" if isinstance(error, FileNotFoundError) else "torn"
        raise InputError(f"{path}: cannot be read as a .npy array of numbers ({reason})", finding) from None
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        raise InputError(
            f"{path}: holds {getattr(values, 'dtype', 'several arrays')}; floats are expected", "bit_depth"
        )
    depth = values[0] if values.ndim == 3 and len(values) == 1 else values
    if depth.ndim != 2 or not depth.size:
        raise InputError(f"{path}: its shape is {values.shape}; (H, W) or (1, H, W) is expected")
    _check_pixels(path, depth.shape[1], depth.shape[0])
    return depth


def is_stretched(size: tuple[int, int], new_size: tuple[int, int]) -> bool:
    """Tell whether a resize between two (height, width) changes the aspect by more than rounded sides do.

    Example:
        >>> is_stretched((480, 640), (240, 320)), is_stretched((360, 640), (240, 320))
        (False, True)
    """
    aspect = size[0] / size[1] * new_size[1] / new_size[0]
    return not 1 / _STRETCHED < aspect < _STRETCHED


def resize_image(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Resize bilinearly with antialiasing (each output pixel averages all the input that it covers).

    Args:
        image: ``uint8``, shape ``(H, W, 3)``.
        size: (height, width) wanted.

    Returns:
        ``uint8``, shape ``(*size, 3)``; the input itself where it has that size already.

    Example:
        >>> resize_image(np.full((4, 6, 3), 7, np.uint8), (2, 3)).shape
        (2, 3, 3)
    """
    if image.shape[:2] == tuple(size):
        return image
    import torch  # four times as fast as Pillow and equal to it but for a level here and there

    batch = torch.from_numpy(np.require(image, requirements=("C", "W")))[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(batch, size, mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1)[0].numpy())  # no copy: it comes channels last, as it went


def resize_nearest(depth: npt.NDArray[Number], size: tuple[int, int]) -> npt.NDArray[Number]:
    """Resize depth by taking the nearest pixel; averages across a hole or an edge are depths that nobody measured.

    Args:
        depth: Any dtype, shape ``(H, W)``.
        size: (height, width) wanted.

    Returns:
        The same dtype, shape ``size``; each value is one of the input's. The input itself where it has that size.

    Example:
        >>> resize_nearest(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), (1, 2)).tolist()
        [[3.0, 4.0]]
    """
    if depth.shape == tuple(size):
        return depth
    (height, width), (tall, wide) = size, depth.shape
    if tall % height == 0 and wide % width == 0:  # the same pixels by a stride, in a quarter of the time
        down, across = tall // height, wide // width
        return depth[down // 2 :: down, across // 2 :: across].copy()
    rows, columns = (((np.arange(n) + 0.5) * (m / n)).astype(np.intp) for n, m in zip(size, depth.shape, strict=True))
    resized: npt.NDArray[Number] = depth.take(rows, axis=0).take(columns, axis=1)
    return resized


def write_image_png(path: str | os.PathLike[str], image: UInt8Array) -> None:
    """Write an ``uint8`` RGB ``(H, W, 3)`` or grey ``(H, W)`` array as PNG, whole. Raises as the durable writer."""
    _write_png(path, Image.fromarray(image))


def write_depth_png(path: str | os.PathLike[str], depth: Float32Array) -> None:
    """Write depth [m], shape ``(H, W)``, as 16-bit PNG in millimetres (0: missing or not finite), whole.

    Raises:
        InputError: As the durable writer.
    """
    millimetres = np.nan_to_num(depth.astype(np.float64) * 1000.0, nan=0.0, posinf=0.0, neginf=0.0)
    _write_png(path, Image.fromarray(np.clip(np.rint(millimetres), 0, 65535).astype(np.uint16)))


def _write_png(path: str | os.PathLike[str], picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=4)
    write_bytes(path, buffer.getvalue())
