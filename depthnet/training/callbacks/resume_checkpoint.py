"""``last.ckpt``: what a run is resumed from, written at intervals and when a signal asks the run to stop.

A checkpoint is taken at one of three places, and a run that is resumed from it continues as if nothing had happened:
after a step, before a validation (which is then done again), and after an epoch's end.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import lightning.pytorch.callbacks
import torch
from lightning import LightningModule, Trainer
from pydantic import Field

from depthnet.core.types import LAST
from depthnet.run.signals import Signals, Stopped
from depthnet.training.callbacks.ema import WeightEMA
from depthnet.training.loggers import step_taken

log = logging.getLogger("depthnet")


class ResumeCheckpoint(lightning.pytorch.callbacks.Checkpoint):
    """Keeps the checkpoint that a run is resumed from, and stops the run after a step when a signal came.

    Args:
        directory: Where ``last.ckpt`` and the generation before it are written.
        every_n_steps: Save after every that many optimizer steps; None for no such rule.
        every_minutes: Save after the first step that ends this long after the last save; None for no such rule. At an
            epoch's end it is saved in any case.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        every_n_steps: Annotated[int, Field(ge=1), "a whole number, at least 1,"] | None = None,
        every_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False), "a number above 0"] | None = 5.0,
    ) -> None:
        self.signals = Signals()  # the run sets its own
        self._path = Path(directory) / LAST.name
        self._every = every_n_steps
        self._seconds = None if every_minutes is None else 60 * every_minutes
        self._saved = time.monotonic()
        self._gathering = False
        self._stopping = 0  # the signal by which the run stops when the next step is to begin
        self._ended = False
        self._before_validation = False  # what is being saved
        self._before = 0  # batches of this epoch's earlier validations

    def state_dict(self) -> dict[str, Any]:
        """Return whether training has ended before its last epoch."""
        return {"ended": self._ended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it from the run that is resumed."""
        self._ended = bool(state_dict["ended"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals; train nothing more where the run had stopped early."""
        self.signals.renew()  # Lightning's handlers would talk to other processes in the middle of a step
        self.signals.patient = True
        self._saved = time.monotonic()
        if trainer.global_step:
            log.info("resumed in epoch %d after step %d", trainer.current_epoch + 1, trainer.global_step)
        trainer.should_stop = self._ended
        if self._ended:
            log.info("training had stopped before its last epoch; nothing more is trained")

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save after a step when it is time to, or when the run is to stop."""
        stepped = step_taken(trainer, batch_idx)
        self._gathering = not stepped  # gradients, which stand in no checkpoint
        if trainer.is_last_batch or _validates_after(trainer, batch_idx):
            return  # the next place to save follows at once
        number, due = self._agree(trainer)
        if stepped and (due or number):
            self._save(trainer)
            self._stopping = number  # Lightning has yet to log the row of this step, which is not taken again

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop where the step before was the last to be taken."""
        self._stop(trainer, self._stopping)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, as after a step, before the figures are known: the validation is then done again from its start."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            total = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
            total.ready = total.started = total.completed  # type: ignore[attr-defined]  # without the mark below
            self._before = total.completed
            number, due = self._agree(trainer)
            if (due or number) and not self._gathering:
                self._save_before_validation(trainer)
                self._stop(trainer, number)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """Stop within a validation; several processes wait for its end."""
        number = self.signals.received
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if not number or self._gathering or not fitting or trainer.world_size > 1:
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning's type leaves it out
            if isinstance(callback, WeightEMA):
                callback.on_validation_epoch_end(trainer, pl_module)  # puts back the weights that are trained
        self._save_before_validation(trainer)
        self._stop(trainer, number)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the finished epoch."""
        self._ended = trainer.should_stop
        self._save(trainer)
        self._stop(trainer, self._agree(trainer)[0])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on there is no step to be finished."""
        self.signals.patient = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Mark a checkpoint that was taken before a validation as Lightning marks one in the middle of it.

        So the validation is run, from its first batch, before anything else; otherwise Lightning takes it for done.
        """
        if self._before_validation:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            done = self._before
            progress["total"] = {"ready": done + 1, "started": done + 1, "processed": done, "completed": done}
            progress["current"] = dict.fromkeys(progress["current"], 0)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self._path)
        self._saved = time.monotonic()

    def _save_before_validation(self, trainer: Trainer) -> None:
        self._before_validation = True
        self._save(trainer)
        self._before_validation = False

    def _agree(self, trainer: Trainer) -> tuple[int, bool]:
        """The signal that any process was sent, 0 for none, and whether it is time to save."""
        due = self._every is not None and trainer.global_step % self._every == 0
        late = self._seconds is not None and time.monotonic() - self._saved >= self._seconds
        number = self.signals.received or 0
        if trainer.world_size == 1:
            return number, due or late
        place = trainer.strategy.root_device
        known = torch.tensor([number, late and trainer.is_global_zero], dtype=torch.int64, device=place)
        torch.distributed.all_reduce(known, torch.distributed.ReduceOp.MAX)
        return int(known[0]), due or bool(known[1])

    def _stop(self, trainer: Trainer, number: int) -> None:
        if not number:
            return
        self.signals.patient = False
        if trainer.is_global_zero:
            where = f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}"
            place = shlex.quote(f"resume={self._path.parent.parent}")
            print(f"stopped in {where}; resume with {place}", flush=True)
        raise Stopped(number)


def _validates_after(trainer: Trainer, batch_idx: int) -> bool:
    """Whether a validation in the middle of an epoch follows this batch (``trainer.val_check_interval``)."""
    every = trainer.val_check_batch
    if not trainer.enable_validation or not isinstance(every, int):
        return False
    return (
        (trainer.fit_loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch_idx) + 1
    ) % every == 0
