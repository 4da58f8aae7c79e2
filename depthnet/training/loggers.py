"""Loggers that never stop a run: one that fails or hangs leaves a line, and training continues without it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning_utilities.core.rank_zero import rank_zero_only

from depthnet.core.atomic_io import write_text
from depthnet.core.deadline import within
from depthnet.evaluation.metrics import METRIC_NAMES
from depthnet.run.files import update_record

log = logging.getLogger("depthnet")

_Word = str | float | None  # a config reads a name such as 1 as a number
_CALL = 30.0  # seconds, beside those that W&B allows itself
_TEARDOWN = 3.0  # seconds
_ROOM = 2**20  # bytes
_STEP = "trainer/global_step"  # Lightning's name for the step of a row
_GUARDED = (
    "log_metrics",
    "log_hyperparams",
    "log_image",
    "log_table",
    "log_summary",
    "after_save_checkpoint",
    "save",
    "finalize",
    "finish",
)


class WandbRun(WandbLogger):
    """Lightning's W&B logger, whose rows have the run's own steps.

    W&B drops rows of steps that it has: a resumed run that takes some again shows each once.
    """

    log_per_image = False
    """Whether the last evaluation becomes a table, a row an image."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log metrics of a step; the averages over an epoch are the last of it.

        Raises:
            OSError: If the disk is full, since W&B would drop what it cannot write without a message.
        """
        if shutil.disk_usage(self.experiment.dir).free < _ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        row = {**metrics} if step is None else {**metrics, _STEP: step}
        self.experiment.log(row, step=step, commit="train/loss" in metrics or None)

    def log_summary(self, figures: Mapping[str, float]) -> None:
        """Log figures of the run as a whole."""
        self.experiment.summary.update(dict(figures))

    def finish(self, status: str) -> None:
        """End the run, so that the next job of a sweep starts a new one."""
        self.experiment.finish(exit_code=int(status != "success"))


def guard(logger: Logger) -> Logger:
    """Keep the calls of a logger from raising and from hanging, in place.

    Each call may take half a minute, and W&B's last one ``finish_timeout`` besides. After the first that fails there is
    a warning, and no further call does anything.
    """
    kind = "W&B" if isinstance(logger, WandbRun) else type(logger).__name__
    failures: list[str] = []

    def guarded(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:
            if failures:
                return None
            seconds = _CALL
            if isinstance(logger, WandbRun) and name == "finish":
                seconds += logger.experiment.settings.finish_timeout
            try:
                return within(seconds, partial(call, *args, **kwargs))
            except (Exception, SystemExit) as error:
                if failures:  # in a call that this one made
                    return None
                failures.append(name)
                advice = ""
                if isinstance(logger, WandbRun):
                    folder = Path(logger.experiment.dir).parent
                    advice = f"; to send what W&B has of it: wandb sync {folder}"
                    _leave_wandb()
                log.warning(
                    f"{kind}: {name} failed ({_one_line(error)}); the run continues without it, and history.csv and "
                    f"metrics.json are written all the same{advice}"
                )

        return method

    for name in _GUARDED:
        if hasattr(logger, name):
            setattr(logger, name, guarded(name, getattr(logger, name)))
    return logger


def make_loggers(configured: Any) -> list[Logger]:
    """Guard what a config names as loggers: none, one, or several by name."""
    several = list(configured.values()) if isinstance(configured, Mapping) else [configured]
    return [guard(logger) for logger in several if logger]


def wandb_runs(trainer: Trainer) -> list[WandbRun]:
    """Return the loggers of a trainer that take pictures, histograms, tables and a summary."""
    return [logger for logger in trainer.loggers if isinstance(logger, WandbRun)]


def last_step(trainer: Trainer) -> int:
    """Return the step of the last row that Lightning has logged, which counts them from 0; in a test, the next one."""
    return trainer.global_step if trainer.testing else max(trainer.global_step - 1, 0)


def step_taken(trainer: Trainer, batch_idx: int) -> bool:
    """Return whether a training batch was the last one of an optimizer step, for ``on_train_batch_end``."""
    return trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def logs_step(trainer: Trainer, batch_idx: int) -> bool:
    """Return whether a training batch ended an optimizer step that is logged (``trainer.log_every_n_steps``)."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning's type leaves it out
    return step_taken(trainer, batch_idx) and trainer.global_step % every == 0


