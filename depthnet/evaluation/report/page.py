"""The page that shows what an evaluation found: the values and pictures that ``page.html.j2`` lays out."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from depthnet.core.atomic_io import file_digest
from depthnet.core.tables import count_in_words
from depthnet.core.visualize import DEPTH_COLORS, ERROR_COLORS, ERROR_HIGH, colorize, frame_tiles
from depthnet.evaluation.atlas import MIN_PIXELS, Group, run_figures
from depthnet.evaluation.bootstrap import DRAWS
from depthnet.evaluation.evaluator import describe_frames
from depthnet.evaluation.frames import FrameEvaluator, FrameResult, FrameResults
from depthnet.evaluation.metrics import METRIC_NAMES
from depthnet.evaluation.protocols import PROTOCOLS
from depthnet.evaluation.sharpness import EDGE_F1, EDGE_REACH
from depthnet.run.files import CONFIG, Run
from depthnet.run.provenance import commit

_KINDS = {"depth": None, "edge": None, "scene type": 30, "object": 40}  # of groups, and how many at most are shown
_SHOWN = ("abs_rel", "delta1", "rmse", "silog")  # of single scenes and images
_CONSTANTS = {
    "METRICS": METRIC_NAMES,
    "SHOWN": _SHOWN,
    "PROTOCOLS": PROTOCOLS,
    "MIN_PIXELS": MIN_PIXELS,
    "DRAWS": DRAWS,
    "EDGE_F1": EDGE_F1,
    "EDGE_REACH": EDGE_REACH,
    "ERROR_HIGH": ERROR_HIGH,
    "ERROR_COLORS": ERROR_COLORS,
    "DEPTH_COLORS": DEPTH_COLORS,
}
_TILE = 320  # greatest width of a picture [pixels]


def templates() -> Environment:
    """Return the page's templates; all text that they are given is escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    found = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    found.filters.update(png=png, jpeg=jpeg, gradient=gradient, scatter=scatter, curve=_curve)
    found.globals.update(_CONSTANTS)
    return found


def page(evaluator: FrameEvaluator, results: FrameResults) -> str:
    """Return a whole HTML document that needs no other file."""
    run, split, atlas = evaluator.run, evaluator.split, results.atlas
    errors, groups = atlas.position(), {kind: atlas.groups(kind, most) for kind, most in _KINDS.items()}
    high = _round_up(float(np.nanpercentile(errors, 99)))
    template = templates().get_template("page.html.j2")
    return template.render(
        run=run,
        evaluator=evaluator,
        results=results,
        atlas=atlas,
        evaluated=describe_frames(evaluator.layout, split, sorted(evaluator.rows)),
        under=f"{run.protocol} · {split} · {count_in_words(len(results.metrics), run.metrics['expected'])}",
        counted=f"{split} · {count_in_words(len(evaluator.rows), run.metrics['expected'])}",
        drift=_drift(run, results),
        figures={protocol: run_figures(run, protocol) for protocol in run.rows},
        groups=groups,
        tops={kind: _highest(some) for kind, some in groups.items()},
        position_high=f"{high:g}",
        position_picture=colorize(errors, 0.0, high, np.isfinite(errors), ERROR_COLORS),
        examples={name: [_example(result) for result in some] for name, some in results.examples.items()},
        images=_images(evaluator, results),
        checkpoint_digest=file_digest(evaluator.checkpoint),
        commit=commit(),
        config=(run.directory / CONFIG).read_text(encoding="utf-8", errors="replace"),
    )


def _round_up(value: float) -> float:
    """The next multiple of 0.05."""
    return math.ceil(value * 20 - 1e-9) / 20 or 0.05


def _highest(groups: list[Group]) -> float:
    """Where the bars of some groups' AbsRel end."""
    figures = [group.figures["abs_rel"] for group in groups]
    ends = [end for figure in figures for end in (figure.mean, figure.interval.high) if not math.isnan(end)]
    return _round_up(max([0.05, *ends]))


def _example(result: FrameResult) -> dict[str, Any]:
    """A frame's result with its pictures, all of one size."""
    tall, wide = result.depth.shape
    size = (max(1, round(tall * min(1, _TILE / wide))), min(wide, _TILE))
    tiles, low, high = frame_tiles(result.image, result.depth, result.mask, result.pred, size)
    metrics = dict(zip(METRIC_NAMES, result.metrics, strict=True))
    return {"frame": result.frame, "tiles": tiles, "low": low, "high": high, "metrics": metrics}


def _images(evaluator: FrameEvaluator, results: FrameResults) -> list[dict[str, Any]]:
    """Each image's label, scene and metrics, the worst first."""
    found = []
    for frame, metrics in results.metrics.items():
        image = evaluator.rows[frame]
        if not math.isnan(metrics[0]):
            found.append({"label": image.label, "scene": image.scene, **dict(zip(METRIC_NAMES, metrics, strict=True))})
    return sorted(found, key=lambda image: -image["abs_rel"])


def _curve(history: list[dict[str, float]], name: str) -> list[tuple[float, float]]:
    """The epochs and values of a logged name, where it is finite."""
    line = [(epoch["epoch"] + 1, epoch.get(name, math.nan)) for epoch in history]
    return [point for point in line if math.isfinite(point[1])]


def _drift(run: Run, results: FrameResults) -> float:
    """By how much the mean AbsRel of the evaluated images differs from what the run wrote of the same images."""
    column, rows = METRIC_NAMES.index("abs_rel"), run.rows[run.protocol]
    differences = [metrics[column] - rows[frame].figures["abs_rel"] for frame, metrics in results.metrics.items()]
    return float(np.nanmean(differences))


def scatter(histogram: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Draw how often each predicted depth came for each true one, the brighter the more often, by its logarithm.

    Args:
        histogram: Pixels by true (rows) and predicted (columns) depth, in equal steps from 0.

    Returns:
        A picture with alpha, true depth to the right, predicted depth upwards.
    """
    levels = np.log1p(histogram.T[::-1]) / max(math.log1p(int(histogram.max())), 1e-9)
    opaque = np.where(levels > 0, 255, 0)[..., None]
    return np.concatenate([ERROR_COLORS[np.rint(levels * 255).astype(int)], opaque], axis=2).astype(np.uint8)


def png(pixels: npt.NDArray[np.uint8]) -> str:
    """Return a picture, ``uint8``, shape ``(H, W, C)``, as the data URL of a PNG, to the exact color."""
    return _data_url(pixels, "png")


def jpeg(pixels: npt.NDArray[np.uint8]) -> str:
    """Return a picture, ``uint8``, shape ``(H, W, 3)``, as the data URL of a JPEG."""
    return _data_url(pixels, "jpeg", quality=85, subsampling=0)


def _data_url(pixels: npt.NDArray[np.uint8], kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, optimize=True, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def gradient(colors: npt.NDArray[np.uint8]) -> str:
    """Return a color map as the stops of a CSS gradient."""
    return ",".join(f"rgb({r} {g} {b})" for r, g, b in colors[::17].tolist())
