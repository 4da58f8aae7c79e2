"""What a run reports first: its weights and why, its epochs, and after a few steps how long it will take."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from depthnet.core.types import LAST
from depthnet.models.encoder_weights import choose_weights
from depthnet.run.config import has_last

_STEPS = 10  # that are timed, after the first of a start, which allocates memory and may compile
_SECONDS = 20.0  # of fewer steps, where they are slow
_FORWARD = 1 / 3  # of a training step's work for as many images: what a validation does


def resolve_weights(cfg: Any, directory: Path) -> str:
    """Decide ``model.pretrained``, in place, and return the line that reports which weights it has.

    Args:
        cfg: The run's config.
        directory: The run's; one that is resumed has weights of its own.

    Raises:
        InputError: If the pretrained weights are not available.
    """
    if cfg.mode == "test":
        return f"weights: from checkpoint {cfg.ckpt}"
    if has_last(directory):
        return f"weights: from this run's last checkpoint, in {(directory / LAST).parent}"
    chosen = "pretrained" in cfg.model
    line = "weights: from scratch"
    if chosen:
        value = False if cfg.ckpt and cfg.model.pretrained == "auto" else cfg.model.pretrained
        value, words = choose_weights(cfg.model.encoder, value)
        cfg.model.pretrained = value
        line = f"encoder: {cfg.model.encoder}, {words}"
    if cfg.ckpt and cfg.mode == "fit":
        line = f"weights: from checkpoint {cfg.ckpt}{' (encoder included)' if chosen else ''}"
    return line


class TimeEstimate(Callback):
    """Prints how many epochs and steps a fit has, and after some steps once how long it will take.

    The rate is that of the steps of this start, without the first. Validations that are still to come count as those
    that were, or, before the first one, a third of the time that training takes for as many images.
    """

    def __init__(self) -> None:
        self._ended: float | None = None  # the last step
        self._steps, self._seconds = 0, 0.0
        self._validating = self._validations = 0.0
        self._count = 0  # of validations
        self._reported = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epochs."""
        size = getattr(trainer.train_dataloader, "batch_size", None)
        images = f", {size * trainer.world_size} images each" if size else ""
        done = f"; {_done(trainer)} steps are done" if _done(trainer) else ""
        if trainer.is_global_zero and (extent := _extent(trainer)):
            print(f"fit:  {extent}{images}{done}", flush=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the time since the last epoch."""
        self._restart()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time the validation apart."""
        self._validating = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count it."""
        if not trainer.sanity_checking:
            self._validations += time.perf_counter() - self._validating
            self._count += 1
        self._restart()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step, and print the estimate once enough were."""
        if self._reported:
            return
        now = time.perf_counter()
        if self._ended is not None:
            self._steps, self._seconds = self._steps + 1, self._seconds + now - self._ended
        self._ended = now
        if self._steps and (self._steps >= _STEPS or self._seconds >= _SECONDS):
            self._reported = True
            if trainer.is_global_zero and _extent(trainer):
                print(self._line(trainer), flush=True)

    def _restart(self) -> None:
        if self._ended is not None:  # the first step was taken
            self._ended = time.perf_counter()

    def _line(self, trainer: Trainer) -> str:
        step = self._seconds / self._steps
        total = _total(trainer)
        left = max(total - _done(trainer), 0)
        every = int(trainer.num_training_batches) * (trainer.check_val_every_n_epoch or 1)
        validation = self._validations / self._count if self._count else self._guess(trainer, step)
        resumed = _done(trainer) > self._steps + trainer.accumulate_grad_batches
        # a fit from its start is reported as a whole, with what it has taken so far
        steps, validations = (left, left / every) if resumed else (total, total / every)
        seconds = steps * step + validations * validation
        of = "left of" if resumed else "for"
        return f"time: about {duration(seconds)} {of} {_extent(trainer)} ({1 / step:.3g} steps/s)"

    @staticmethod
    def _guess(trainer: Trainer, step: float) -> float:
        loaders = trainer.val_dataloaders
        images = sum(map(float, trainer.num_val_batches)) * (getattr(loaders, "batch_size", None) or 1)
        return step / (getattr(trainer.train_dataloader, "batch_size", None) or 1) * images * _FORWARD


def duration(seconds: float) -> str:
    """Return a time in words, to two digits or so.

    Example:
        >>> [duration(value) for value in (0.3, 44, 95, 840, 5400, 100_000)]
        ['1 s', '44 s', '95 s', '14 min', '90 min', '28 h']
    """
    if seconds < 100:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 100 * 60 else f"{round(seconds / 3600)} h"


def _done(trainer: Trainer) -> int:
    """Batches of the whole fit that were trained on, those of earlier starts too."""
    return trainer.global_step * trainer.accumulate_grad_batches


def _total(trainer: Trainer) -> int:
    """Batches in the whole fit; 0 where it has no end."""
    limits = []
    if (trainer.max_epochs or -1) >= 0:
        limits.append((trainer.max_epochs or 0) * int(trainer.num_training_batches))
    if trainer.max_steps >= 0:
        limits.append(trainer.max_steps * trainer.accumulate_grad_batches)
    return min(limits, default=0)


def _extent(trainer: Trainer) -> str:
    """The whole fit in words; empty where it has no end."""
    total, epoch = _total(trainer), int(trainer.num_training_batches)
    if not total:
        return ""
    epochs, rest = divmod(total, epoch)
    if rest:
        return f"{total} steps ({total / epoch:.3g} epochs)"
    return f"{epochs} epoch{'s' if epochs > 1 else ''} of {epoch} step{'s' if epoch > 1 else ''}"
