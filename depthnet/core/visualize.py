"""Depth as pictures: one metric color scale with a bar, and panels of image, ground truth, prediction and error.

NumPy and Pillow only. A picture here is RGB, ``uint8``, shape ``(H, W, 3)``. Gray is kept for what is missing: neither
color map holds a gray.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from depthnet.core.images import resize_image, resize_nearest

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]

MISSING = (128, 128, 128)
"""The color of pixels without a value."""

ERROR_HIGH = 0.5
"""The relative error of the last color, if none is stated; larger errors take the same."""

_PAPER = (255, 255, 255)
_INK = (38, 38, 38)
_GAP = 8  # between pictures [pixels]


def _color_map(anchors: str) -> UInt8Array:
    """256 colors through equally spaced ``rrggbb`` anchors."""
    points = np.array([list(bytes.fromhex(anchor)) for anchor in anchors.split()], dtype=np.float64)
    places = np.linspace(0, len(points) - 1, 256)
    channels = [np.interp(places, np.arange(len(points)), points[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


DEPTH_COLORS = _color_map("fcfdbf feca8d fd9668 f1605d cd4071 9e2f7f 721f81 440f76 180f3d 000004")
"""Magma, reversed: what is near is bright. Perceptually uniform. Source: Smith and van der Walt, matplotlib (CC0)."""

ERROR_COLORS = _color_map("440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725")
"""Viridis: what is wrong glows. Perceptually uniform. Source: Smith and van der Walt, matplotlib (CC0)."""


def colorize(
    depth: FloatArray, low: float, high: float, mask: BoolArray | None = None, colors: UInt8Array = DEPTH_COLORS
) -> UInt8Array:
    """Color a map of values by a linear scale.

    Args:
        depth: Depth [m], or another quantity, shape ``(H, W)``.
        low: The value of the first color.
        high: The value of the last color; values beyond either take the end's color.
        mask: Pixels that hold a value, bool, shape ``(H, W)``; None: those that are finite and above 0.
        colors: 256 colors, ``uint8``, shape ``(256, 3)``.

    Returns:
        A picture, shape ``(H, W, 3)``; :data:`MISSING` where there is no value.

    Raises:
        ValueError: If not low < high, both finite.

    Example:
        >>> colorize(np.array([[1.0, 5.0, 0.0]]), 1.0, 5.0).tolist()
        [[[252, 253, 191], [0, 0, 4], [128, 128, 128]]]
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"a color scale from {low} to {high}; needs low < high")
    depth = np.asarray(depth, dtype=np.float32)
    held = np.isfinite(depth) & (depth > 0 if mask is None else mask)
    level = (np.where(held, depth, low) - low) * (255.0 / (high - low))
    picture: UInt8Array = colors[np.rint(level.clip(0, 255)).astype(np.uint8)]
    picture[~held] = MISSING
    return picture


