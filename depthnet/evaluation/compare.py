"""Put evaluated runs side by side: metrics with intervals, and each run's differences from the first, image by image.

    depthnet compare RUN RUN...
    depthnet compare RUN RUN... --metrics delta1,abs_rel --format markdown --output comparison.md

A RUN is a run's directory; all must have been evaluated on the same images. --metrics may also name edge_f1, the
sharpness of depth boundaries, which `depthnet report` stores; and, of what `depthnet robustness` stores: robustness,
which is how far delta1 changes when images are corrupted; robustness_light, the same in varying light; and
robustness_dark and its like.

Intervals are of 95 %, by bootstrap over scenes. A difference is a run's metric minus the first one's, per image, so
that what makes an image hard cancels: runs can differ clearly though their own intervals overlap. A run is called
better or worse only where the interval of its difference excludes 0.

Exit code: 0, done; 2, the runs cannot be compared.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from depthnet.core.atomic_io import write_text
from depthnet.core.errors import run_tool, tool_parser
from depthnet.core.tables import WIDTH, Table, count_in_words, interval_in_words, to_csv
from depthnet.core.types import HIGHER_IS_BETTER, InputError
from depthnet.evaluation.bootstrap import bootstrap
from depthnet.run.arguments import written
from depthnet.run.files import Run, exact_mean, flatten, read_run

_METRICS = "delta1,delta2,delta3,abs_rel,rmse,log10"
_NO_CHOICE = ("seed", "directory")  # keys in which runs of one recipe differ
_FEW_SCENES = 10  # at ten, nine in ten intervals of 95 % hold the true mean


class Row(NamedTuple):
    """One metric of one run under one protocol, and its difference from the first run; as CSV holds it.

    ``mean`` and ``difference`` are over ``images`` of ``scenes``, of which all runs have the metric; their 95 %
    intervals follow, NaN where there is one scene. ``empty`` images have none. ``verdict`` is ``better`` or ``worse``
    where the difference's interval excludes 0, else nothing.
    """

    protocol: str
    digest: str
    split: str
    images: int
    scenes: int
    empty: int
    metric: str
    run: str
    mean: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    verdict: str


def compare(runs: Mapping[str, Run], metrics: Sequence[str], protocol: str | None = None) -> list[Row]:
    """Compare runs under each protocol that all of them were evaluated by.

    Args:
        runs: By name; the others are compared with the first.
        metrics: The metrics to compare.
        protocol: Only this one.

    Returns:
        By protocol and metric, a row for each run.

    Raises:
        InputError: If the runs are of different splits, data, images or protocols, or lack a metric.
    """
    first, baseline = next(iter(runs.items()))
    for name, run in runs.items():
        data, other = run.metrics["data"], baseline.metrics["data"]
        # the digest is of all the data's content, wherever it lies; the description names the place
        digests = data.get("digest") and other.get("digest") and data.get("frames") == other.get("frames")
        kind = "digest" if digests else "description"
        _require_same(first, name, "splits", baseline.metrics["split"], run.metrics["split"])
        _require_same(first, name, "ground truth", other.get("ground_truth"), data.get("ground_truth"))
        _require_same(first, name, "data", other.get(kind), data.get(kind))
    shared = [each for each in baseline.rows if protocol in (None, each) and all(each in r.rows for r in runs.values())]
    if not shared:
        known = "; ".join(f"{name} has {', '.join(run.rows)}" for name, run in runs.items())
        raise InputError(f"not all runs were evaluated by {protocol or 'one protocol'}: {known}")
    common = {each: _shared_metrics(runs, each) for each in shared}
    for metric in metrics:
        if not any(metric in names for names in common.values()):
            names = ", ".join(common[shared[0]])
            more = "depthnet report measures edge_f1, depthnet robustness measures robustness"
            raise InputError(f"--metrics: not all runs have {metric!r}; they have {names}; {more}")
    return [row for each in shared for row in _compare(runs, [name for name in metrics if name in common[each]], each)]


def _shared_metrics(runs: Mapping[str, Run], protocol: str) -> list[str]:
    first, *others = (next(iter(run.rows[protocol].values())).figures for run in runs.values())
    return [name for name in first if all(name in other for other in others)]


def _require_same(first: str, name: str, what: str, theirs: Any, own: Any) -> None:
    if own != theirs:
        raise InputError(f"{name} and {first} were evaluated on different {what}: {own} and {theirs}")


def _compare(runs: Mapping[str, Run], metrics: Sequence[str], protocol: str) -> list[Row]:
    first, baseline = next(iter(runs.items()))
    digest, split = baseline.metrics["digests"].get(protocol, ""), baseline.metrics["split"]
    images = [{(i.label, i.scene): i.figures for i in run.rows[protocol].values()} for run in runs.values()]
    for (name, run), own in zip(runs.items(), images, strict=True):
        _require_same(first, name, f"protocols named {protocol}", digest, run.metrics["digests"].get(protocol, ""))
        lacks, adds = sorted(images[0].keys() - own.keys()), sorted(own.keys() - images[0].keys())
        _require_same(first, name, "images, for example", lacks[:1], adds[:1])
    rows = []
    for metric in metrics:
        table = np.array([[own[key][metric] for key in images[0]] for own in images])
        valid = ~np.isnan(table).any(axis=0)
        scenes = [scene for (_, scene), counts in zip(images[0], valid, strict=True) if counts]
        # metrics and differences together, so that all have the same draws of scenes
        columns = np.concatenate([table, table - table[0]])[:, valid]
        figures = list(zip(map(exact_mean, columns.tolist()), bootstrap(columns.T, scenes), strict=True))
        counts = len(scenes), len(set(scenes)), int((~valid).sum())
        for name, (mean, ends), (difference, (low, high)) in zip(runs, figures, figures[len(runs) :], strict=False):
            verdict = ""
            if low > 0 or high < 0:
                verdict = "better" if (low > 0) == HIGHER_IS_BETTER.get(metric, True) else "worse"
            about = (protocol, digest, split, *counts, metric, name)
            rows.append(Row(*about, mean, *ends, difference, low, high, verdict))
    return rows


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the keys in which configs differ, and each one's value, ``-`` where it has none.

    Seeds and directories are left out, and so is a key that repeats another (``data.augment.x`` beside ``augment.x``).

    Example:
        >>> differing_keys([{"loss": {"unit": "meter"}, "seed": 0}, {"loss": {"unit": "log"}, "seed": 1}])
        {'loss.unit': ['meter', 'log']}
    """
    flat = [dict(flatten(config)) for config in configs]
    found = {}
    for key in dict.fromkeys(key for config in flat for key in config):
        values = [written(config[key]) if key in config else "-" for config in flat]
        if len(set(values)) > 1 and key.rpartition(".")[2] not in _NO_CHOICE:
            found[key] = values
    return {
        key: values
        for key, values in found.items()
        if not any(key.endswith(f".{other}") and values == found[other] for other in found)
    }


