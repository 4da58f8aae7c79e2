"""Pieces of a page: tables whose columns sort, bars, curves, pictures; as text that needs no other file.

Whatever is given as text is escaped; what a function returns is HTML. Charts take their colours from ``report.css``,
so that they follow a dark screen; a table's header cells are the buttons that ``report.js`` sorts by.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from depthnet.visualize import ERROR_COLORS

__all__ = ["Cell", "bar", "color_scale", "curves", "details", "number", "picture", "scatter", "table"]

Cell = str | tuple[str, float]
"""A text; or HTML, and the number that it sorts by."""


def number(value: float | None, signed: bool = False) -> Cell:
    """Return a figure to three decimals, fewer where it is large; "–" where it is None or NaN."""
    if value is None or math.isnan(value):
        return "–", math.inf
    places = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 0
    return f"{round(value, places) + 0.0:{'+' if signed else ''}.{places}f}".replace("-", "−"), value


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str) -> str:
    """Lay rows out under a header that sorts them.

    Args:
        header: The columns' names.
        rows: Cells, as many in each row.
        caption: What the table holds, for those who cannot see its place.
    """
    kinds = ["text" if isinstance(cell, str) else "number" for cell in (rows[0] if rows else header)]
    heads = "".join(
        f'<th scope="col" class="{kind}"><button type="button">{html.escape(name)}</button></th>'
        for name, kind in zip(header, kinds, strict=True)
    )
    lines = []
    for row in rows:
        cells = [
            f'<td class="text">{html.escape(cell)}</td>'
            if isinstance(cell, str)
            else f'<td data-sort="{_plain(cell[1])}">{cell[0]}</td>'
            for cell in row
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(caption)}"><table>'
        f'<caption class="unseen">{html.escape(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _plain(value: float) -> str:
    """The number as JavaScript reads it."""
    return f"{value:.6g}".replace("inf", "Infinity")


def bar(value: float, low: float, high: float, top: float) -> Cell:
    """Draw a value as a bar with its interval as a line, to stand in a table beside the number.

    Args:
        value: The bar's length, from 0.
        low: The interval's lower end; NaN for none.
        high: Its upper end.
        top: What the full width stands for.
    """
    scale = 100 / top if top > 0 else 0.0
    whisker = ""
    if not math.isnan(low):
        ends = max(low, 0) * scale, min(high, top) * scale
        whisker = f'<path d="M{ends[0]:.1f} 7H{ends[1]:.1f}M{ends[0]:.1f} 4V10M{ends[1]:.1f} 4V10"/>'
    drawn = (
        f'<svg class="bar" viewBox="0 0 100 14" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{min(max(value, 0), top) * scale:.1f}" height="14"/>{whisker}</svg>'
    )
    return drawn, value


def curves(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Draw curves over epochs in one frame.

    Args:
        title: What is drawn.
        series: Points (epoch, value) by the curve's name; the last curve is the accented one.
    """
    points = [point for line in series.values() for point in line if math.isfinite(point[1])]
    if not points:
        return ""
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    span = (high - low) or max(abs(high), 1e-12)
    kinds = dict(zip(series, ["other"] * (len(series) - 1) + ["accent"], strict=True))
    drawn = []
    for name, line in series.items():
        spots = [
            (54 + 236 * (x - first) / ((last - first) or 1), 118 - 104 * (y - low) / span)
            for x, y in line
            if math.isfinite(y)
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        drawn.append(f'<polyline class="{kinds[name]}" points="{path}"/>')
        for x, y in spots if len(spots) <= 40 else []:
            drawn.append(f'<circle class="{kinds[name]}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>')
    ends = ", ".join(f"{name} {line[-1][1]:.4g} at the end" for name, line in series.items() if line)
    keys = "".join(f'<span class="{kind}">{html.escape(name)}</span>' for name, kind in kinds.items())
    lowest = _tick(low) if low < high else ""
    return (
        f"<figure><figcaption><b>{html.escape(title)}</b> {keys}</figcaption>"
        f'<svg class="curves" viewBox="0 0 300 142" role="img" aria-label="{html.escape(f"{title} by epoch: {ends}")}">'
        f'<path class="axis" d="M54 10V118H294"/><text x="48" y="20" text-anchor="end">{_tick(high)}</text>'
        f'<text x="48" y="118" text-anchor="end">{lowest}</text><text x="54" y="134">epoch {first:g}</text>'
        f'<text x="294" y="134" text-anchor="end">{last:g}</text>{"".join(drawn)}</svg></figure>'
    )


def _tick(value: float) -> str:
    text = f"{value:.3g}"
    return text if len(text) < 8 else f"{value:.1e}"


def scatter(histogram: npt.NDArray[np.integer], top: float) -> str:
    """Draw how often each predicted depth came for each true one, the brighter the more often, by its logarithm.

    Args:
        histogram: Pixels by true (rows) and predicted (columns) depth, in equal steps from 0.
        top: Where both end [m].
    """
    levels = np.log1p(histogram.T[::-1]) / max(math.log1p(int(histogram.max())), 1e-9)
    opaque = np.where(levels > 0, 255, 0)[..., None]
    pixels = np.concatenate([ERROR_COLORS[np.rint(levels * 255).astype(int)], opaque], axis=2).astype(np.uint8)
    ticks = []
    for place in range(0, 11, 2):
        at, mark = 36 * place, f"{top * place / 10:g}"
        ticks.append(f'<text x="{48 + at}" y="388" text-anchor="middle">{mark}</text>')
        ticks.append(f'<text x="40" y="{374 - at}" text-anchor="end">{mark}</text>')
        ticks.append(f'<path class="lattice" d="M{48 + at} 10V370M48 {370 - at}H408"/>')
    return (
        f'<svg class="scatter" viewBox="0 0 420 412" role="img" aria-label="Predicted by true depth, to {top:g} m; the '
        'numbers are in the table beside it">'
        f'{"".join(ticks)}<image href="{_data(pixels)}" x="48" y="10" width="360" height="360" '
        'preserveAspectRatio="none"/><path class="truth" d="M48 370L408 10"/>'
        '<path class="bound" d="M48 370L336 10M48 370L408 82"/>'
        '<text x="228" y="408" text-anchor="middle">true depth [m]</text>'
        '<text x="12" y="190" text-anchor="middle" transform="rotate(-90 12 190)">predicted depth [m]</text></svg>'
    )


def picture(pixels: npt.NDArray[np.uint8], alt: str, caption: str = "", exact: bool = False) -> str:
    """Embed a picture.

    Args:
        pixels: RGB, ``uint8``, shape ``(H, W, 3)``.
        alt: What it shows, for those who cannot see it.
        caption: What stands below it.
        exact: As PNG, and with hard pixels where it is drawn larger; else as JPEG.
    """
    height, width = pixels.shape[:2]
    css = ' class="exact"' if exact else ""
    drawn = f'<img{css} src="{_data(pixels, exact)}" width="{width}" height="{height}" alt="{html.escape(alt)}">'
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{drawn}{below}</figure>"


def color_scale(colors: npt.NDArray[np.uint8], low: str, high: str) -> str:
    """Draw a colour scale with what its two ends stand for."""
    stops = ",".join(f"rgb({r} {g} {b})" for r, g, b in colors[::17].tolist())
    return (
        f'<span class="scale"><span>{html.escape(low)}</span>'
        f'<i style="background:linear-gradient(90deg,{stops})"></i><span>{html.escape(high)}</span></span>'
    )


def details(summary: str, body: str) -> str:
    """Fold HTML away under a line."""
    return f"<details><summary>{html.escape(summary)}</summary>{body}</details>"


def _data(pixels: npt.NDArray[np.uint8], exact: bool = True) -> str:
    buffer = io.BytesIO()
    if exact:
        Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    else:
        Image.fromarray(pixels).save(buffer, format="JPEG", quality=85, subsampling=0, optimize=True)
    kind = "png" if exact else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
