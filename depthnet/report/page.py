"""The page that shows a judgement: the sections of ``report.html``, in words, tables and charts."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from depthnet.durable import file_digest
from depthnet.evaluation import commit, describe_judged
from depthnet.image import resize_image, resize_nearest
from depthnet.intervals import DRAWS
from depthnet.metrics import METRIC_NAMES
from depthnet.per_image import count_in_words
from depthnet.protocol import PROTOCOLS
from depthnet.report.atlas import GROUP_FIGURES, MIN_PIXELS, Figure, Group, mean_figures
from depthnet.report.charts import Cell, bar, color_scale, curves, details, number, picture, scatter, table
from depthnet.report.judge import Judgement, Run, Shot
from depthnet.run import CONFIG
from depthnet.sharpness import EDGE_F1, EDGE_REACH
from depthnet.visualize import DEPTH_COLORS, ERROR_COLORS, colorize, depth_limits, error_map

__all__ = ["page"]

_EIGEN = "Eigen et al., NeurIPS 2014"
_METRICS = {
    "delta1": f"Share of pixels with max(p/t, t/p) < 1.25; delta2: < 1.25², delta3: < 1.25³; higher: better. {_EIGEN}.",
    "abs_rel": f"Mean |p − t| / t. {_EIGEN}.",
    "sq_rel": f"Mean (p − t)² / t, in metres. {_EIGEN}.",
    "rmse": f"Root of the mean (p − t)², in metres. {_EIGEN}.",
    "rmse_log": f"Root of the mean (ln p − ln t)². {_EIGEN}.",
    "log10": "Mean |log10 p − log10 t|. Saxena et al., PAMI 2009.",
    "silog": f"100 √(mean e² − (mean e)²) with e = ln p − ln t: blind to a common factor. {_EIGEN}; KITTI benchmark.",
}
_SHARP = {
    "edge_f1": f"From 0 to 1, higher is better. {EDGE_F1}",
    "boundary_f1": "From 0 to 1, higher is better: do the depths of neighbouring pixels jump where the truth's do, by "
    "ratios of 1.05 to 1.25, each weighted by itself? 0 for networks that draw smoothly. Bochkovskii et al., Depth "
    "Pro, 2024; directions and ratios without a boundary are left out, so that the truth scores 1.",
    "dbe_accuracy": "Depth boundary error: mean distance [px] from each predicted edge that has a true one within "
    f"{EDGE_REACH} px to it. Koch et al., iBims-1, 2018; there the true edges are annotated, here both are found by "
    "Canny's method.",
    "dbe_completeness": "The same both ways, from predicted to true edges and back, each distance cut off at "
    f"{EDGE_REACH} px: what is missing or too much counts. Koch et al., iBims-1, 2018.",
}
_GROUPS = {
    "depth": (
        "By true depth",
        "Pixels by their true depth. Bias is the mean of (p − t) / t: above 0, it says too far.",
    ),
    "edge": (
        "By distance to a depth edge",
        "Pixels by their distance to the nearest edge of true depth (Canny's method: a jump of about 15 % of the "
        "image's range of depth), in pixels of the truth.",
    ),
    "scene type": ("By kind of scene", "Images by the kind of scene that the data names."),
    "object": ("By object class", "Pixels by the object class that the data names; the classes in most images."),
}
_MOST = {"scene type": 30, "object": 40}
_ERROR_HIGH = 0.5  # relative error of the last colour
_TILE = 320  # greatest width of a picture [pixels]


def page(run: Run, judgement: Judgement) -> str:
    """Return a whole HTML document that needs no other file."""
    title = run.directory.resolve().name
    judged, total = len(judgement.figures), len(run.rows[run.protocol])
    expected = run.metrics["expected"]
    under = f"{run.protocol} · {run.metrics['split']} · {count_in_words(judged, expected)}"
    sections = [
        _section("Figures", f"{run.metrics['split']} · {count_in_words(total, expected)}", _matrix(run)),
        _section("Where the error is", under, _where(judgement)),
        _section("Sharpness of depth boundaries", under, _sharpness(judgement)),
        _section("Predicted against true depth", under, _against(judgement)),
        _section("Images", under, _images(run, judgement)),
        _section("Scenes and images", under, _scenes(run, judgement)),
        _section("Training", f"each epoch, as logged; val/ under {run.protocol}", _training(run))
        if run.history
        else "",
        _section("How it was made", "", _made(run, judgement)),
    ]
    css, js = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}: report</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><link rel="icon" href="data:,">'
        f"<style>\n{css}</style></head><body>{_header(run, judgement, title, under)}"
        f"<main>{''.join(sections)}</main><footer>Written by python -m depthnet.report. Intervals hold 95 % of "
        f"{DRAWS} bootstrap draws of whole scenes (Efron and Tibshirani, 1993): frames of a scene are not independent. "
        f"p is predicted, t true depth.</footer><script>\n{js}</script></body></html>\n"
    )


def _section(title: str, under: str, body: str) -> str:
    note = f'<p class="under">{html.escape(under)}</p>' if under else ""
    return f"<section><h2>{html.escape(title)}</h2>{note}{body}</section>"


def _card(body: str) -> str:
    return f'<div class="card">{body}</div>'


def _text(words: str, css: str = "soft") -> str:
    return f'<p class="{css}">{html.escape(words)}</p>'


def _header(run: Run, judgement: Judgement, title: str, under: str) -> str:
    data, split = run.metrics["data"], run.metrics["split"]
    judged, total = len(judgement.figures), len(run.rows[run.protocol])
    frames = sorted(run.rows[run.protocol])
    lines = "".join(f'<li class="tag">{html.escape(tag)}</li>' for tag in (under, f"{data['truth']} truth"))
    notes = []
    if split in ("test", "published"):
        lines = '<li class="tag warn">test split</li>' + lines
        count = run.metrics.get("test_judgements")
        often = f" This was judgement number {count} of the checkpoint on it." if count else ""
        notes.append(f"Judged on the test split: what is chosen by these figures is no longer tested by them.{often}")
    if judged < total:
        notes.append(f"A quick look: edge_f1 and all below Figures are of {judged} of the {total} images.")
    if abs(_drift(run, judgement)) > 0.005:
        notes.append(
            f"AbsRel differs by {_drift(run, judgement):+.3f} from per_image.csv on the same images: this checkpoint "
            "is not the one that the run was judged with, or the data changed."
        )
    if data.get("val") == "random_frames":
        notes.append("Val frames were drawn at random and have neighbours in train, so val figures flatter.")
    warnings = "".join(_text(note, "warn") for note in notes)
    heads, figures = [], _figures(run, run.protocol)
    constant = run.metrics.get("mean_map", {}).get(run.protocol, {})
    for name in ("delta1", "abs_rel", "rmse"):
        beside = f"mean map {number(constant[name])[0]}" if name in constant else ""
        heads.append(_head(name + (" [m]" if name == "rmse" else ""), figures[name], beside))
    if (sharp := judgement.atlas.sharpness().get("edge_f1")) is not None:
        heads.append(_head("edge_f1", sharp, "boundary F1 of the results table"))
    return (
        f"<header><h1>{html.escape(title)}</h1><p>{html.escape(data['description'])}</p>"
        f"{_text('Judged: ' + describe_judged(judgement.layout, split, frames) + '.')}"
        f'<ul class="tags">{lines}</ul>{warnings}<div class="grid heads">{"".join(heads)}</div></header>'
    )


def _head(name: str, figure: Figure, beside: str) -> str:
    ends = _ends(figure)
    words = " · ".join(part for part in (f"95 %: {ends}" if ends else "", beside) if part)
    return f'<div class="card head"><span class="soft">{name}</span><b>{number(figure.mean)[0]}</b>{_text(words)}</div>'


def _figures(run: Run, protocol: str) -> dict[str, Figure]:
    rows = run.rows[protocol].values()
    return mean_figures(METRIC_NAMES, [row for _, _, row in rows], [scene for _, scene, _ in rows])


def _ends(figure: Figure) -> str:
    low, high = figure.interval
    return "" if math.isnan(low) else f"{number(low)[0]} to\N{NO-BREAK SPACE}{number(high)[0]}"


def _cell(figure: Figure | None) -> Cell:
    """A figure with its interval below."""
    if figure is None:
        return number(math.nan)
    below = f"<small>{_ends(figure)}</small>" if _ends(figure) else ""
    return f"{number(figure.mean)[0]}{below}", figure.mean


def _matrix(run: Run) -> str:
    rows: list[list[Cell]] = []
    for protocol in run.rows:
        figures = _figures(run, protocol)
        rows.append([protocol, *(_cell(figures.get(name)) for name in METRIC_NAMES)])
        constant = run.metrics.get("mean_map", {}).get(protocol)
        if constant:
            rows.append([f"{protocol}: mean map", *(number(constant[name]) for name in METRIC_NAMES)])
    protocols = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)} {html.escape(_source(name))}"
        f" Digest {html.escape(run.metrics.get('digests', {}).get(name, '–'))}.</dd>"
        for name, text in run.metrics["definitions"].items()
    )
    metrics = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in _METRICS.items())
    empty = {name: labels for name, labels in run.metrics.get("empty", {}).items() if labels}
    without = [f"{name}: {len(labels)} images have no valid pixel and count nowhere." for name, labels in empty.items()]
    return _card(
        table(["protocol", *METRIC_NAMES], rows, "Figures by protocol")
        + _text(
            "Means over images, with 95 % intervals over scenes; as the run wrote them. The mean map answers every "
            "image with the mean training depth at each pixel: what every network must beat. " + " ".join(without)
        )
        + details("What the figures are", f"<dl>{metrics}</dl>")
        + details("What the protocols are", f"<dl>{protocols}</dl>")
    )


def _source(protocol: str) -> str:
    base = protocol.removesuffix("_flip")
    return f"Source: {PROTOCOLS[base].source}" if base in PROTOCOLS else ""


def _where(judgement: Judgement) -> str:
    cards = []
    for kind, (title, words) in _GROUPS.items():
        groups = judgement.atlas.groups(kind, _MOST.get(kind))
        if groups:
            cards.append(_card(f"<h3>{title}</h3>{_text(words)}{_group_table(title, groups)}"))
    cards.insert(2, _position(judgement))
    counts = (
        f"A group's figures are each image's over its pixels there, averaged over images with {MIN_PIXELS} or more."
    )
    return f'{_text(counts)}<div class="grid">{"".join(cards)}</div>'


def _group_table(title: str, groups: Sequence[Group]) -> str:
    held = [group.figures["abs_rel"] for group in groups]
    tops = [figure.mean if math.isnan(figure.interval.high) else figure.interval.high for figure in held]
    top = math.ceil(max(max(tops), 0.05) * 20 - 1e-9) / 20
    rows: list[list[Cell]] = []
    for group in groups:
        figure = group.figures["abs_rel"]
        others = [number(group.figures[name].mean, signed=name == "bias") for name in GROUP_FIGURES[1:]]
        counts: list[Cell] = [(f"{group.images}", group.images), (f"{group.share:.1%}", group.share)]
        rows.append([group.name, _cell(figure), bar(figure.mean, *figure.interval, top), *others, *counts])
    header = ["group", "abs_rel", f"0 to {top:g}", *GROUP_FIGURES[1:], "images", "pixels"]
    return table(header, rows, title)


def _position(judgement: Judgement) -> str:
    errors, parts = judgement.atlas.position(), judgement.atlas.position(3, 4)
    high = math.ceil(float(np.nanpercentile(errors, 99)) * 20) / 20 or 0.05
    drawn = picture(
        colorize(errors, 0.0, high, np.isfinite(errors), ERROR_COLORS),
        f"Mean relative error by place in the image, from 0 to {high:g}; the numbers are in the table beside it",
        exact=True,
    )
    rows: list[list[Cell]] = [
        [name, *map(number, row)] for name, row in zip(("top", "middle", "bottom"), parts, strict=True)
    ]
    words = "Mean |p − t| / t of all pixels at a place, over all images; grey: none counts there."
    return (
        f'<div class="card wide"><h3>By place in the image</h3>{_text(words)}<div class="grid small"><div>{drawn}'
        f"{color_scale(ERROR_COLORS, '0', f'{high:g}')}</div>"
        f"{table(['', 'left', 'mid-left', 'mid-right', 'right'], rows, 'Mean relative error by place')}"
        "</div></div>"
    )


def _sharpness(judgement: Judgement) -> str:
    found = judgement.atlas.sharpness()
    if not found:
        return _text("No image's truth has a depth boundary.")
    rows: list[list[Cell]] = [
        [name + (" [px]" if name.startswith("dbe_") else ""), _cell(figure)] for name, figure in found.items()
    ]
    words = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in _SHARP.items())
    cards = _card(table(["figure", "mean and 95 % interval"], rows, "Sharpness")) + _card(f"<dl>{words}</dl>")
    return f'<div class="grid">{cards}</div>'


def _against(judgement: Judgement) -> str:
    atlas = judgement.atlas
    total = int(atlas.histogram.sum())
    rows: list[list[Cell]] = [
        [name, *((f"{value:.2f}", value) for value in values), (f"{pixels / total:.1%}", pixels)]
        for name, pixels, values in atlas.predicted()
    ]
    return (
        f'<div class="grid"><div class="card">{scatter(atlas.histogram, atlas.top)}'
        f"{color_scale(ERROR_COLORS, 'few pixels', 'many (log)')}"
        + _text("Solid: right. Dashed: a factor of 1.25 off, the limit of delta1.")
        + '</div><div class="card"><h3>What it says at each depth [m]</h3>'
        + _text("A tenth of the pixels is predicted nearer than the first quantile, a tenth farther than the last.")
        + table(["true depth", "10 %", "median", "90 %", "pixels"], rows, "Predicted depth by true depth")
        + "</div></div>"
    )


def _images(run: Run, judgement: Judgement) -> str:
    words = [
        _text(
            "Ordered by AbsRel. Truth and prediction share each image's scale of depth, nearer is brighter; grey is "
            "missing or outside the protocol. Error is |p − t| / t."
        ),
        color_scale(ERROR_COLORS, "error 0", f"{_ERROR_HIGH:g} or more"),
    ]
    cards = [
        _card(f"<h3>{name}</h3>{''.join(_shot(run, judgement, shot) for shot in shots)}")
        for name, shots in judgement.shots.items()
    ]
    return f'{"".join(words)}<div class="grid one">{"".join(cards)}</div>'


def _shot(run: Run, judgement: Judgement, shot: Shot) -> str:
    label, scene, _ = run.rows[run.protocol][shot.frame]
    row = dict(zip(METRIC_NAMES, judgement.figures[shot.frame], strict=True))
    low, high = depth_limits(shot.depth, shot.mask)
    tall, wide = shot.depth.shape
    size = (max(1, round(tall * min(1, _TILE / wide))), min(wide, _TILE))
    depth, pred, mask = (
        resize_nearest(shot.depth, size),
        resize_nearest(shot.pred, size),
        resize_nearest(shot.mask, size),
    )
    tiles = {
        "image": resize_image(shot.image, size),
        "truth": colorize(depth, low, high, mask),
        "prediction": colorize(pred, low, high),
        "error": error_map(pred, depth, mask, _ERROR_HIGH),
    }
    drawn = "".join(picture(tile, f"{name} of {label}", name) for name, tile in tiles.items())
    figures = " · ".join(f"{name} {row[name]:.3f}" for name in ("abs_rel", "delta1", "rmse"))
    return (
        f'<div class="shot"><p><b>{html.escape(label)}</b> <span class="soft">{html.escape(scene)} · {figures}</span>'
        f'</p><p>{color_scale(DEPTH_COLORS, f"depth {low:g}", f"{high:g} m")}</p><div class="four">{drawn}</div></div>'
    )


def _scenes(run: Run, judgement: Judgement) -> str:
    rows = run.rows[run.protocol]
    names = ("abs_rel", "delta1", "rmse", "silog")
    shown = [METRIC_NAMES.index(name) for name in names]
    found = {frame: [row[column] for column in shown] for frame, row in judgement.figures.items()}
    worst_first = sorted((frame for frame in found if not math.isnan(found[frame][0])), key=lambda f: -found[f][0])
    images: list[list[Cell]] = [[*rows[frame][:2], *map(number, found[frame])] for frame in worst_first]
    parts = [_text(f"Worst first. Scenes are told apart thus: {run.metrics['data'].get('scenes', 'not said')}.")]
    scenes: dict[str, list[int]] = {}
    for frame in worst_first:
        scenes.setdefault(rows[frame][1], []).append(frame)
    kind = {frame: [name] if any(judgement.types.values()) else [] for frame, name in judgement.types.items()}
    if len(scenes) < len(images):
        lines: list[list[Cell]] = []
        for scene, frames in scenes.items():
            means = np.mean([found[frame] for frame in frames], axis=0)
            lines.append([scene, *kind[frames[0]], (f"{len(frames)}", len(frames)), *map(number, means)])
        lines.sort(key=lambda line: -float(line[-4][1]))
        body = table(["scene", *(["kind"] if any(kind.values()) else []), "images", *names], lines, "Figures by scene")
        parts.append(details(f"{len(scenes)} scenes, means over their images", body))
    parts.append(details(f"{len(images)} images", table(["image", "scene", *names], images, "Figures by image")))
    return _card("".join(parts))


def _training(run: Run) -> str:
    def points(name: str) -> list[tuple[float, float]]:
        return [(row["epoch"] + 1, row[name]) for row in run.history if name in row]

    drawn = {
        "loss": ["train/loss"],
        "delta1": ["train/delta1", "val/delta1"],
        "abs_rel": ["val/abs_rel"],
        "rmse [m]": ["val/rmse"],
        "silog": ["val/silog"],
        "learning rate": ["lr"],
    }
    charts = [curves(title, {name: points(name) for name in names if points(name)}) for title, names in drawn.items()]
    columns = list(dict.fromkeys(name for row in run.history for name in row))
    rows: list[list[Cell]] = [
        [(f"{row[name]:.4g}", row[name]) if name in row else "–" for name in columns] for row in run.history
    ]
    cards = "".join(map(_card, filter(None, charts)))
    return f'<div class="grid small">{cards}</div>' + details(
        "All logged numbers", _card(table(columns, rows, "History"))
    )


def _made(run: Run, judgement: Judgement) -> str:
    data, metrics = run.metrics["data"], run.metrics
    facts = {
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
    lines = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in facts.items())
    config = (run.directory / CONFIG).read_text(encoding="utf-8", errors="replace")
    return _card(f"<dl>{lines}</dl>" + details(CONFIG, f"<pre>{html.escape(config)}</pre>"))


def _drift(run: Run, judgement: Judgement) -> float:
    """By how much the mean AbsRel of the judged images differs from what the run wrote of the same images."""
    column, rows = METRIC_NAMES.index("abs_rel"), run.rows[run.protocol]
    differences = [row[column] - rows[frame][2][column] for frame, row in judgement.figures.items()]
    return float(np.nanmean(differences))
