"""The page that shows what an evaluation found: the figures, tables and pictures that ``page.html.j2`` lays out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from depthnet.core.atomic_io import file_digest
from depthnet.core.images import resize_image, resize_nearest
from depthnet.core.tables import count_in_words
from depthnet.core.visualize import DEPTH_COLORS, ERROR_COLORS, ERROR_HIGH, colorize, depth_limits, error_map
from depthnet.evaluation.atlas import GROUP_FIGURES, MIN_PIXELS, Figure, Group, run_figures
from depthnet.evaluation.bootstrap import DRAWS
from depthnet.evaluation.evaluator import describe_frames
from depthnet.evaluation.frames import FrameEvaluator, FrameResult, FrameResults
from depthnet.evaluation.metrics import METRIC_NAMES
from depthnet.evaluation.protocols import PROTOCOLS
from depthnet.evaluation.report.charts import Bar, Cell, ends, gradient, number, picture, scatter, sort_key, tick
from depthnet.evaluation.sharpness import EDGE_F1, EDGE_REACH
from depthnet.run.files import CONFIG, Run
from depthnet.run.provenance import commit

_KINDS = {"depth": None, "edge": None, "scene type": 30, "object": 40}  # of groups, and how many at most are shown
_TILE = 320  # greatest width of a picture [pixels]
_DRAWN = {  # curves of the training, by their logged names
    "loss": ["train/loss"],
    "delta1": ["train/delta1", "val/delta1"],
    "abs_rel": ["val/abs_rel"],
    "rmse [m]": ["val/rmse"],
    "silog": ["val/silog"],
    "learning rate": ["lr"],
}

_Table = dict[str, Sequence[Any]]  # a header and rows of what charts.html.j2 takes as cells


def templates() -> Environment:
    """Return the page's templates; whatever is given to them as text is escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    found = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    found.filters.update(number=number, sort_key=sort_key, ends=ends, tick=tick)
    return found


def page(evaluator: FrameEvaluator, results: FrameResults) -> str:
    """Return a whole HTML document that needs no other file."""
    run, split, rows, atlas = evaluator.run, evaluator.split, evaluator.rows, results.atlas
    total = atlas.histogram.sum()
    return templates().get_template("page.html.j2").render(
        title=run.directory.resolve().name,
        run=run,
        metrics={"test_judgements": None, "empty": {}, **run.metrics},
        data={"val": None, **run.metrics["data"]},
        rows=rows,
        results=results,
        judged=describe_frames(evaluator.layout, split, sorted(rows)),
        under=f"{run.protocol} · {split} · {count_in_words(len(results.metrics), run.metrics['expected'])}",
        counted=f"{split} · {count_in_words(len(rows), run.metrics['expected'])}",
        tested=split in ("test", "published"),
        drift=_drift(run, results),
        heads=_heads(run, results),
        metric_names=list(METRIC_NAMES),
        matrix=_matrix(run),
        protocols=[(name, _protocol(run, name)) for name in run.metrics["definitions"]],
        min_pixels=MIN_PIXELS,
        groups={kind: _groups(atlas.groups(kind, most)) for kind, most in _KINDS.items()},
        position=_position(results),
        sharpness=[[name + " [px]" * name.startswith("dbe_"), figure] for name, figure in atlas.sharpness().items()],
        edge_f1=EDGE_F1,
        edge_reach=EDGE_REACH,
        histogram=scatter(atlas.histogram),
        predicted=[
            [name, *(Cell(value, f"{value:.2f}") for value in values), Cell(pixels, f"{pixels / total:.1%}")]
            for name, pixels, values in atlas.predicted()
        ],
        examples={name: [_example(run, result) for result in some] for name, some in results.examples.items()},
        error_high=ERROR_HIGH,
        error_colors=gradient(ERROR_COLORS),
        depth_colors=gradient(DEPTH_COLORS),
        **_scenes(evaluator, results),
        training=_curves(run),
        checkpoint=evaluator.checkpoint,
        checkpoint_digest=file_digest(evaluator.checkpoint),
        commit=commit(),
        config=(run.directory / CONFIG).read_text(encoding="utf-8", errors="replace"),
        draws=DRAWS,
    )  # fmt: skip


def _heads(run: Run, results: FrameResults) -> list[tuple[str, Figure, str]]:
    """The figures at the head: name, value, and what stands beside its interval."""
    figures, constant = run_figures(run, run.protocol), run.mean_map(run.protocol)
    heads = []
    for name in ("delta1", "abs_rel", "rmse"):
        beside = f"mean map {number(constant[name])}" if name in constant else ""
        heads.append((name + " [m]" * (name == "rmse"), figures[name], beside))
    if (sharp := results.atlas.sharpness().get("edge_f1")) is not None:
        heads.append(("edge_f1", sharp, "boundary F1 of the results table"))
    return heads


