"""Put finished runs side by side: figures with intervals, and what sets each run apart from the first, image by image.

    depthnet compare RUN RUN...
    depthnet compare RUN RUN... --metrics delta1,abs_rel --format markdown --output comparison.md

A RUN is a run's directory, with its metrics.json and per_image.csv; all must have judged the same images. --metrics may
also name edge_f1, the sharpness of depth boundaries, which `depthnet report` stores; and, of what
`depthnet robustness` stores: robustness, which is how far delta1 changes when images are corrupted;
robustness_light, the same in varying light; and robustness_dark and its like.

Intervals are of 95 %, by bootstrap over scenes. A difference is a run's figure less the baseline's, image by image, so
that what makes an image hard cancels: runs can differ clearly though their own intervals overlap. A run is called
better or worse only where the interval of its difference excludes 0.

Exit code: 0, done; 2, the runs cannot be compared.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from depthnet.core.atomic_io import write_text
from depthnet.core.errors import finish
from depthnet.core.types import HIGHER_IS_BETTER, InputError
from depthnet.evaluation.bootstrap import Interval, bootstrap
from depthnet.evaluation.per_image import Run, count_in_words, exact_mean, read_run

_METRICS = "delta1,delta2,delta3,abs_rel,rmse,log10"
_NO_CHOICE = ("seed", "directory")  # keys in which runs of one recipe differ
_STORED_BY = {"edge_f1": "report", "robustness": "robustness"}  # of both, more is better
_MOST_KEYS = 12
_WIDTH = 100
_FEW_SCENES = 10  # at ten, nine in ten intervals of 95 % hold the true mean


class Row(NamedTuple):
    """One metric of one run, and its difference from the baseline: the means over images, and their intervals."""

    metric: str
    run: str
    images: int
    mean: float
    interval: Interval
    difference: float
    difference_interval: Interval

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` than the baseline, or nothing where the difference's interval holds 0."""
        low, high = self.difference_interval
        if not (low > 0 or high < 0):
            return ""
        return (
            "better"
            if (low > 0) == HIGHER_IS_BETTER.get(self.metric, self.metric.startswith(tuple(_STORED_BY)))
            else "worse"
        )


class Comparison(NamedTuple):
    """Several runs' figures under one protocol: for each metric a row for each run, the baseline's first.

    ``images`` count, and are of as many ``scenes``; ``empty`` ones have no valid pixel, and so count for no run.
    """

    protocol: str
    digest: str
    images: int
    scenes: int
    empty: int
    rows: list[Row]


def name_runs(paths: Sequence[Path]) -> list[str]:
    """Return the shortest end of each path that no other path has.

    Raises:
        InputError: If a path is there twice.

    Example:
        >>> name_runs([Path("/runs/a/0"), Path("/runs/b/0"), Path("/runs/b/1")])
        ['a/0', 'b/0', '1']
    """
    names = []
    for path in paths:
        ends = (path.parts[-length:] for length in range(1, len(path.parts) + 1))
        found = [end for end in ends if sum(other.parts[-len(end) :] == end for other in paths) == 1]
        if not found:
            raise InputError(f"{path}: given twice; name each run once")
        names.append("/".join(found[0]))
    return names


def compare(runs: Mapping[str, Run], metrics: Sequence[str], protocol: str | None = None) -> list[Comparison]:
    """Compare runs under each protocol that all of them were judged by.

    Args:
        runs: By name; the first is the baseline.
        metrics: The figures to compare.
        protocol: Only this one.

    Raises:
        InputError: If they judged different splits, data or images, or by different protocols, or lack a metric.
    """
    (first, baseline), *others = runs.items()
    for name, run in others:
        if run.split != baseline.split:
            raise InputError(f"{name} judged {run.split} and {first} {baseline.split}; compare runs of one split")
        # the digest is of all the data's content, wherever it lies; the description names the place
        digests = run.data["digest"] and baseline.data["digest"] and run.data["frames"] == baseline.data["frames"]
        for key in ("truth", "digest" if digests else "description"):
            if run.data[key] != baseline.data[key]:
                values = f"{run.data[key]} and {baseline.data[key]}"
                raise InputError(f"{name} and {first} were judged on different data: {key} {values}")
    chosen = [
        each for each in baseline.digests if protocol in (None, each) and all(each in r.digests for r in runs.values())
    ]
    if not chosen:
        had = "; ".join(f"{name} has {', '.join(run.digests)}" for name, run in runs.items())
        raise InputError(f"not all runs were judged by {protocol or 'one protocol'}: {had}")
    for each in chosen:
        for name, run in runs.items():
            _require_same_images(each, first, baseline, name, run)
            known = next(iter(run.images[each].values())).figures
            for metric in metrics:
                if metric not in known:
                    tool = next((tool for begins, tool in _STORED_BY.items() if metric.startswith(begins)), None)
                    more = f"; depthnet {tool} measures it" if tool else ""
                    raise InputError(f"--metrics: {name} has no {metric!r}; it has {', '.join(known)}{more}")
    return [_compare(runs, metrics, each) for each in chosen]


