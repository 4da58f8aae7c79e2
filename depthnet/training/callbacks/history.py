"""``history.csv`` and ``steps.csv``: how training went, by epoch and by step."""

from __future__ import annotations

import csv
import io
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
from depthnet.core.types import InputError
from depthnet.run.config import best_direction
from depthnet.training.loggers import SafeLogger

log = logging.getLogger("depthnet")

_STEP_COLUMNS = ("epoch", "step", "lr", "loss", "delta1")
_STEP_ROW = re.compile(r"\d+,\d+(,[^,\n]+){3}\n")


class History(lightning.pytorch.callbacks.Checkpoint):
    """Writes ``history.csv``, a row an epoch with every logged average, and ``steps.csv``, a row every few steps.

    Both go on where a resumed run stopped, as if it had not. It is Lightning's kind of callback that comes after the
    module's own hooks, whose averages it writes.

    Args:
        directory: The run's directory.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._path = Path(directory) / "history.csv"
        self._steps = Path(directory) / "steps.csv"
        self._rows: list[dict[str, float]] = []
        self._step = 0  # the last one that was looked at

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far, for the checkpoint."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows of the run that is resumed."""
        self._rows = list(state_dict["rows"])

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the rows of steps that the run takes again, and what a kill left half written."""
        self._step = trainer.global_step
        kept = [f"{','.join(_STEP_COLUMNS)}\n"]
        if trainer.global_step and self._steps.is_file():
            text = self._steps.read_text(encoding="utf-8", errors="replace")
            whole = [line for line in text.splitlines(keepends=True) if _STEP_ROW.fullmatch(line)]
            kept += [line for line in whole if int(line.split(",")[1]) <= trainer.global_step]
        write_text(self._steps, "".join(kept))

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a row every ``trainer.log_every_n_steps`` optimiser steps."""
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if not stepped or trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]  # is there
            return
        logged = trainer.callback_metrics
        values = [float(logged[f"step/{name}"]) for name in ("loss", "delta1")]
        row = [trainer.current_epoch, trainer.global_step, _rate(trainer), *values]
        try:
            with self._steps.open("a", encoding="utf-8") as file:
                file.write(",".join(map(repr, row)) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {self._steps}: {error.strerror}") from error

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row and write the file whole."""
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row["lr"] = _rate(trainer)
        row |= {
            name: float(value)
            for name, value in sorted(trainer.callback_metrics.items())
            if name.startswith(("train/", "val/"))
        }
        self._rows.append(row)
        shown = ("train/loss", "train/delta1", "val/delta1", "val/abs_rel", "val/rmse")
        words = [f"{name} {row[name]:.3f}" for name in shown if name in row]
        last = f" of {trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""  # -1: the steps are limited
        log.info("epoch %d%s: %s", trainer.current_epoch + 1, last, ", ".join(words))
        for logger in trainer.loggers:
            if isinstance(logger, SafeLogger):
                logger.summary(_best(self._rows))
        columns = list(dict.fromkeys(name for line in self._rows for name in line))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self._path, text.getvalue())


def _best(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The best finite figure of each metric, over all epochs of a run, whatever number of starts it took."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith("val/") and math.isfinite(value):
                found.setdefault(name, []).append(value)
    return {name: (max if best_direction(name) == "max" else min)(values) for name, values in found.items()}


def _rate(trainer: Trainer) -> float:
    return float(max(group["lr"] for group in trainer.optimizers[0].param_groups))
