"""What became of a sweep's jobs: a ranked table, and sweep.csv with a row for each.

    depthnet runs DIR

DIR is the directory of a sweep that has ended, was killed, or is under way. The jobs are ranked by the figure that they
watch, under the first protocol. The 95 % interval of a job is over scenes, as its metrics.json has it. Jobs that differ
in the seed alone stand below their mean, whose ± is the standard deviation over the seeds.

Exit code: 0, done; 1, some job has failed; 2, there is no sweep.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from depthnet.core.atomic_io import write_json, write_text
from depthnet.core.errors import error_line, finish
from depthnet.core.types import InputError
from depthnet.run.config import worst_figure
from depthnet.run.distributed import first_process
from depthnet.run.naming import job_overrides, short_keys, short_number
from depthnet.run.overrides import MULTIRUN
from depthnet.run.paths import METRICS, remove_start
from depthnet.run.signals import Signals

JOB = "job.json"
TABLE = "sweep.csv"


class Job(NamedTuple):
    """A job of a sweep as its directory tells of it.

    Attributes:
        path: Its directory.
        overrides: What it changes, by key.
        watch: The key of the figure that it is ranked by.
        status: "finished", "failed", or "unfinished": killed, stopped or at work.
        error: Why it failed.
        protocol: The first that it was judged by; empty where it is not finished.
        figures: By metric, under that protocol.
        intervals: The ends of their intervals; a metric that has none is missing.
    """

    path: Path
    overrides: dict[str, str]
    watch: str
    status: str
    error: str
    protocol: str
    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]]

    @property
    def metric(self) -> str:
        """What it is ranked by, as ``figures`` has it."""
        return self.watch.rpartition("/")[2]


@contextlib.contextmanager
def sweeping(
    arguments: Collection[str], directory: Callable[[], Path | None], also: tuple[type[BaseException], ...] = ()
) -> Iterator[None]:
    """Tell at the end of a block, however it ends, what became of the sweep that it was, if it was one.

    Args:
        arguments: The command line, which says whether this is a sweep.
        directory: Gives the sweep's directory, once its config is composed.
        also: Further kinds of error that come of what the user gave.

    Raises:
        SystemExit: With 1, if a job failed or the sweep could not go on; with 2, if it could not begin.
        Stopped: If a signal came.
    """
    asked, failed, begun, started = bool(MULTIRUN & set(arguments)), 0, True, time.time()

    try:
        with Signals() if asked else contextlib.nullcontext():
            yield
    except Exception as error:
        if not asked and directory() is None:
            raise
        # a launcher whose process was killed says so by a RuntimeError, and then all that was printed
        lost = " ".join(str(error).splitlines()[:2]) if isinstance(error, RuntimeError) else None
        line = error_line(error, (*also, OSError)) or lost
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr, flush=True)
        failed, begun = 1, lost is not None or _begun(directory())
    finally:
        path = directory()
        if _begun(path):
            failed += tell(path)
        elif path and path.is_dir():
            remove_start(path, since=started)
    if failed:
        sys.exit(1 if begun else 2)


def _begun(directory: Path | None) -> TypeGuard[Path]:
    return directory is not None and any(directory.glob(f"*/{JOB}"))


def check_job(trainer: Any, launcher: Any) -> None:
    """Refuse a sweep whose jobs would start processes, as Lightning's launcher would repeat the sweep in each.

    Args:
        trainer: The config of a job's Trainer.
        launcher: Hydra's; submitit starts a job's processes itself.

    Raises:
        InputError: If a job has more than one device, or does not say how many.
    """
    devices = trainer.get("devices", "auto")
    one = str(devices) == "1" or (not isinstance(devices, str | int) and len(devices) == 1)
    if not one and not launcher._target_.endswith(".SlurmLauncher"):
        raise InputError(
            f"trainer.devices={devices}: a job of a sweep is one process, so write trainer.devices=1; several need "
            f"hydra/launcher=submitit_slurm, with hydra.launcher.tasks_per_node as many"
        )


def note_start(cfg: Any, directory: Path, overrides: Sequence[str]) -> None:
    """Note that a sweep's job is at work, before anything can go wrong, and let it go on by itself if it began before.

    Args:
        cfg: As composed; changed in place.
        directory: The job's.
        overrides: Hydra's.
    """
    if first_process():
        own = job_overrides(overrides)
        if (directory / JOB).exists() and sorted(_note(directory / JOB)["overrides"]) != sorted(own):
            raise InputError(f"{directory} is another job's; give this sweep a hydra.sweep.dir of its own")
        write_json(directory / JOB, {"overrides": own, "watch": cfg.watch, "error": None})
    cfg.resume = cfg.resume or "auto"
    if multiprocessing.get_start_method(allow_none=True) == "loky":  # joblib's, which starts no loader's workers
        multiprocessing.set_start_method(None, force=True)


def note_end(directory: Path, outcome: float | str) -> float:
    """Note how a job ended that :func:`note_start` knows, and return what its sweeper is told.

    Args:
        directory: The job's.
        outcome: The figure that it is ranked by, or why there is none.

    Returns:
        The figure; where there is no finite one, the worst, so that a sampler keeps away and the sweep goes on.
    """
    path = directory / JOB
    noted = _note(path)
    if not isinstance(outcome, str) and not math.isfinite(outcome):
        outcome = f"{noted['watch']} is {outcome}"
    if first_process():
        write_json(path, noted | {"error": outcome if isinstance(outcome, str) else None})
    return worst_figure(noted["watch"]) if isinstance(outcome, str) else outcome


def read_jobs(directory: Path) -> list[Job]:
    """Return the jobs of a sweep, whatever became of them.

    Raises:
        InputError: If there are none, or the files of one cannot be read.
    """
    paths = sorted(directory.glob(f"*/{JOB}"))
    if not paths:
        raise InputError(f"{directory}: no sweep there (looked for */{JOB}); name the directory of a sweep")
    return [_read_job(path) for path in paths]


def _note(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8", errors="surrogateescape")))


def _read_job(path: Path) -> Job:
    judged = path.with_name(METRICS)
    try:
        noted = _note(path)
        overrides = {key: value for key, _, value in (word.partition("=") for word in noted["overrides"])}
        error, protocol, figures, intervals = noted["error"], "", {}, {}
        if judged.exists() and not error:
            path = judged
            content = json.loads(judged.read_text(encoding="utf-8", errors="surrogateescape"))
            protocol, found = next(iter(content["protocols"].items()))
            figures = {name: math.nan if value is None else float(value) for name, value in found.items()}
            ends = content["intervals"][protocol]
            intervals = {name: (float(low), float(high)) for name, (low, high) in ends.items() if low is not None}
        status = "failed" if error else "finished" if figures else "unfinished"
        job = Job(path.parent, overrides, str(noted["watch"]), status, error or "", protocol, figures, intervals)
        if figures and job.metric not in figures:
            raise LookupError(job.metric)
        return job
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError):
        raise InputError(f"{path}: cannot be read; remove the job's directory, and the sweep does it again") from None


def tell(directory: Path) -> int:
    """Write a sweep's ``sweep.csv`` and print its table.

    Returns:
        How many jobs have failed.

    Raises:
        InputError: As :func:`read_jobs`, or if the file cannot be written.
    """
    jobs = read_jobs(directory)
    write_text(directory / TABLE, _csv(jobs))
    found = {status: [job for job in jobs if job.status == status] for status in ("finished", "failed", "unfinished")}
    for watch in dict.fromkeys(job.watch for job in found["finished"]):
        Console().print(_table([job for job in found["finished"] if job.watch == watch]))
    failures: dict[str, list[str]] = {}
    for job in found["failed"]:
        failures.setdefault(job.error, []).append(job.path.name)
    for error, names in failures.items():
        print(f"failed: {' '.join(names)}: {error}")
    counts = ", ".join(f"{len(some)} {status}" for status, some in found.items() if some)
    print(f"sweep: {directory / TABLE}: {counts}", flush=True)
    if len(found["failed"]) == len(jobs):
        print(f"error: every job of the sweep has failed: {next(iter(failures))}", file=sys.stderr)
    elif len(found["finished"]) < len(jobs):
        again = ", and tries again what failed" if failures else ""
        print(f"the same command with hydra.sweep.dir={directory} goes on{again}", flush=True)
    return len(found["failed"])


def _table(jobs: Sequence[Job]) -> Table:
    """Finished jobs that watch one figure, best first; of those that differ in the seed alone the mean, then each."""
    watch, metric = jobs[0].watch, jobs[0].metric
    groups: dict[tuple[str, ...], list[Job]] = {}
    keys = list(dict.fromkeys(key for job in jobs for key in job.overrides if key != "seed"))
    keys = [key for key in keys if len({job.overrides.get(key) for job in jobs}) > 1]
    for job in jobs:
        groups.setdefault(tuple(job.overrides.get(key, "") for key in keys), []).append(job)
    means = {choices: statistics.fmean(job.figures[metric] for job in group) for choices, group in groups.items()}
    protocols = ", ".join(dict.fromkeys(job.protocol for job in jobs))
    table = Table(title=Text(f"by {watch}, {protocols}"), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("", metric, "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in short_keys(keys):
        table.add_column(Text(name.replace("_", "_\n")), overflow="fold")
    seeds = len({job.overrides.get("seed", "") for job in jobs}) > 1
    for name in [*["seed"] * seeds, "job"]:
        table.add_column(name, overflow="fold")
    best_first = sorted(groups, key=lambda choices: means[choices], reverse=worst_figure(watch) == 0)
    for place, choices in enumerate(best_first, 1):
        group, values = groups[choices], [Text(short_number(value)) for value in choices]
        head = [str(place), f"{means[choices]:.4f}"]
        if len(group) > 1:
            spread = statistics.stdev(job.figures[metric] for job in group)
            table.add_row(*head, f"± {spread:.4f}", *values, f"{len(group)} seeds")
            head, values = ["", ""], [Text("")] * len(keys)
        for job in sorted(group, key=lambda job: (len(job.overrides.get("seed", "")), job.overrides.get("seed", ""))):
            ends = job.intervals.get(metric)
            interval = f"[{ends[0]:.4f}, {ends[1]:.4f}]" if ends else ""
            own = [head[0], f"{job.figures[metric]:.4f}", interval]
            named = [*[job.overrides.get("seed", "")] * seeds, job.path.name]
            table.add_row(*own, *values, *named, style="dim" * (len(group) > 1))
    return table


def _csv(jobs: Sequence[Job]) -> str:
    """Every job, to full precision."""
    keys = list(dict.fromkeys(key for job in jobs for key in job.overrides))
    names = list(dict.fromkeys(name for job in jobs for name in job.figures))
    watched = list(dict.fromkeys(job.metric for job in jobs))
    sides = [f"{metric}_{side}" for metric in watched for side in ("low", "high")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("job", "status", "error", *keys, "protocol", *names, *sides))
    for job in jobs:
        chosen = [job.overrides.get(key, "") for key in keys]
        figures = [repr(job.figures[name]) if name in job.figures else "" for name in names]
        pairs = [[*map(repr, job.intervals[name])] if name in job.intervals else ["", ""] for name in watched]
        writer.writerow((job.path.name, job.status, job.error, *chosen, job.protocol, *figures, *chain(*pairs)))
    return text.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("depthnet runs", description=__doc__, formatter_class=style)
    parser.add_argument("directory", type=Path, metavar="DIR", help="a sweep's directory")
    options = parser.parse_args(arguments)
    return finish("depthnet runs", partial(_run, options.directory))


def _run(directory: Path) -> int:
    return int(tell(directory) > 0)