def _require_same_images(protocol: str, first: str, baseline: Run, name: str, run: Run) -> None:
    if run.digests[protocol] != baseline.digests[protocol]:
        digests = f"its digest is {run.digests[protocol]} and {baseline.digests[protocol]}"
        raise InputError(f"{name} and {first} were judged by different protocols named {protocol}: {digests}")
    ours, theirs = ({(label, image.scene) for label, image in r.images[protocol].items()} for r in (run, baseline))
    if ours != theirs:
        label, scene = min(ours ^ theirs)
        raise InputError(f"{name} and {first} judged different images: only one has {label} of {scene}, for example")


def _compare(runs: Mapping[str, Run], metrics: Sequence[str], protocol: str) -> Comparison:
    first, *_ = found = [run.images[protocol] for run in runs.values()]
    rows, most = [], np.zeros(len(first), bool)
    for metric in metrics:
        table = np.array([[under[label].figures[metric] for label in first] for under in found])
        valid = ~np.isnan(table).any(axis=0)
        most = valid if valid.sum() > most.sum() else most
        # figures and differences together, so that all are seen under the same draws of scenes
        columns = np.concatenate([table, table - table[0]])[:, valid]
        scenes = [image.scene for image, counts in zip(first.values(), valid, strict=True) if counts]
        means, intervals = [exact_mean(column) for column in columns.tolist()], bootstrap(columns.T, scenes)
        for own, name in enumerate(runs):
            paired = len(runs) + own
            figures = means[own], intervals[own], means[paired], intervals[paired]
            rows.append(Row(metric, name, len(scenes), *figures))
    judged = {image.scene for image, counts in zip(first.values(), most, strict=True) if counts}
    digest, images = next(iter(runs.values())).digests[protocol], int(most.sum())
    return Comparison(protocol, digest, images, len(judged), len(first) - images, rows)


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the keys in which configs differ, and each one's value, ``-`` where it has none.

    Seeds and directories are left out, and so is a key that repeats another (``data.augment.x`` beside ``augment.x``).

    Example:
        >>> differing_keys([{"loss.unit": "metre", "seed": 0}, {"loss.unit": "log", "seed": 1}])
        {'loss.unit': ['metre', 'log']}
    """
    found = {}
    for key in dict.fromkeys(key for config in configs for key in config):
        values = [_shown(config[key]) if key in config else "-" for config in configs]
        if len(set(values)) > 1 and key.rpartition(".")[2] not in _NO_CHOICE:
            found[key] = values

    def repeats(key: str) -> bool:
        tails = (key.split(".", cut)[-1] for cut in range(1, key.count(".") + 1))
        return any(found.get(tail) == found[key] for tail in tails)

    return {key: values for key, values in found.items() if not repeats(key)}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _document(comparisons: Sequence[Comparison], runs: Mapping[str, Run], markdown: bool, width: int | None) -> str:
    """Everything that is to be read: a table for each protocol, and how the runs were made."""
    first, baseline = next(iter(runs.items()))
    parts = []
    for each in comparisons:
        parts.append(f"{'### ' if markdown else ''}{each.protocol} (digest {each.digest})")
        limited = each.images + each.empty < baseline.expected
        counted = count_in_words(each.images, baseline.expected if limited else each.images)
        counts = f"{baseline.split}: {counted} of {each.scenes} scenes, {baseline.data['truth']} truth"
        parts.append(f"{counts}; {baseline.data['description']}")
        if each.empty:
            parts.append(f"{each.empty} images without a valid pixel are left out")
        fewer = {row.metric: row.images for row in each.rows if row.images < each.images}
        parts += [f"{metric}: of {images} images, which have one" for metric, images in fewer.items()]
        if each.scenes < _FEW_SCENES:
            parts.append(f"fewer than {_FEW_SCENES} scenes: intervals are too narrow, and one scene gives none")
        header = ["metric", "run", "figure", "95 % interval", "difference", "95 % interval", ""]
        parts.append(_table(header, _cells(each.rows, first), markdown, width, "llrrrrl"))
    parts.append(f"difference: less {first}, image by image;\nbetter or worse: where its interval excludes 0")
    sizes = {name: _shown(run.data["image_size"]) for name, run in runs.items()}
    if len(set(sizes.values())) > 1:
        parts.append("image sizes differ: " + ", ".join(f"{name} {size}" for name, size in sizes.items()))
    configs = {name: run.config for name, run in runs.items() if run.config is not None}
    rows = [[key, *values] for key, values in differing_keys(list(configs.values())).items()]
    if rows:
        parts.append(_table(["config", *configs], rows[:_MOST_KEYS], markdown, width, "l" * (1 + len(configs))))
    if len(rows) > _MOST_KEYS:
        parts.append(f"and {len(rows) - _MOST_KEYS} more keys")
    if len(configs) > 1 and not rows:
        parts.append("the configs do not differ, the seed aside")
    parts += [f"{name} has no config.yaml" for name in runs if name not in configs]
    return "\n\n".join(parts) + "\n"


def _cells(rows: Sequence[Row], first: str) -> Iterator[list[str]]:
    for row in rows:
        own = [row.run, f"{row.mean:.4f}", _ends(row.interval, ".4f")]
        paired = [f"{row.difference:+.4f}", _ends(row.difference_interval, "+.4f"), row.verdict]
        yield [row.metric, *own, "", "", "baseline"] if row.run == first else ["", *own, *paired]


def _ends(interval: Interval, form: str) -> str:
    return "" if math.isnan(interval.low) else f"[{interval.low:{form}}, {interval.high:{form}}]"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], markdown: bool, width: int | None, align: str) -> str:
    if markdown:
        rule = ["---:" if side == "r" else "---" for side in align]
        lines = [[cell.replace("|", "\\|") for cell in line] for line in (header, rule, *rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name, side in zip(header, align, strict=True):
        table.add_column(Text(name), justify="right" if side == "r" else "left", overflow="fold", no_wrap=side == "r")
    for row in rows:
        if row[0] and "r" in align:  # another metric
            table.add_section()
        table.add_row(*map(Text, row))
    text = io.StringIO()
    Console(file=text, width=width).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _csv(comparisons: Sequence[Comparison], split: str) -> str:
    """Every row, to full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = ("mean", "low", "high", "difference", "difference_low", "difference_high", "verdict")
    writer.writerow(("protocol", "digest", "split", "images", "scenes", "empty", "metric", "run", *figures))
    for each in comparisons:
        for row in each.rows:
            head = (each.protocol, each.digest, split, row.images, each.scenes, each.empty, row.metric, row.run)
            writer.writerow((*head, row.mean, *row.interval, row.difference, *row.difference_interval, row.verdict))
    return text.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("depthnet compare", description=__doc__, formatter_class=style)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's directory")
    parser.add_argument("--baseline", type=Path, metavar="RUN", help="held against the others (default: the first)")
    parser.add_argument("--protocol", metavar="NAME", help="only this one (default: all that the runs share)")
    parser.add_argument("--metrics", default=_METRICS, metavar="NAMES", help=f"with commas (default: {_METRICS})")
    parser.add_argument("--format", choices=("terminal", "markdown", "csv"), default="terminal")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there, not to the terminal")
    options = parser.parse_args(arguments)
    return finish("depthnet compare", partial(_run, options))


def _run(options: argparse.Namespace) -> int:
    text = _text(options)
    if options.output is None:
        sys.stdout.write(text)
    else:
        write_text(options.output, text)
    return 0


def _text(options: argparse.Namespace) -> str:
    found = [read_run(path) for path in options.runs]
    if options.baseline is not None:
        baseline = read_run(options.baseline)
        found = [baseline, *(run for run in found if run.path != baseline.path)]
    if len(found) < 2:
        raise InputError(f"{found[0].path}: is one run; name two or more")
    runs = dict(zip(name_runs([run.path for run in found]), found, strict=True))
    metrics = list(dict.fromkeys(options.metrics.split(",")))
    comparisons = compare(runs, metrics, options.protocol)
    if options.format == "csv":
        return _csv(comparisons, found[0].split)
    terminal = options.output is None and sys.stdout.isatty()
    return _document(comparisons, runs, options.format == "markdown", None if terminal else _WIDTH)
