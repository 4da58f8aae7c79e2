"""Start and end of a sweep and of its jobs; the outcome of each job is stored in its ``job.json``."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from depthnet.core.atomic_io import write_json
from depthnet.core.errors import error_line
from depthnet.core.types import InputError
from depthnet.evaluation.runs import print_runs
from depthnet.run.config import worst_figure
from depthnet.run.distributed import first_process
from depthnet.run.files import JOB, read_json
from depthnet.run.naming import job_overrides
from depthnet.run.overrides import MULTIRUN
from depthnet.run.paths import remove_start
from depthnet.run.signals import Signals


@contextlib.contextmanager
def sweeping(
    arguments: Collection[str], directory: Callable[[], Path | None], also: tuple[type[BaseException], ...] = ()
) -> Iterator[None]:
    """Report the results of a sweep at the end of a block, however it ends; other blocks are left alone.

    Args:
        arguments: The command line; -m or --multirun makes it a sweep.
        directory: Gives the sweep's directory, once its config is composed.
        also: Further kinds of error that come of what the user gave.

    Raises:
        SystemExit: With 1, if a job failed or the sweep could not continue; with 2, if it could not start.
        Stopped: If a signal came.
    """
    sweeps, failed, ran, started = bool(MULTIRUN & set(arguments)), 0, True, time.time()

    try:
        with Signals() if sweeps else contextlib.nullcontext():
            yield
    except Exception as error:
        if not sweeps and directory() is None:
            raise
        # a launcher whose process was killed says so by a RuntimeError, and then all that was printed
        lost = " ".join(str(error).splitlines()[:2]) if isinstance(error, RuntimeError) else None
        line = error_line(error, (*also, OSError)) or lost
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr, flush=True)
        failed, ran = 1, lost is not None or _has_jobs(directory())
    finally:
        path = directory()
        if _has_jobs(path):
            failed += print_runs(path)
        elif path and path.is_dir():
            remove_start(path, since=started)
    if failed:
        sys.exit(1 if ran else 2)


def _has_jobs(directory: Path | None) -> TypeGuard[Path]:
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
    """Store that a sweep's job runs, before anything can fail, and let a job that was started before resume.

    Args:
        cfg: As composed; changed in place.
        directory: The job's.
        overrides: Hydra's.
    """
    if first_process():
        own = job_overrides(overrides)
        if (directory / JOB).exists() and sorted(read_json(directory / JOB)["overrides"]) != sorted(own):
            raise InputError(f"{directory} is another job's; give this sweep another hydra.sweep.dir")
        write_json(directory / JOB, {"overrides": own, "watch": cfg.watch, "error": None})
    cfg.resume = cfg.resume or "auto"
    if multiprocessing.get_start_method(allow_none=True) == "loky":  # joblib's, which starts no loader's workers
        multiprocessing.set_start_method(None, force=True)


def note_end(directory: Path, outcome: float | str) -> float:
    """Store how a job ended that :func:`note_start` has stored, and return its figure for the sweeper.

    Args:
        directory: The job's.
        outcome: The figure that it is ranked by, or why there is none.

    Returns:
        The figure; where there is no finite one, the worst, so that a sampler keeps away and the sweep continues.
    """
    path = directory / JOB
    noted = read_json(path)
    if not isinstance(outcome, str) and not math.isfinite(outcome):
        outcome = f"{noted['watch']} is {outcome}"
    if first_process():
        write_json(path, noted | {"error": outcome if isinstance(outcome, str) else None})
    return worst_figure(noted["watch"]) if isinstance(outcome, str) else outcome
