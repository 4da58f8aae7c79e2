"""What the page's tables and charts are drawn from: cells, curves and pictures as plain values.

``charts.html.j2`` draws them.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from depthnet.core.visualize import ERROR_COLORS


class Cell(NamedTuple):
    """A number in a table.

    Attributes:
        text: As it is shown.
        key: What it sorts by, as JavaScript reads it.
        below: What stands below it in small type.
        bar: What is drawn instead of the text: its length and, if it has an interval, its ends, from 0 to 100.
    """

    text: str
    key: str
    below: str = ""
    bar: tuple[float, ...] = ()


class Line(NamedTuple):
    """A curve: its name, its color by the page's style, its last value and its points in the drawing."""

    name: str
    css: str
    end: float
    points: list[tuple[float, float]]


class Curves(NamedTuple):
    """Curves over epochs in one frame: what is drawn, the frame's ends in words, and the curves."""

    title: str
    low: str
    high: str
    first: str
    last: str
    lines: list[Line]


class Picture(NamedTuple):
    """A picture as a data URL; ``exact`` as PNG, else as JPEG."""

    data: str
    width: int
    height: int
    exact: bool


def number(value: float | None, signed: bool = False) -> str:
    """Return a figure to three decimals, fewer where it is large; "–" where it is None or NaN."""
    if value is None or math.isnan(value):
        return "–"
    places = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 0
    return f"{round(value, places) + 0.0:{'+' if signed else ''}.{places}f}".replace("-", "−")


def cell(value: float | None, text: str | None = None, below: str = "", signed: bool = False) -> Cell:
    """Return the cell of a number, in words of its own or as :func:`number` has it; what is missing sorts last."""
    key = math.inf if value is None or math.isnan(value) else value
    return Cell(number(value, signed) if text is None else text, f"{key:.6g}".replace("inf", "Infinity"), below)


def bar(value: float, low: float, high: float, top: float) -> Cell:
    """Return a cell in which a value is drawn as a bar and its interval as a line.

    Args:
        value: The bar's length, from 0.
        low: The interval's lower end; NaN for none.
        high: Its upper end.
        top: What the full width stands for.
    """
    scale = 100 / top if top > 0 else 0.0
    ends = () if math.isnan(low) else (max(low, 0) * scale, min(high, top) * scale)
    return cell(value)._replace(bar=(min(max(value, 0), top) * scale, *ends))


def curves(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> Curves | None:
    """Place curves over epochs in one frame of 300 by 142; None where no value is finite.

    Args:
        title: What is drawn.
        series: Points (epoch, value) by the curve's name; the last curve is the accented one.
    """
    points = [point for line in series.values() for point in line if math.isfinite(point[1])]
    if not points:
        return None
    (first, last), (low, high) = ((min(values), max(values)) for values in zip(*points, strict=True))
    span = (high - low) or max(abs(high), 1e-12)
    lines = [
        Line(
            name,
            "accent" if place == len(series) else "other",
            line[-1][1],
            [
                (54 + 236 * (x - first) / ((last - first) or 1), 118 - 104 * (y - low) / span)
                for x, y in line
                if math.isfinite(y)
            ],
        )
        for place, (name, line) in enumerate(series.items(), start=1)
    ]
    return Curves(title, _tick(low) if low < high else "", _tick(high), f"{first:g}", f"{last:g}", lines)


def _tick(value: float) -> str:
    text = f"{value:.3g}"
    return text if len(text) < 8 else f"{value:.1e}"


def scatter(histogram: npt.NDArray[np.integer]) -> str:
    """Draw how often each predicted depth came for each true one, the brighter the more often, by its logarithm.

    Args:
        histogram: Pixels by true (rows) and predicted (columns) depth, in equal steps from 0.

    Returns:
        A picture as a data URL, true depth to the right, predicted depth upwards.
    """
    levels = np.log1p(histogram.T[::-1]) / max(math.log1p(int(histogram.max())), 1e-9)
    opaque = np.where(levels > 0, 255, 0)[..., None]
    return picture(
        np.concatenate([ERROR_COLORS[np.rint(levels * 255).astype(int)], opaque], axis=2).astype(np.uint8), exact=True
    ).data


def picture(pixels: npt.NDArray[np.uint8], exact: bool = False) -> Picture:
    """Encode a picture, ``uint8``, shape ``(H, W, C)``: as PNG where it is to be exact, else as JPEG."""
    buffer = io.BytesIO()
    options = {"format": "PNG"} if exact else {"format": "JPEG", "quality": 85, "subsampling": 0}
    Image.fromarray(pixels).save(buffer, optimize=True, **options)
    kind = "png" if exact else "jpeg"
    data = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(data, pixels.shape[1], pixels.shape[0], exact)


def gradient(colors: npt.NDArray[np.uint8]) -> str:
    """Return a color map as the stops of a CSS gradient."""
    return ",".join(f"rgb({r} {g} {b})" for r, g, b in colors[::17].tolist())
