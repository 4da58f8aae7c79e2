"""``history.csv`` and ``steps.csv``: how training went, by epoch and by step."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch.callbacks
from lightning import LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_only

from depthnet.core.atomic_io import write_text
from depthnet.core.tables import to_csv
from depthnet.core.types import InputError
from depthnet.run.config import best_direction
from depthnet.run.files import HISTORY
from depthnet.training.loggers import logs_step, wandb_runs

log = logging.getLogger("depthnet")

_STEP_COLUMNS = "epoch,step,lr,loss,delta1\n"
_STEP_ROW = re.compile(r"\d+,(\d+)(,[^,\n]+){3}\n")
_SHOWN = ("train/loss", "train/delta1", "val/delta1", "val/abs_rel", "val/rmse")


class History(lightning.pytorch.callbacks.Checkpoint):
    """Writes ``history.csv``, a row an epoch with every logged average, and ``steps.csv``, a row every few steps.

    Both continue where a resumed run stopped, as if it had not. It is Lightning's kind of callback that comes after the
    module's own hooks, whose averages it writes.

    Args:
        directory: The run's directory.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._path = Path(directory, HISTORY)
        self._steps = Path(directory) / "steps.csv"
        self._rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far, for the checkpoint."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows of the run that is resumed."""
        self._rows = list(state_dict["rows"])

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the rows of steps that the run takes again, and what a kill left half written."""
        text = self._steps.read_text(encoding="utf-8", errors="replace") if self._steps.is_file() else ""
        rows = (_STEP_ROW.fullmatch(line) for line in text.splitlines(keepends=True))
        kept = [row[0] for row in rows if row and int(row[1]) <= trainer.global_step]
        write_text(self._steps, _STEP_COLUMNS + "".join(kept))

    @rank_zero_only
    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add a row every ``trainer.log_every_n_steps`` optimizer steps."""
        if not logs_step(trainer, batch_idx):
            return
        values = [float(trainer.callback_metrics[f"step/{name}"]) for name in ("loss", "delta1")]
        row = [trainer.current_epoch, trainer.global_step, _learning_rate(trainer), *values]
        try:
            with self._steps.open("a", encoding="utf-8") as file:
                file.write(",".join(map(repr, row)) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {self._steps}: {error.strerror}") from error

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row and write the file whole."""
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": _learning_rate(trainer)}
        averages = sorted(trainer.callback_metrics.items())
        row |= {name: float(value) for name, value in averages if name.startswith(("train/", "val/"))}
        self._rows.append(row)
        last = f" of {trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""  # -1: the steps are limited
        shown = ", ".join(f"{name} {row[name]:.3f}" for name in _SHOWN if name in row)
        log.info("epoch %d%s: %s", trainer.current_epoch + 1, last, shown)
        for logger in wandb_runs(trainer):
            logger.log_summary(_best(self._rows))
        write_text(self._path, to_csv(self._rows))


def _best(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The best finite figure of each metric, over all epochs of a run, over all its starts."""
    best: dict[str, float] = {}
    for name, value in ((name, value) for row in rows for name, value in row.items() if name.startswith("val/")):
        if math.isfinite(value):
            better = max if best_direction(name) == "max" else min
            best[name] = better(best.get(name, value), value)
    return best


def _learning_rate(trainer: Trainer) -> float:
    return float(max(group["lr"] for group in trainer.optimizers[0].param_groups))