def _matrix(run: Run) -> list[list[Any]]:
    """Every metric under every protocol, and below it those of the mean map."""
    rows: list[list[Any]] = []
    for protocol in run.rows:
        figures, constant = run_figures(run, protocol), run.mean_map(protocol)
        rows.append([protocol, *(figures.get(name) for name in METRIC_NAMES)])
        if constant:
            rows.append([f"{protocol}: mean map", *(constant[name] for name in METRIC_NAMES)])
    return rows


def _protocol(run: Run, name: str) -> str:
    """A protocol in words, with its source and digest."""
    base = name.removesuffix("_flip")
    source = f" Source: {PROTOCOLS[base].source}" if base in PROTOCOLS else ""
    return f"{run.metrics['definitions'][name]}{source} Digest {run.metrics.get('digests', {}).get(name, '–')}."


def _groups(groups: Sequence[Group]) -> _Table | None:
    """The table of some groups; None where there are none."""
    if not groups:
        return None
    held = [group.figures["abs_rel"] for group in groups]
    tops = [figure.mean if math.isnan(figure.interval.high) else figure.interval.high for figure in held]
    top = math.ceil(max(*tops, 0.05) * 20 - 1e-9) / 20
    rows: list[list[Any]] = []
    for group, figure in zip(groups, held, strict=True):
        delta1, rmse, bias = (group.figures[name].mean for name in GROUP_FIGURES[1:])
        shown = [figure, Bar(figure.mean, *figure.interval, top), delta1, rmse, Cell(bias, number(bias, signed=True))]
        rows.append([group.name, *shown, group.images, Cell(group.share, f"{group.share:.1%}")])
    return {"header": ["group", "abs_rel", f"0 to {top:g}", *GROUP_FIGURES[1:], "images", "pixels"], "rows": rows}


def _position(results: FrameResults) -> dict[str, Any]:
    errors, parts = results.atlas.position(), results.atlas.position(3, 4).tolist()
    high = math.ceil(float(np.nanpercentile(errors, 99)) * 20) / 20 or 0.05
    return {
        "picture": picture(colorize(errors, 0.0, high, np.isfinite(errors), ERROR_COLORS), exact=True),
        "high": f"{high:g}",
        "rows": [[name, *row] for name, row in zip(("top", "middle", "bottom"), parts, strict=True)],
    }


def _example(run: Run, result: FrameResult) -> dict[str, Any]:
    """An image, its ground truth, its prediction and the error, as pictures of one size."""
    label, scene, _ = run.rows[run.protocol][result.frame]
    metrics = dict(zip(METRIC_NAMES, result.metrics, strict=True))
    low, high = depth_limits(result.depth, result.mask)
    tall, wide = result.depth.shape
    size = (max(1, round(tall * min(1, _TILE / wide))), min(wide, _TILE))
    pred, depth = resize_nearest(result.pred, size), resize_nearest(result.depth, size)
    mask = resize_nearest(result.mask, size)
    tiles = {
        "image": resize_image(result.image, size),
        "truth": colorize(depth, low, high, mask),
        "prediction": colorize(pred, low, high),
        "error": error_map(pred, depth, mask, ERROR_HIGH),
    }
    return {
        "label": label,
        "scene": scene,
        "figures": " · ".join(f"{name} {metrics[name]:.3f}" for name in ("abs_rel", "delta1", "rmse")),
        "low": low,
        "high": high,
        "tiles": {name: picture(tile) for name, tile in tiles.items()},
    }


def _scenes(evaluator: FrameEvaluator, results: FrameResults) -> dict[str, _Table]:
    """The tables of scenes and of images, the worst first."""
    names = ("abs_rel", "delta1", "rmse", "silog")
    columns = [METRIC_NAMES.index(name) for name in names]
    images: list[list[Any]] = []
    members: dict[str, list[list[float]]] = {}
    for frame, metrics in sorted(results.metrics.items(), key=lambda item: -item[1][columns[0]]):
        if not math.isnan(metrics[0]):
            label, scene, _ = evaluator.rows[frame]
            values = [metrics[column] for column in columns]
            images.append([label, scene, *values])
            members.setdefault(scene, []).append(values)
    scenes: list[list[Any]] = [[scene, len(rows), *np.mean(rows, axis=0).tolist()] for scene, rows in members.items()]
    scenes.sort(key=lambda row: -row[-len(names)])
    return {
        "scenes": {"header": ["scene", "images", *names], "rows": scenes},
        "images": {"header": ["image", "scene", *names], "rows": images},
    }


def _curves(run: Run) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """By title and logged name, the finite values of each epoch."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for title, names in _DRAWN.items():
        for name in names:
            line = [(epoch["epoch"] + 1, epoch.get(name, math.nan)) for epoch in run.history]
            if finite := [point for point in line if math.isfinite(point[1])]:
                found.setdefault(title, {})[name] = finite
    return found


def _drift(run: Run, results: FrameResults) -> float:
    """By how much the mean AbsRel of the evaluated images differs from what the run wrote of the same images."""
    column, rows = METRIC_NAMES.index("abs_rel"), run.rows[run.protocol]
    differences = [metrics[column] - rows[frame].figures["abs_rel"] for frame, metrics in results.metrics.items()]
    return float(np.nanmean(differences))
