"""Loggers that never stop a run: one that fails or hangs leaves a line, and training goes on without it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from lightning import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning_utilities.core.rank_zero import rank_zero_only

from depthnet.core.atomic_io import write_text
from depthnet.core.types import InputError
from depthnet.evaluation.metrics import METRIC_NAMES
from depthnet.run.provenance import note_url

log = logging.getLogger("depthnet")

_T = TypeVar("_T")
_Word = str | float | None  # a config reads a name such as 1 as a number
_CALL = 30.0  # seconds, beside those that W&B allows itself
_TEARDOWN = 3.0  # seconds
_ROOM = 2**20  # bytes
_STEP = "trainer/global_step"  # Lightning's name for the step of a row


class WandbRun(WandbLogger):
    """Lightning's W&B logger, whose rows have the run's own steps.

    W&B drops rows of steps that it has: a resumed run that takes some again shows each once.

    Args:
        run: What ``wandb.init`` gave.
        directory: The run's directory.
        log_model: Whether the best checkpoint becomes an artifact.
        log_per_image: Whether :meth:`SafeLogger.table` does anything.
    """

    def __init__(self, run: Any, directory: Path, log_model: bool = False, log_per_image: bool = False) -> None:
        # an artifact's file stays where it is instead of being copied to W&B's folder in the user's home
        super().__init__(
            save_dir=str(directory), experiment=run, log_model=log_model, id=run.id, add_file_policy="immutable"
        )
        self.per_image = log_per_image
        run.define_metric("*", step_metric=_STEP)
        run.define_metric("train/*", step_metric="epoch")
        for name in METRIC_NAMES:  # the best of all epochs is put into the summary, not the last one
            run.define_metric(f"val/{name}", step_metric="epoch", summary="none")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record metrics of a step; the averages over an epoch are the last that come of it."""
        row = {**metrics} if step is None else {**metrics, _STEP: step}
        self.experiment.log(row, step=step, commit="train/loss" in metrics or None)


