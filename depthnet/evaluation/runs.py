"""The runs of a folder, or the jobs of a sweep: a table, best first.

    depthnet runs DIR

DIR is any folder that holds runs, or the directory of a sweep that has ended, was killed, or is running. Runs are
ranked by the metric that they watch, under their first protocol; those of other data, splits or protocols have another
table. The 95 % interval is over scenes, as metrics.json has it. Runs that differ in the seed alone make one row:
their mean, and ± the standard deviation over the seeds. A sweep's sweep.csv is written anew, a row for each job.

Exit code: 0, done; 1, some job has failed; 2, there are no runs.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from depthnet.core.atomic_io import write_text
from depthnet.core.errors import run_tool, tool_parser
from depthnet.core.tables import Table, interval_in_words, to_csv
from depthnet.core.types import HIGHER_IS_BETTER, InputError
from depthnet.run.files import JOB, METRICS, RECORD, read_config, read_json, read_metrics, read_record, reading
from depthnet.run.naming import job_overrides, short_keys, short_number

SWEEP = "sweep.csv"


@dataclass(frozen=True)
class Entry:
    """A run of a folder: finished, failed or unfinished.

    Attributes:
        path: Its directory.
        overrides: What it changes, by key.
        metric: What it is ranked by.
        error: Why it failed, or cannot be read.
        title: What was evaluated; runs of one title are ranked together. Empty where it is not finished.
        protocol: The first that it was evaluated by.
        seed: Its seed.
        figures: By metric, under that protocol.
        interval: Of what it is ranked by; NaN where there is none.
    """

    path: Path
    overrides: dict[str, str] = field(default_factory=dict)
    metric: str = ""
    error: str | None = None
    title: str = ""
    protocol: str = ""
    seed: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    interval: tuple[float, float] = (math.nan, math.nan)

    @property
    def status(self) -> str:
        """Its state; an unfinished run was killed, was stopped or is running."""
        return "failed" if self.error else "finished" if self.figures else "unfinished"


def read_runs(directory: Path) -> list[Entry]:
    """Return the runs in a folder and below it, in any state.

    Raises:
        InputError: If there are none.
    """
    paths = sorted({path.parent for name in (METRICS, RECORD, JOB) for path in directory.rglob(name)})
    if not paths:
        raise InputError(f"{directory}: no runs there; name a folder that holds some, or the directory of a sweep")
    return [_read_entry(path) for path in paths]


def _read_entry(path: Path) -> Entry:
    try:
        if (path / JOB).exists():
            job = read_json(path / JOB)
        else:
            overrides = job_overrides(read_record(path).get("overrides", []))
            job = {"overrides": overrides, "watch": read_config(path)["watch"], "error": None}
        metric = str(job["watch"]).rpartition("/")[2]
        entry = Entry(path, dict(word.partition("=")[::2] for word in job["overrides"]), metric, job["error"])
        if entry.error or not (path / METRICS).exists():
            return entry
        metrics = read_metrics(path)
        protocol, figures = next(iter(metrics["protocols"].items()))
        with reading(path / METRICS):
            title = f"by {metrics['split']}/{metric}, {protocol}: {metrics['data']['description']}"
            low, high = (math.nan if end is None else float(end) for end in metrics["intervals"][protocol][metric])
            return replace(
                entry, title=title, protocol=protocol, seed=str(metrics["seed"]), figures=figures, interval=(low, high)
            )
    except InputError as error:
        return Entry(path, error=str(error))


def print_runs(directory: Path) -> int:
    """Print the tables of a folder's runs, and write ``sweep.csv`` where they are a sweep's jobs.

    Returns:
        How many have failed.

    Raises:
        InputError: As :func:`read_runs`, or if the file cannot be written.
    """
    entries = read_runs(directory)
    found = {status: [e for e in entries if e.status == status] for status in ("finished", "failed", "unfinished")}
    for title in dict.fromkeys(entry.title for entry in found["finished"]):
        _rank([entry for entry in found["finished"] if entry.title == title], directory).print()
    failed = found["failed"]
    for error in dict.fromkeys(entry.error for entry in failed):
        print(f"failed: {' '.join(entry.path.name for entry in failed if entry.error == error)}: {error}")
    print(f"runs: {directory}: {', '.join(f'{len(some)} {status}' for status, some in found.items() if some)}")
    if any(directory.glob(f"*/{JOB}")):
        write_text(directory / SWEEP, to_csv(map(_line, entries)))
        if len(failed) == len(entries):
            print(f"error: every job of the sweep has failed: {failed[0].error}", file=sys.stderr)
        elif len(found["finished"]) < len(entries):
            again = ", and retries what failed" if failed else ""
            print(f"the same command with hydra.sweep.dir={directory} resumes{again}")
    sys.stdout.flush()
    return len(failed)


def _rank(entries: Sequence[Entry], directory: Path) -> Table:
    """Runs of one title, best first; those that differ in the seed alone in one row, by their mean."""
    keys = list(dict.fromkeys(key for entry in entries for key in entry.overrides if key != "seed"))
    keys = [key for key in keys if len({entry.overrides.get(key) for entry in entries}) > 1]
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(tuple(entry.overrides.get(key, "") for key in keys), []).append(entry)
    metric = entries[0].metric
    columns = ("", metric, "95 % interval", *short_keys(keys), "seed", "run")
    table = Table(columns, f"rrr{'l' * (len(keys) + 2)}", entries[0].title)
    means = {choices: statistics.fmean(entry.figures[metric] for entry in group) for choices, group in groups.items()}
    for place, choices in enumerate(sorted(means, key=means.__getitem__, reverse=HIGHER_IS_BETTER[metric]), 1):
        group, interval = groups[choices], interval_in_words(*groups[choices][0].interval)
        if len(group) > 1:
            interval = f"± {statistics.stdev(entry.figures[metric] for entry in group):.4f}"
        seeds = "\n".join(entry.seed for entry in group)
        names = "\n".join(entry.path.relative_to(directory).as_posix() for entry in group)
        table.add(str(place), means[choices], interval, *map(short_number, choices), seeds, names)
    return table


def _line(entry: Entry) -> dict[str, Any]:
    """A run's row in ``sweep.csv``."""
    line = {"job": entry.path.name, "status": entry.status, "error": entry.error, **entry.overrides}
    ends = dict(zip((f"{entry.metric}_low", f"{entry.metric}_high"), entry.interval, strict=True))
    return line | ({"protocol": entry.protocol, **entry.figures, **ends} if entry.figures else {})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = tool_parser("runs", __doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="a folder of runs, or a sweep's directory")
    return run_tool(parser, arguments, lambda options: int(print_runs(options.directory) > 0))