@contextlib.contextmanager
def logged(loggers: Sequence[Logger], config: dict[str, Any]) -> Iterator[None]:
    """Log a run's config, and end the loggers' runs, so that the next job of a sweep starts new ones."""
    status = "failed"
    try:
        for logger in loggers:
            logger.log_hyperparams(config)
        yield
        status = "success"
    finally:
        for logger in loggers:
            logger.finalize(status)
            if isinstance(logger, WandbRun):
                logger.finish(status)


def wandb_logger(
    directory: str | os.PathLike[str],
    project: _Word = None,
    entity: _Word = None,
    name: _Word = None,
    group: _Word = None,
    job_type: _Word = None,
    tags: Sequence[_Word] | _Word = None,
    notes: _Word = None,
    init_timeout: float = 10.0,
    finish_timeout: float = 20.0,
    log_model: bool = False,
    log_per_image: bool = False,
) -> Logger | None:
    """Make a W&B logger: online if an account is set up and its server answers, else offline.

    Its run's id is kept in the directory, so that a run which is resumed there is the same run in W&B. The address of
    an online run is printed, and kept in ``run.json``.

    Args:
        directory: The run's directory; W&B's files go into its folder ``wandb``.
        project: The W&B project; None for ``WANDB_PROJECT``, else "depthnet".
        entity, name, group, job_type, tags, notes: As ``wandb.init``.
        init_timeout: How long the server may take at the start [s].
        finish_timeout: How long it may take to send the rest at the end [s].
        log_model: Whether the best checkpoint becomes an artifact.
        log_per_image: Whether the last evaluation becomes a table, a row an image.

    Returns:
        The logger; None for all processes but the first, and, with a line that says why, where W&B cannot start at all.
    """
    if getattr(rank_zero_only, "rank", 0):
        return None
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else a server that hangs delays the exit by ten seconds
    import wandb

    settings = wandb.Settings(
        console="off",  # a run that prints must not wait for W&B
        init_timeout=init_timeout,
        finish_timeout=finish_timeout,
        finish_timeout_raises=True,
        reinit="finish_previous",  # of an earlier job of a sweep that failed at its start
    )
    project = project or os.environ.get("WANDB_PROJECT") or "depthnet"
    words = {"project": project, "entity": entity, "name": name, "group": group, "job_type": job_type, "notes": notes}
    options: dict[str, Any] = {key: None if value is None else str(value) for key, value in words.items()}
    labels = [tags] if isinstance(tags, str | int | float) else tags or ()  # else each letter of a word is a tag

    def start(mode: Any) -> WandbRun:
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("no account is set up")
        identity = _run_id(Path(directory))
        run = wandb.init(
            dir=str(directory),
            id=identity,
            mode=mode,
            resume="allow",
            settings=settings,
            tags=[*map(str, labels)],
            **options,
        )
        run.define_metric("*", step_metric=_STEP)
        run.define_metric("train/*", step_metric="epoch")
        for name in METRIC_NAMES:  # the summary gets the best of all epochs, not the last one
            run.define_metric(f"val/{name}", step_metric="epoch", summary="none")
        # an artifact's file stays where it is instead of being copied to W&B's folder in the user's home
        known = {"save_dir": str(directory), "id": identity, "experiment": run}
        return WandbRun(log_model=log_model, add_file_policy="immutable", **known)

    problem = ""
    for mode in dict.fromkeys([os.environ.get("WANDB_MODE") or "online", "offline"]):
        try:
            logger = within(_CALL + init_timeout, partial(start, mode))
        except (Exception, SystemExit) as error:
            problem = _one_line(error)
            _leave_wandb()
            continue
        if problem:
            log.info(f"W&B: offline, {problem}; to send this run later: wandb sync {directory}/wandb/offline-run-*")
        elif url := logger.experiment.url:
            print(f"wandb: {url}", flush=True)
            update_record(directory, url=url)
        logger.log_per_image = log_per_image
        return logger
    log.warning(f"W&B: cannot start ({problem}); the run continues without it")
    return None


def _run_id(directory: Path) -> str:
    path = directory / "wandb" / "id"
    if not path.exists():
        # under `wandb agent` the sweep knows its run by an id already
        given = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
        write_text(path, given or secrets.token_hex(4))
    return path.read_text().strip()


def _leave_wandb() -> None:
    """End W&B's own process, or leave it where it hangs, so that nothing waits for it at exit."""
    import wandb

    with contextlib.suppress(Exception):
        within(_TEARDOWN, wandb.teardown)
    wandb.run = None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
