"""The one decoder and the one resize of images and depth files, shared by training, evaluation and prediction.

Pillow, PNG and JPEG only; depth also as a NumPy array of floats. The size is read from the header before any pixel is
decoded, a torn file is an error and never a half-gray array, and a photograph's EXIF orientation is honored.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from depthnet.core.atomic_io import write_bytes
from depthnet.core.types import InputError, reason_of

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
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Require a regular file that is not empty, and turn every error of reading it into one InputError that names it.

    Opening a pipe would block, and a device has no end.
    """
    try:
        status = os.stat(path)  # noqa: PTH116
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: not a regular file; give a PNG, JPEG or .npy file")
        if not status.st_size:
            raise InputError(f"{path}: the file is empty; replace it or take it out", "empty")
        yield
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a PNG or JPEG image; replace it, take it out, or {CONVERT}") from None
    except Exception as error:  # Pillow and NumPy raise OSError, SyntaxError, TypeError, struct.error and more
        missing = isinstance(error, FileNotFoundError)
        raise InputError(f"{path}: cannot be read ({reason_of(error)})", "missing" if missing else "torn") from None


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open an image without decoding it."""
    with _reading(path), Image.open(path, formats=("PNG", "JPEG")) as picture:
        _check_pixels(path, picture.width, picture.height)
        yield picture


def _check_pixels(path: str | os.PathLike[str], width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"{path}: {width}x{height} pixels; at most {MAX_PIXELS} are read")


def _exif(picture: Image.Image) -> Image.Exif:
    """Return the EXIF of an opened file; of a PNG, if it stands before the pixels: Pillow would decode them."""
    return picture.getexif() if picture.format == "JPEG" or "exif" in picture.info else Image.Exif()


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (height, width) in pixels as :func:`read_image` or :func:`read_depth` would give them, from the header.

    Raises:
        InputError: If the file is missing or no PNG, JPEG or, by its name, NPY.
    """
    if is_array(path):
        height, width = _load_array(path).shape
        return height, width
    with _opened(path) as picture:
        if _exif(picture).get(_EXIF_ORIENTATION) in _TURNED:
            return picture.width, picture.height
        return picture.height, picture.width


def read_film_focal(path: str | os.PathLike[str]) -> float:
    """Return the 35-mm focal length that a photograph's EXIF states [mm]; 0 for none, or if it was cropped since.

    Raises:
        InputError: As :func:`image_size`, for an image.
    """
    with _opened(path) as picture:
        try:
            stated = _exif(picture).get_ifd(_EXIF_IFD)
            focal, *written = (float(stated.get(tag) or 0) for tag in (_EXIF_FILM, *_EXIF_PIXELS))
        except Exception:  # damaged, in one of Pillow's many ways; the pixels can be whole
            return 0.0
        (short, long), (shorter, longer) = sorted(picture.size), sorted(written)
    cropped = shorter > 0 and abs(short * longer / (shorter * long) - 1) > 0.02
    return focal if 0 < focal < float("inf") and not cropped else 0.0


def read_image(path: str | os.PathLike[str]) -> UInt8Array:
    """Read a photograph, turned upright by its EXIF orientation.

    Args:
        path: A PNG or JPEG file. Gray, palette, 16-bit and transparent files become 8-bit RGB (transparent: on white).

    Returns:
        RGB, ``uint8``, shape ``(H, W, 3)``, C-contiguous and writable.

    Raises:
        InputError: If the file is missing, torn, too large or no PNG or JPEG; the message names it.
    """
    with _opened(path) as picture:
        turned = _exif(picture).get(_EXIF_ORIENTATION, 1) != 1
        picture.load()
        upright: Image.Image = ImageOps.exif_transpose(picture) if turned else picture
        if upright.mode.startswith("I"):  # 16-bit gray; Pillow's own conversion clips instead of scaling
            gray = np.asarray(upright).astype(np.uint32) >> 8
            return np.repeat(gray.astype(np.uint8)[:, :, None], 3, axis=2)
        if upright.has_transparency_data:
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
        return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"))


def is_array(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a NumPy array, by its name."""
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


def read_depth(path: str | os.PathLike[str], meters_per_level: float, bits: int) -> Float32Array:
    """Read a depth file.

    Args:
        path: A PNG or JPEG with one channel, or with three equal ones; or a ``.npy`` file of floats.
        meters_per_level: What one gray level stands for [m]: 0.001 for 16-bit millimeters, 10/255 for 8-bit files that
            span 10 m. For floats, what 1.0 stands for.
        bits: What the data set promises: 8 or 16 bits, or 32 for a ``.npy`` file.

    Returns:
        Depth in meters, ``float32``, shape ``(H, W)``, 0 where the file holds 0 (missing).

    Raises:
        InputError: If the file is missing or torn, has another bit depth, or three channels that differ.
    """
    if is_array(path):
        with np.errstate(over="ignore", invalid="ignore"):
            array = _load_array(path).astype(np.float32) * np.float32(meters_per_level)
        if bits != 32:
            raise InputError(f"{path}: an array of floats where {bits}-bit depth was stated", "bit_depth")
        return array
    with _opened(path) as picture:
        picture.load()
        levels = np.asarray(picture)
    found = 8 if levels.dtype == np.uint8 else 16
    gray = picture.mode not in ("1", "P") and (levels.ndim == 2 or (levels[..., :1] == levels[..., 1:3]).all())
    if not gray:
        raise InputError(f"{path}: a picture in color or two levels; {bits}-bit gray depth is expected", "colored")
    levels = levels[..., 0] if levels.ndim == 3 else levels
    if found != bits:
        raise InputError(f"{path}: {found}-bit depth where {bits}-bit is expected; write it again", "bit_depth")
    depth = levels.astype(np.float32)
    depth *= np.float32(meters_per_level)
    return depth


def _load_array(path: str | os.PathLike[str]) -> npt.NDArray[np.floating]:
    """Map a ``.npy`` file of one (H, W) array of floats; only its header is read."""
    with _reading(path):
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        raise InputError(f"{path}: not one .npy array of floats, as is expected", "bit_depth")
    depth = values[0] if values.ndim == 3 and len(values) == 1 else values
    if depth.ndim != 2 or not depth.size:
        raise InputError(f"{path}: its shape is {values.shape}; (H, W) or (1, H, W) is expected")
    _check_pixels(path, depth.shape[1], depth.shape[0])
    return depth


def is_stretched(size: tuple[int, int], new_size: tuple[int, int]) -> bool:
    """Return whether a resize between two (height, width) changes the aspect by more than rounded sides do.

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
    """Resize depth by taking the nearest pixel; averages across a hole or an edge are depths that were never measured.

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
    """Write an ``uint8`` RGB ``(H, W, 3)`` or gray ``(H, W)`` array as PNG, whole. Raises as the durable writer."""
    _write_png(path, Image.fromarray(image))


def write_depth_png(path: str | os.PathLike[str], depth: Float32Array) -> None:
    """Write depth [m], shape ``(H, W)``, as 16-bit PNG in millimeters (0: missing or not finite), whole.

    Raises:
        InputError: As the durable writer.
    """
    millimeters = np.nan_to_num(depth.astype(np.float64) * 1000.0, nan=0.0, posinf=0.0, neginf=0.0)
    _write_png(path, Image.fromarray(np.clip(np.rint(millimeters), 0, 65535).astype(np.uint16)))


def _write_png(path: str | os.PathLike[str], picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=4)
    write_bytes(path, buffer.getvalue())
