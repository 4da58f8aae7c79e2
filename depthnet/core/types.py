"""The conventions of shape, unit and mask, stated once.

Images are ``uint8``, RGB. Depth is ``float32`` in meters along the optical axis, 0 where it is missing. A mask is true
where depth is valid. A tensor of a batch has the shape ``(B, 3, H, W)`` (image) or ``(B, 1, H, W)`` (depth and mask).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor


BEST = Path("checkpoints", "best.ckpt")
"""A run's best checkpoint, below its directory."""

LAST = Path("checkpoints", "last.ckpt")
"""The checkpoint that a run is resumed from, below its directory."""

ImageSize = Annotated[Sequence[int], "[height,width] in pixels, such as [240,320]"]
"""An image's (height, width) [px], with the words that a refused value is answered by."""


HIGHER_IS_BETTER = dict.fromkeys(("delta1", "delta2", "delta3"), True) | dict.fromkeys(
    ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog"), False
)
"""Whether more of a metric is better, by its name; in the order of every table."""


class InputError(ValueError):
    """Something the user gave is wrong. The message is one line: what, where, and what to do.

    The scripts print it to stderr and exit with code 2; it never shows a traceback.

    Args:
        message: The line.
        finding: For a fault of a data file, its name among ``depthnet.data.layouts.layout.FINDINGS``.
    """

    def __init__(self, message: str, finding: str = "unreadable") -> None:
        super().__init__(message)
        self.finding = finding


def reason_of(error: BaseException) -> str:
    """Return an error's message in one line of at most 160 characters; the error's kind if it has none.

    Example:
        >>> reason_of(ValueError("no such\\n  layer")), reason_of(KeyError())
        ('no such layer', 'KeyError')
    """
    return " ".join(str(error).split())[:160] or type(error).__name__


class Sample(NamedTuple):
    """One pair or one batch of them; a NamedTuple, so it collates to itself.

    Attributes:
        image: RGB, ``uint8``, shape ``(3, H, W)`` or ``(B, 3, H, W)``.
        depth: Meters, ``float32``, 0 where missing, shape ``(1, H, W)`` or ``(B, 1, H, W)``. In evaluation it keeps the
            file's size, which need not be the image's.
        mask: True where depth is valid, ``bool``, the shape of ``depth``.
        frame: The pair's place in its split, an integer or ``int64`` of shape ``(B,)``.
        intrinsics: fx, fy, cx, cy [px of ``image`` as it is here], ``float32``, shape ``(4,)`` or ``(B, 4)``; NaN where
            the camera is not known. None unless it was asked for.
    """

    image: Tensor
    depth: Tensor
    mask: Tensor
    frame: Tensor | int
    intrinsics: Tensor | None = None


@dataclass(frozen=True)
class DepthRange:
    """The depths that count as valid, in meters; both ends excluded where a mask is made from it.

    Raises:
        InputError: If not 0 < min < max, or an end is not finite.

    Example:
        >>> DepthRange(1e-3, 10.0).max
        10.0
    """

    min: float
    max: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.min) and math.isfinite(self.max) and 0 < self.min < self.max):
            raise InputError(f"depth_range: min={self.min}, max={self.max}; needs 0 < min < max, in meters")

    def contains(self, depth: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
        """Return where depth [m] is valid, both ends excluded."""
        return (depth > self.min) & (depth < self.max)

    @classmethod
    def of(cls, value: DepthRange | Mapping[str, float] | Sequence[float] | None) -> DepthRange:
        """Return ``value`` itself, or the range that a mapping with ``min`` and ``max``, or a pair, states.

        Raises:
            InputError: If it states no range, or values that are no numbers.

        Example:
            >>> DepthRange.of({"min": 0.5, "max": 5})
            DepthRange(min=0.5, max=5.0)
        """
        if isinstance(value, DepthRange):
            return value
        if value is None:
            raise InputError("state which depths the sensor measures: data.depth_range='{min: METERS, max: METERS}'")
        try:
            low, high = (value["min"], value["max"]) if isinstance(value, Mapping) else value
            low, high = float(low), float(high)
        except (KeyError, TypeError, ValueError):
            raise InputError(f"depth_range: {value!r}; needs {{min: METERS, max: METERS}}") from None
        if len(value) != 2:
            raise InputError(f"depth_range: {value!r}; takes min and max, nothing else")
        return cls(low, high)


RangeLike = Annotated[
    DepthRange | Mapping[str, float] | Sequence[float], "{min: METERS, max: METERS}, such as {min: 0.001, max: 10}"
]
"""What :meth:`DepthRange.of` takes [m]."""


@dataclass(frozen=True)
class Crop:
    """A rectangle of pixels, rows ``top:bottom`` and columns ``left:right`` as in a slice.

    Raises:
        InputError: If the rectangle is empty or starts before 0.

    Example:
        >>> Crop(45, 471, 41, 601).height
        426
    """

    top: int
    bottom: int
    left: int
    right: int

    def __post_init__(self) -> None:
        if not (0 <= self.top < self.bottom and 0 <= self.left < self.right):
            raise InputError(f"crop: rows {self.top}:{self.bottom}, columns {self.left}:{self.right} hold no pixel")

    def __str__(self) -> str:
        return f"rows {self.top}:{self.bottom}, columns {self.left}:{self.right}"

    def pixels(self, size: tuple[int, int]) -> Crop:
        """Return the rectangle in an image of this (height, width): itself."""
        return self

    @property
    def height(self) -> int:
        """Rows inside."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns inside."""
        return self.right - self.left


@dataclass(frozen=True)
class RelativeCrop:
    """A rectangle as shares of an image's height and width, for images of any size.

    Raises:
        InputError: If the rectangle is empty or leaves the image.

    Example:
        >>> RelativeCrop(0.40810811, 0.99189189, 0.03594771, 0.96405229).pixels((375, 1242))  # of Garg et al.
        Crop(top=153, bottom=371, left=44, right=1197)
    """

    top: float
    bottom: float
    left: float
    right: float

    def __post_init__(self) -> None:
        if not (0 <= self.top < self.bottom <= 1 and 0 <= self.left < self.right <= 1):
            raise InputError(f"crop: {self}; needs shares from 0 to 1, top above bottom, left before right")
        for name in ("top", "bottom", "left", "right"):
            object.__setattr__(self, name, float(getattr(self, name)))  # so that a digest differs from that of pixels

    def __str__(self) -> str:
        return (
            f"rows {self.top:g} to {self.bottom:g} of the height, columns {self.left:g} to {self.right:g} of the width"
        )

    def pixels(self, size: tuple[int, int]) -> Crop:
        """Return the rectangle in an image of this (height, width), each side rounded down.

        Raises:
            InputError: If it holds no pixel of so small an image.
        """
        height, width = size
        return Crop(int(self.top * height), int(self.bottom * height), int(self.left * width), int(self.right * width))


def read_size(name: str, size: Sequence[Any]) -> tuple[int, int]:
    """Check a (height, width) [px] that the user gave.

    Raises:
        InputError: If it is not two whole numbers of at least 1; the message begins with ``name``.

    Example:
        >>> read_size("data.image_size", [240, 320])
        (240, 320)
    """
    if len(size) == 2 and all(isinstance(side, int) and side >= 1 for side in size):
        return size[0], size[1]
    raise InputError(f"{name}={size}: it is [height,width] in pixels, such as [240,320]")
