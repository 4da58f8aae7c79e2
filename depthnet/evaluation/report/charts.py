"""What the page's tables and charts are drawn from, as plain values, and how numbers are written.

``charts.html.j2`` draws them.
"""

from __future__ import annotations

import base64
import io
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from depthnet.core.visualize import ERROR_COLORS
from depthnet.evaluation.bootstrap import Interval


class Cell(NamedTuple):
    """A number in a table that is not written as :func:`number` does: what it sorts by, and its text."""

    value: float
    text: str


class Bar(NamedTuple):
    """A number in a table that is drawn as a bar from 0 to ``top``, with its interval as a line."""

    value: float
    low: float
    high: float
    top: float


class Picture(NamedTuple):
    """A picture as a data URL; ``exact`` as PNG, else as JPEG."""

    data: str
    width: int
    height: int
    exact: bool


def number(value: float | None, signed: bool = False) -> str:
    """Return a metric to three decimals, fewer where it is large; "–" where it is None or NaN."""
    if value is None or math.isnan(value):
        return "–"
    places = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 0
    return f"{round(value, places) + 0.0:{'+' if signed else ''}.{places}f}".replace("-", "−")


def sort_key(value: float | None) -> str:
    """Return what a number sorts by, as JavaScript reads it; what is missing sorts last."""
    return f"{math.inf if value is None or math.isnan(value) else value:.6g}".replace("inf", "Infinity")


def ends(interval: Interval) -> str:
    """Return an interval in words; empty where there is none."""
    low, high = interval
    return "" if math.isnan(low) else f"{number(low)} to\N{NO-BREAK SPACE}{number(high)}"


def tick(value: float) -> str:
    """Return the end of an axis in a few letters."""
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
    pixels = np.concatenate([ERROR_COLORS[np.rint(levels * 255).astype(int)], opaque], axis=2)
    return picture(pixels.astype(np.uint8), exact=True).data


def picture(pixels: npt.NDArray[np.uint8], exact: bool = False) -> Picture:
    """Encode a picture, ``uint8``, shape ``(H, W, C)``: as PNG where it is to be exact, else as JPEG."""
    buffer, kind = io.BytesIO(), "png" if exact else "jpeg"
    Image.fromarray(pixels).save(buffer, kind, optimize=True, **({} if exact else {"quality": 85, "subsampling": 0}))
    data = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(data, pixels.shape[1], pixels.shape[0], exact)


def gradient(colors: npt.NDArray[np.uint8]) -> str:
    """Return a color map as the stops of a CSS gradient."""
    return ",".join(f"rgb({r} {g} {b})" for r, g, b in colors[::17].tolist())