class SafeLogger(Logger):
    """A Lightning logger that never raises and never hangs.

    Each call of the logger inside may take half a minute. After the first that fails there is a warning, and the
    logger is left alone.

    Args:
        logger: The logger inside.
    """

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self._logger: Logger | None = logger
        self._kind = "W&B" if isinstance(logger, WandbRun) else type(logger).__name__

    @property
    def name(self) -> str | None:
        """Return the name that the logger inside gives to the experiment."""
        return self._try("name", lambda logger: logger.name)

    @property
    def version(self) -> str | int | None:
        """Return the version that the logger inside gives to the experiment; W&B's is the run's id."""
        return self._try("version", lambda logger: logger.version)

    @property
    def save_dir(self) -> str | None:
        """Return where the logger inside keeps its files."""
        return self._try("save_dir", lambda logger: logger.save_dir)

    @property
    def shows_images(self) -> bool:
        """Whether :meth:`images`, :meth:`histograms` and :meth:`table` do anything."""
        return isinstance(self._logger, WandbRun)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record metrics."""
        self._try("log_metrics", lambda logger: logger.log_metrics(metrics, step))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Record the run's config."""
        self._try("log_hyperparams", lambda logger: logger.log_hyperparams(params, *args, **kwargs))

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Tell that a checkpoint was written."""
        self._try("after_save_checkpoint", lambda logger: logger.after_save_checkpoint(checkpoint_callback))

    def save(self) -> None:
        """Write what was recorded."""
        self._try("save", lambda logger: logger.save())

    def finalize(self, status: str) -> None:
        """Tell that a fit or a test ended; more may follow."""
        self._try("finalize", lambda logger: logger.finalize(status))

    def images(self, key: str, pictures: Mapping[str, npt.NDArray[np.uint8]], step: int | None = None) -> None:
        """Record pictures, where the logger inside takes any.

        Args:
            key: What they show.
            pictures: RGB pictures, each of shape ``(H, W, 3)``, by caption; smaller ones get a white rim.
            step: The step that they belong to.
        """
        if not pictures or not self.shows_images:
            return
        height, width = (max(picture.shape[axis] for picture in pictures.values()) for axis in (0, 1))
        padded = [  # W&B shows pictures of one size only
            np.pad(p, ((0, height - p.shape[0]), (0, width - p.shape[1]), (0, 0)), constant_values=255)
            for p in pictures.values()
        ]
        self._try("log_image", lambda logger: logger.log_image(key, padded, step, caption=[*pictures]))

    def histograms(self, counts: Mapping[str, Sequence[int]], ends: Sequence[float], step: int | None = None) -> None:
        """Record histograms, where the logger inside takes any.

        Args:
            counts: By name; one fewer than ``ends`` in each.
            ends: Where the bins begin and end.
            step: The step that they belong to.
        """

        def draw(logger: Any) -> None:
            import wandb

            drawn = {key: wandb.Histogram(np_histogram=(list(found), list(ends))) for key, found in counts.items()}
            logger.log_metrics(drawn, step)

        if self.shows_images:
            self._try("log_histogram", draw)

    def table(self, key: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], step: int | None = None) -> None:
        """Record a table image by image, where the logger inside was told to (``log_per_image``).

        Args:
            key: What it holds.
            columns: Their names.
            rows: As many values each.
            step: The step that it belongs to.
        """
        if isinstance(self._logger, WandbRun) and self._logger.per_image:
            plain = [[None if value != value else value for value in row] for row in rows]  # NaN is no JSON
            self._try("log_table", lambda logger: logger.log_table(key, list(columns), plain, step=step))

    def summary(self, figures: Mapping[str, float]) -> None:
        """Record figures of the run as a whole, where the logger inside keeps any."""
        if self.shows_images:
            self._try("summary", lambda logger: logger.experiment.summary.update(dict(figures)))

    def end(self, status: str) -> None:
        """End the run, so that the next job of a sweep starts one of its own.

        Args:
            status: "success" or "failed".
        """
        self.finalize(status)
        if isinstance(run := self._logger, WandbRun):
            code, sending = int(status != "success"), run.experiment.settings.finish_timeout
            self._try("finish", lambda logger: logger.experiment.finish(exit_code=code), extra=sending)

    def _try(self, what: str, call: Callable[[Any], _T], extra: float = 0.0) -> _T | None:
        logger = self._logger
        if logger is None:
            return None
        try:
            if isinstance(logger, WandbRun):
                _require_room(Path(logger.experiment.dir))
            return _within(_CALL + extra, lambda: call(logger))
        except Exception as error:
            self._logger, advice = None, ""
            if isinstance(logger, WandbRun):
                with contextlib.suppress(Exception):
                    advice = f"; to send what W&B has of it: wandb sync {Path(logger.experiment.dir).parent}"
                _leave_wandb()
            log.warning(
                f"{self._kind}: {what} failed ({_words(error)}); the run goes on without it, and history.csv and "
                f"metrics.json are written all the same{advice}"
            )
            return None


def make_loggers(configured: Any) -> list[SafeLogger]:
    """Make what a config names as loggers safe: none, one, or several by name."""
    several = list(configured.values()) if isinstance(configured, Mapping) else [configured]
    return [SafeLogger(logger) for logger in several if logger]


def last_step(trainer: Trainer) -> int:
    """Return the step of the last row that Lightning has logged, which counts them from 0; in a test, the next one."""
    return trainer.global_step if trainer.testing else max(trainer.global_step - 1, 0)


@contextlib.contextmanager
def logged(loggers: Sequence[Logger], config: dict[str, Any]) -> Iterator[None]:
    """Tell a trainer's loggers the config, and end their runs, so that the next job of a sweep starts runs of its own.

    Args:
        loggers: Safe ones and others.
        config: The run's.
    """
    status = "failed"
    try:
        for logger in loggers:
            logger.log_hyperparams(config)
        yield
        status = "success"
    finally:
        for logger in loggers:
            (logger.end if isinstance(logger, SafeLogger) else logger.finalize)(status)


def tensorboard_logger(directory: str | os.PathLike[str]) -> Logger:
    """Make a TensorBoard logger, whose files go into the run's folder ``tensorboard``.

    Raises:
        InputError: If TensorBoard is not installed.
    """
    try:
        return TensorBoardLogger(os.fspath(directory), name=None, version="tensorboard", default_hp_metric=False)
    except ModuleNotFoundError:
        raise InputError("logger=tensorboard: it is not installed; pip install 'depthnet[tensorboard]'") from None


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
    try:
        import wandb
    except ImportError:
        log.info("W&B: not installed, so nothing is sent; history.csv and metrics.json are written all the same")
        return None
    project = _text(project) or os.environ.get("WANDB_PROJECT") or "depthnet"
    settings = wandb.Settings(
        silent=True,
        console="off",  # a run that prints must not wait for W&B
        init_timeout=init_timeout,
        finish_timeout=finish_timeout,
        finish_timeout_raises=True,
    )

    def start(mode: Any) -> WandbRun:
        if wandb.run is not None:  # of an earlier job of a sweep that failed before it began
            wandb.finish(exit_code=1)
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("no account is set up")
        words = {"entity": entity, "name": name, "group": group, "job_type": job_type, "tags": tags, "notes": notes}
        chosen = {"id": _run_id(Path(directory))} | {key: _text(value) for key, value in words.items()}
        if isinstance(chosen.get("tags"), str):
            chosen["tags"] = [chosen["tags"]]  # else each of its letters is one
        run = wandb.init(dir=str(directory), project=project, mode=mode, resume="allow", settings=settings, **chosen)
        return WandbRun(run, Path(directory), log_model, log_per_image)

    problem = ""
    for mode in dict.fromkeys([os.environ.get("WANDB_MODE") or "online", "offline"]):
        try:
            logger = _within(_CALL + init_timeout, partial(start, mode))
        except Exception as error:
            problem = _words(error)
            _leave_wandb()
            continue
        if problem:
            log.info(f"W&B: offline, {problem}; to send this run later: wandb sync {directory}/wandb/offline-run-*")
        elif url := logger.experiment.url:
            print(f"wandb: {url}", flush=True)
            note_url(directory, url)
        return logger
    log.warning(f"W&B: cannot start ({problem}); the run goes on without it")
    return None


def _text(value: Any) -> Any:
    """Give wandb text where a config reads a name such as 1 as a number."""
    if isinstance(value, list):
        return [str(item) for item in value]
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _run_id(directory: Path) -> str:
    path = directory / "wandb" / "id"
    if not path.exists():
        # under `wandb agent` the sweep knows its run by an id already
        given = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
        write_text(path, given or secrets.token_hex(4))
    return path.read_text().strip()


def _require_room(folder: Path) -> None:
    # a full disk is not told by wandb, which drops what it cannot write
    if folder.is_dir() and shutil.disk_usage(folder).free < _ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _leave_wandb() -> None:
    """End W&B's own process, or leave it where it hangs, so that nothing waits for it at exit."""
    import wandb

    with contextlib.suppress(Exception):
        _within(_TEARDOWN, wandb.teardown)
    wandb.run = None


def _within(seconds: float, call: Callable[[], _T]) -> _T:
    """Return what a call returns, or raise TimeoutError and leave it to its thread."""
    outcome: Future[_T] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # wandb has its ways to call sys.exit
            outcome.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    Thread(target=work, daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError:
        if outcome.done():
            raise
        raise TimeoutError(f"no answer in {seconds:g} s") from None


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