def depth_limits(depth: FloatArray, mask: BoolArray | None = None) -> tuple[float, float]:
    """Choose round ends for a color scale, about the 1st and 99th percentile.

    Args:
        depth: Depth [m], shape ``(H, W)``.
        mask: Pixels that count, bool; None: those that are finite and above 0.

    Returns:
        (low, high) in meters, low < high; (0, 1) where no pixel counts.

    Example:
        >>> depth_limits(np.linspace(1.02, 4.97, 100).reshape(10, 10))
        (1.0, 5.0)
    """
    step = max(1, math.isqrt(depth.size // 1_000_000))  # a million pixels are enough for a percentile
    depth = depth[::step, ::step]
    held = np.isfinite(depth) & (depth > 0 if mask is None else mask[::step, ::step])
    if not held.any():
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(depth[held], (1, 99)))
    if high - low < 0.1 * high:  # of a flat wall, the colors should not show the noise
        low, high = 0.95 * low, 1.05 * high
    grain = _round_step((high - low) / 10)
    first, last = math.floor(low / grain + 1e-6), math.ceil(high / grain - 1e-6)
    return round(first * grain, 9), round(max(last, first + 1) * grain, 9)


def error_map(pred: FloatArray, depth: FloatArray, mask: BoolArray, high: float = ERROR_HIGH) -> UInt8Array:
    r"""Color the relative error :math:`|p - t| / t` from 0 to ``high``.

    Args:
        pred: Predicted depth [m], shape ``(H, W)``; where it is not finite the error is ``high``.
        depth: True depth [m], same shape.
        mask: Valid pixels, bool, same shape; the others become :data:`MISSING`.
        high: The error of the last color.

    Returns:
        A picture, shape ``(H, W, 3)``.
    """
    depth = np.where(mask, depth, 1.0)
    error = np.abs(pred - depth) / depth
    return colorize(np.nan_to_num(error, nan=high, posinf=high), 0.0, high, mask, ERROR_COLORS)


def with_scale_bar(
    picture: UInt8Array,
    low: float,
    high: float,
    unit: str = "m",
    colors: UInt8Array = DEPTH_COLORS,
    points: int | None = None,
) -> UInt8Array:
    """Put the scale of :func:`colorize` to the right of a picture: a bar with ticks, their values and the unit.

    Args:
        picture: Shape ``(H, W, 3)``; it stays as it is, in the upper left corner.
        low: The value of the first color.
        high: The value of the last color.
        unit: Written above the bar.
        colors: As given to :func:`colorize`.
        points: Size of the letters [pixels]; None: what suits the picture's size.

    Returns:
        A wider picture, at least high enough for a readable bar.
    """
    height, width = picture.shape[:2]
    points = points or max(12, round(max(height, width / 4) / 24))
    font = ImageFont.load_default(points)
    marks, texts = _ticks(low, high)
    gap, bar, tick = round(0.7 * points), round(1.1 * points), round(0.35 * points)
    wide = max(math.ceil(font.getlength(text)) for text in (*texts, unit))
    tall = max(height, points * 8)
    canvas = Image.new("RGB", (width + gap + bar + 2 * tick + wide + gap, tall), _PAPER)
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)

    left, right = width + gap, width + gap + bar
    top, bottom = round(1.7 * points), tall - 1 - round(0.6 * points)
    draw.text((left, round(0.2 * points)), unit, fill=_INK, font=font)
    ramp = colors[np.rint(np.linspace(255, 0, bottom - top + 1)).astype(np.uint8)]
    canvas.paste(Image.fromarray(np.repeat(ramp[:, None], bar, axis=1)), (left, top))
    stroke = max(1, points // 14)
    draw.rectangle((left, top, right - 1, bottom), outline=_INK, width=stroke)
    for mark, text in zip(marks, texts, strict=True):
        y = bottom - (mark - low) / (high - low) * (bottom - top)
        draw.line((right, y, right + tick, y), fill=_INK, width=stroke)
        draw.text((right + 2 * tick, y), text, fill=_INK, font=font, anchor="lm")
    return np.array(canvas)


def panel(image: UInt8Array, depth: FloatArray, mask: BoolArray, pred: FloatArray, label: str = "") -> UInt8Array:
    """Put image, ground truth, prediction and relative error side by side.

    Ground truth and prediction share one color scale, whose bar stands beside them; the error has its own.

    Args:
        image: The photograph, shape ``(H, W, 3)``, any size.
        depth: True depth [m], shape ``(h, w)``.
        mask: Valid pixels of the ground truth, bool, same shape; the others are drawn as missing.
        pred: Predicted depth [m], any size; the nearest pixel is taken for each of the ground truth's.
        label: Written above, such as the frame's label.

    Returns:
        A picture.
    """
    height, width = depth.shape
    scale = max(min(320 / width, 240 / height), min(1.0, 480 / width, 360 / height))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    tiles, low, high = frame_tiles(image, depth, mask, pred, size)
    titled = {
        "image": tiles["image"],
        f"ground truth{'' if mask.all() else ' (gray: missing)'}": tiles["ground truth"],
        "prediction": with_scale_bar(tiles["prediction"], low, high),
        "error: |pred - depth| / depth": with_scale_bar(tiles["error"], 0.0, ERROR_HIGH, "", ERROR_COLORS),
    }
    return _titled(_grid([_titled(tile, title) for title, tile in titled.items()], 4), label, left=_GAP)


def frame_tiles(
    image: UInt8Array, depth: FloatArray, mask: BoolArray, pred: FloatArray, size: tuple[int, int]
) -> tuple[dict[str, UInt8Array], float, float]:
    """Draw a frame's image, ground truth, prediction and error, each at one (height, width).

    Args:
        image, depth, mask, pred: As :func:`panel`.
        size: The (height, width) of each picture [pixels].

    Returns:
        The pictures by name, and the ends of the scale that ground truth and prediction share [m].
    """
    pred = resize_nearest(np.asarray(pred, np.float32), (depth.shape[0], depth.shape[1]))
    low, high = depth_limits(depth, mask) if mask.any() else depth_limits(pred)
    depth, mask, pred = resize_nearest(depth, size), resize_nearest(mask, size), resize_nearest(pred, size)
    tiles = {
        "image": resize_image(image, size),
        "ground truth": colorize(depth, low, high, mask),
        "prediction": colorize(pred, low, high),
        "error": error_map(pred, depth, mask),
    }
    return tiles, low, high


def contact_sheet(pairs: Sequence[tuple[UInt8Array, FloatArray, str]]) -> UInt8Array:
    """Put many pairs of image and depth on one sheet; all depths share one color scale.

    Args:
        pairs: Image ``(H, W, 3)``, depth [m] ``(H, W)``, 0 where missing, and a label, for each; sizes may differ.

    Returns:
        A picture; missing depth is :data:`MISSING`.
    """
    low, high = depth_limits(np.concatenate([depth[::4, ::4].ravel() for _, depth, _ in pairs])[:, None])
    cells = []
    for image, depth, label in pairs:
        size = (round(160 * depth.shape[0] / depth.shape[1]), 160)
        both = np.hstack([resize_image(image, size), colorize(resize_nearest(depth, size), low, high)])
        cells.append(_titled(both, label[-40:], points=12))
    return with_scale_bar(_grid(cells, min(4, len(cells))), low, high, points=14)


def _grid(pictures: Sequence[UInt8Array], columns: int) -> UInt8Array:
    """Pictures row by row, each row as high and each column as wide as its largest."""
    heights = [max(map(len, pictures[start : start + columns])) for start in range(0, len(pictures), columns)]
    widths = [max(picture.shape[1] for picture in pictures[column::columns]) for column in range(columns)]
    tops, lefts = (np.cumsum([_GAP, *(side + _GAP for side in sides)]) for sides in (heights, widths))
    canvas = np.full((tops[-1], lefts[-1], 3), 255, np.uint8)
    for place, picture in enumerate(pictures):
        top, left = tops[place // columns], lefts[place % columns]
        canvas[top : top + len(picture), left : left + picture.shape[1]] = picture
    return canvas


def _round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= least * (1 - 1e-9))


def _ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Round values inside the scale, at most seven, and how to write them."""
    step = _round_step((high - low) / 6)
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    decimals = max(0, -math.floor(math.log10(step)))
    marks = [index * step for index in range(first, last + 1)]
    return marks, [f"{mark:.{decimals}f}" for mark in marks]


def _titled(picture: UInt8Array, title: str, left: int = 0, points: int = 17) -> UInt8Array:
    """The picture with a line of text above it, widened where the text is longer."""
    if not title:
        return picture
    font, text = ImageFont.load_default(points), " ".join(title.split())[-160:]
    height, width = picture.shape[:2]
    canvas = Image.new("RGB", (max(width, left + math.ceil(font.getlength(text)) + 4), height + points + 11), _PAPER)
    canvas.paste(Image.fromarray(picture), (0, points + 11))
    ImageDraw.Draw(canvas).text((left, 5), text, fill=_INK, font=font)
    return np.array(canvas)