def _document(rows: Sequence[Row], runs: Mapping[str, Run], show: Callable[[Table], str], heading: str) -> str:
    """The text of a comparison: a table for each protocol, and how the configs differ."""
    first, baseline = next(iter(runs.items()))
    data, parts = baseline.metrics["data"], []
    for protocol in dict.fromkeys(row.protocol for row in rows):
        some = [row for row in rows if row.protocol == protocol]
        most = max(some, key=lambda row: row.images)
        counts = count_in_words(most.images + most.empty, baseline.metrics["expected"])
        parts.append(f"{heading}{protocol} (digest {most.digest})")
        parts.append(
            f"{most.split}: {counts} of {most.scenes} scenes, {data.get('ground_truth')} ground truth; "
            f"{data['description']}"
        )
        for empty in sorted({row.empty for row in some} - {0}):
            lacking = ", ".join(dict.fromkeys(row.metric for row in some if row.empty == empty))
            parts.append(f"{empty} images without a value in some run are left out: {lacking}")
        if most.scenes < _FEW_SCENES:
            parts.append(f"fewer than {_FEW_SCENES} scenes: intervals are too narrow, and one scene gives none")
        parts.append(show(_figures(some, first)))
    parts.append(f"difference: run minus {first}, per image;\nbetter or worse: where its interval excludes 0")
    table = Table(("config", *runs), "l" * (1 + len(runs)))
    for key, values in differing_keys([run.config for run in runs.values()]).items():
        table.add(key, *values)
    parts.append(show(table) if table.sections else "the configs differ only in the seed")
    return "\n\n".join(parts) + "\n"


def _figures(rows: Sequence[Row], first: str) -> Table:
    """The table of one protocol: for each metric a section, a row for each run."""
    table = Table(("metric", "run", "figure", "95 % interval", "difference", "95 % interval", ""), "llrrrrl")
    for row in rows:
        own = interval_in_words(row.low, row.high)
        change = interval_in_words(row.difference_low, row.difference_high, "+.4f")
        if row.run == first:
            table.section()
            table.add(row.metric, row.run, row.mean, own, "", "", "baseline")
        else:
            table.add("", row.run, row.mean, own, f"{row.difference:+.4f}", change, row.verdict)
    return table


def name_runs(paths: Sequence[Path]) -> list[str]:
    """Return each path below the folder that holds them all.

    Raises:
        InputError: If it is one path, or one is there twice.

    Example:
        >>> name_runs([Path("/runs/a/0"), Path("/runs/b/0")])
        ['a/0', 'b/0']
    """
    if len(paths) < 2 or len(set(paths)) < len(paths):
        raise InputError(f"{' '.join(map(str, paths))}: name two runs or more, each once")
    return [path.relative_to(os.path.commonpath(paths)).as_posix() for path in paths]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = tool_parser("compare", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's directory")
    parser.add_argument("--protocol", metavar="NAME", help="only this one (default: all that the runs share)")
    parser.add_argument("--metrics", default=_METRICS, metavar="NAMES", help=f"with commas (default: {_METRICS})")
    parser.add_argument("--format", choices=("terminal", "markdown", "csv"), default="terminal")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there, not to the terminal")
    return run_tool(parser, arguments, _run)


def _run(options: argparse.Namespace) -> int:
    paths = [path.resolve() for path in options.runs]
    runs = dict(zip(name_runs(paths), (read_run(path, measured=True) for path in paths), strict=True))
    rows = compare(runs, list(dict.fromkeys(options.metrics.split(","))), options.protocol)
    if options.format == "csv":
        text = to_csv(row._asdict() for row in rows)
    elif options.format == "markdown":
        text = _document(rows, runs, Table.markdown, "### ")
    else:
        terminal = options.output is None and sys.stdout.isatty()
        text = _document(rows, runs, partial(Table.text, width=None if terminal else WIDTH), "")
    if options.output is None:
        sys.stdout.write(text)
    else:
        write_text(options.output, text)
    return 0
