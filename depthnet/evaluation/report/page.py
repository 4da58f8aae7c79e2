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
from depthnet.core.visualize import DEPTH_COLORS, ERROR_COLORS, colorize, depth_limits, error_map
from depthnet.evaluation.atlas import GROUP_FIGURES, MIN_PIXELS, Figure, Group, mean_figures
from depthnet.evaluation.bootstrap import DRAWS
from depthnet.evaluation.evaluator import describe_judged
from depthnet.evaluation.frames import Judgement, Run, Shot
from depthnet.evaluation.metrics import METRIC_NAMES
from depthnet.evaluation.per_image import count_in_words
from depthnet.evaluation.protocols import PROTOCOLS
from depthnet.evaluation.report.charts import Cell, bar, cell, curves, gradient, number, picture, scatter
from depthnet.evaluation.sharpness import EDGE_F1, EDGE_REACH
from depthnet.run.config import CONFIG
from depthnet.run.provenance import commit

_KINDS = {"depth": None, "edge": None, "scene type": 30, "object": 40}  # of groups, and how many at most are shown
_ERROR_HIGH = 0.5  # relative error of the last color
_TILE = 320  # greatest width of a picture [pixels]

_Rows = list[list[str | Cell]]


def templates() -> Environment:
    """Return the page's templates; whatever is given to them as text is escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)


def page(run: Run, judgement: Judgement) -> str:
    """Return a whole HTML document that needs no other file."""
    metrics, split, expected = run.metrics, run.metrics["split"], run.metrics["expected"]
    rows, atlas = run.rows[run.protocol], judgement.atlas
    drawn = {
        "loss": ["train/loss"],
        "delta1": ["train/delta1", "val/delta1"],
        "abs_rel": ["val/abs_rel"],
        "rmse [m]": ["val/rmse"],
        "silog": ["val/silog"],
        "learning rate": ["lr"],
    }
    columns = list(dict.fromkeys(name for epoch in run.history for name in epoch))
    return templates().get_template("page.html.j2").render(
        title=run.directory.resolve().name,
        run=run,
        metrics={"test_judgements": None, "empty": {}, **metrics},
        data={"val": None, **metrics["data"]},
        rows=rows,
        judgement=judgement,
        judged=describe_judged(judgement.layout, split, sorted(rows)),
        under=f"{run.protocol} · {split} · {count_in_words(len(judgement.figures), expected)}",
        counted=f"{split} · {count_in_words(len(rows), expected)}",
        tested=split in ("test", "published"),
        drift=_drift(run, judgement),
        heads=_heads(run, judgement),
        metric_names=list(METRIC_NAMES),
        matrix=_matrix(run),
        protocols=[
            (name, " ".join([text, *_source(name), f"Digest {metrics.get('digests', {}).get(name, '–')}."]))
            for name, text in metrics["definitions"].items()
        ],
        min_pixels=MIN_PIXELS,
        groups={kind: _groups(atlas.groups(kind, most)) for kind, most in _KINDS.items()},
        position=_position(judgement),
        sharpness=[
            [name + " [px]" * name.startswith("dbe_"), _cell(figure)] for name, figure in atlas.sharpness().items()
        ],
        edge_f1=EDGE_F1,
        edge_reach=EDGE_REACH,
        histogram=scatter(atlas.histogram),
        predicted=_predicted(judgement),
        shots={name: [_shot(run, judgement, shot) for shot in shots] for name, shots in judgement.shots.items()},
        error_high=_ERROR_HIGH,
        error_colors=gradient(ERROR_COLORS),
        depth_colors=gradient(DEPTH_COLORS),
        **_scenes(run, judgement),
        training=[
            found
            for title, names in drawn.items()
            if (found := curves(title, {name: points for name in names if (points := _points(run, name))}))
        ],
        history={
            "header": columns,
            "rows": [
                [cell(epoch[name], f"{epoch[name]:.4g}") if name in epoch else "–" for name in columns]
                for epoch in run.history
            ],
        },
        facts=_facts(run, judgement),
        config=(run.directory / CONFIG).read_text(encoding="utf-8", errors="replace"),
        draws=DRAWS,
    )  # fmt: skip


def _cell(figure: Figure | None) -> Cell:
    """A figure with its interval below."""
    if figure is None:
        return cell(None)
    low, high = figure.interval
    ends = "" if math.isnan(low) else f"{number(low)} to\N{NO-BREAK SPACE}{number(high)}"
    return cell(figure.mean, below=ends)


def _figures(run: Run, protocol: str) -> dict[str, Figure]:
    rows = run.rows[protocol].values()
    return mean_figures(METRIC_NAMES, [row for _, _, row in rows], [scene for _, scene, _ in rows])


def _heads(run: Run, judgement: Judgement) -> list[tuple[str, Cell, str]]:
    """The figures at the head: name, value, and what stands beside its interval."""
    figures, constant = _figures(run, run.protocol), run.metrics.get("mean_map", {}).get(run.protocol, {})
    heads = [
        (
            name + " [m]" * (name == "rmse"),
            _cell(figures[name]),
            f"mean map {number(constant[name])}" if name in constant else "",
        )
        for name in ("delta1", "abs_rel", "rmse")
    ]
    if (sharp := judgement.atlas.sharpness().get("edge_f1")) is not None:
        heads.append(("edge_f1", _cell(sharp), "boundary F1 of the results table"))
    return heads


def _matrix(run: Run) -> _Rows:
    """Every metric under every protocol, and below it those of the mean map."""
    rows: _Rows = []
    for protocol in run.rows:
        figures = _figures(run, protocol)
        rows.append([protocol, *(_cell(figures.get(name)) for name in METRIC_NAMES)])
        if constant := run.metrics.get("mean_map", {}).get(protocol):
            rows.append([f"{protocol}: mean map", *(cell(constant[name]) for name in METRIC_NAMES)])
    return rows


def _source(protocol: str) -> list[str]:
    base = protocol.removesuffix("_flip")
    return [f"Source: {PROTOCOLS[base].source}"] if base in PROTOCOLS else []


def _groups(groups: Sequence[Group]) -> dict[str, Any] | None:
    """The table of some groups; None where there are none."""
    if not groups:
        return None
    held = [group.figures["abs_rel"] for group in groups]
    tops = [figure.mean if math.isnan(figure.interval.high) else figure.interval.high for figure in held]
    top = math.ceil(max(max(tops), 0.05) * 20 - 1e-9) / 20
    rows: _Rows = []
    for group, figure in zip(groups, held, strict=True):
        others = [cell(group.figures[name].mean, signed=name == "bias") for name in GROUP_FIGURES[1:]]
        counts = cell(group.images, str(group.images)), cell(group.share, f"{group.share:.1%}")
        rows.append([group.name, _cell(figure), bar(figure.mean, *figure.interval, top), *others, *counts])
    return {"header": ["group", "abs_rel", f"0 to {top:g}", *GROUP_FIGURES[1:], "images", "pixels"], "rows": rows}


def _position(judgement: Judgement) -> dict[str, Any]:
    errors, parts = judgement.atlas.position(), judgement.atlas.position(3, 4)
    high = math.ceil(float(np.nanpercentile(errors, 99)) * 20) / 20 or 0.05
    return {
        "picture": picture(colorize(errors, 0.0, high, np.isfinite(errors), ERROR_COLORS), exact=True),
        "high": f"{high:g}",
        "rows": [[name, *map(cell, row)] for name, row in zip(("top", "middle", "bottom"), parts, strict=True)],
    }


def _predicted(judgement: Judgement) -> _Rows:
    total = judgement.atlas.histogram.sum()
    return [
        [name, *(cell(value, f"{value:.2f}") for value in values), cell(pixels, f"{pixels / total:.1%}")]
        for name, pixels, values in judgement.atlas.predicted()
    ]


def _shot(run: Run, judgement: Judgement, shot: Shot) -> dict[str, Any]:
    label, scene, _ = run.rows[run.protocol][shot.frame]
    figures = dict(zip(METRIC_NAMES, judgement.figures[shot.frame], strict=True))
    low, high = depth_limits(shot.depth, shot.mask)
    tall, wide = shot.depth.shape
    size = (max(1, round(tall * min(1, _TILE / wide))), min(wide, _TILE))
    depth, pred = resize_nearest(shot.depth, size), resize_nearest(shot.pred, size)
    mask = resize_nearest(shot.mask, size)
    tiles = {
        "image": resize_image(shot.image, size),
        "truth": colorize(depth, low, high, mask),
        "prediction": colorize(pred, low, high),
        "error": error_map(pred, depth, mask, _ERROR_HIGH),
    }
    return {
        "label": label,
        "scene": scene,
        "figures": " · ".join(f"{name} {figures[name]:.3f}" for name in ("abs_rel", "delta1", "rmse")),
        "low": low,
        "high": high,
        "tiles": {name: picture(tile) for name, tile in tiles.items()},
    }


def _scenes(run: Run, judgement: Judgement) -> dict[str, Any]:
    """The tables of scenes and of images, the worst first."""
    rows, names = run.rows[run.protocol], ("abs_rel", "delta1", "rmse", "silog")
    shown = [METRIC_NAMES.index(name) for name in names]
    found = {frame: [row[column] for column in shown] for frame, row in judgement.figures.items()}
    worst_first = sorted((frame for frame in found if not math.isnan(found[frame][0])), key=lambda f: -found[f][0])
    of_scene: dict[str, list[int]] = {}
    for frame in worst_first:
        of_scene.setdefault(rows[frame][1], []).append(frame)
    means = {scene: np.mean([found[frame] for frame in frames], axis=0) for scene, frames in of_scene.items()}
    kinds = any(judgement.types.values())
    lines: _Rows = []
    for scene in sorted(of_scene, key=lambda scene: -means[scene][0]):
        frames = of_scene[scene]
        kind = [judgement.types[frames[0]]] * kinds
        lines.append([scene, *kind, cell(len(frames), str(len(frames))), *map(cell, means[scene])])
    return {
        "scenes": {"header": ["scene", *["kind"] * kinds, "images", *names], "rows": lines},
        "images": {
            "header": ["image", "scene", *names],
            "rows": [[*rows[frame][:2], *map(cell, found[frame])] for frame in worst_first],
        },
    }


def _points(run: Run, name: str) -> list[tuple[float, float]]:
    return [(epoch["epoch"] + 1, epoch[name]) for epoch in run.history if name in epoch]


def _facts(run: Run, judgement: Judgement) -> dict[str, str]:
    data, metrics = run.metrics["data"], run.metrics
    return {
        "data": data["description"],
        "truth": data["truth"],
        "frames": ", ".join(f"{count} {split}" for split, count in data.get("frames", {}).items()),
        "data digest": data.get("digest") or "none",
        "checkpoint": f"{judgement.checkpoint}, SHA-256 {file_digest(judgement.checkpoint)}",
        "judged again": f"mean AbsRel differs by {_drift(run, judgement):+.1e} from per_image.csv on the same images",
        "commit": f"{metrics.get('commit') or 'unknown'}; of this report: {commit() or 'unknown'}",
        "seed": str(metrics.get("seed")),
        "versions": ", ".join(f"{name} {version}" for name, version in metrics.get("versions", {}).items() if version),
    }


def _drift(run: Run, judgement: Judgement) -> float:
    """By how much the mean AbsRel of the judged images differs from what the run wrote of the same images."""
    column, rows = METRIC_NAMES.index("abs_rel"), run.rows[run.protocol]
    differences = [row[column] - rows[frame][2][column] for frame, row in judgement.figures.items()]
    return float(np.nanmean(differences))
