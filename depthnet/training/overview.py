"""What a run reports first: its weights and why, its epochs, and after a few steps how long it will take."""

from __future__ import annotations

import math
import statistics
import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from depthnet.core.types import LAST
from depthnet.models.encoder_weights import choose_weights
from depthnet.run.paths import has_last

_STEPS = 10  # batches that are timed, after the first of a start, which allocates memory and may compile
_SECONDS = 20.0  # of fewer batches, where they are slow
_FORWARD = 1 / 3  # of a training step's work for as many images: what a validation does


def resolve_weights(cfg: Any, directory: Path) -> str:
    """Decide ``model.pretrained``, in place, and return the line that reports which weights it has.

    Args:
        cfg: The run's config.
        directory: The run's; a resumed run takes its last checkpoint's weights.

    Raises:
        InputError: If the pretrained weights are not available.
    """
    if cfg.mode == "test":
        return f"weights: from checkpoint {cfg.ckpt}"
    if has_last(directory):
        return f"weights: from this run's last checkpoint, in {(directory / LAST).parent}"
    line = "weights: from scratch"
    if "pretrained" in cfg.model:
        cfg.model.pretrained, words = choose_weights(cfg.model.encoder, cfg.model.pretrained)
        line = f"encoder: {cfg.model.encoder}, {words}"
    return f"weights: from checkpoint {cfg.ckpt}" if cfg.ckpt else line


class TimeEstimate(Callback):
    """Prints how many optimizer steps a fit has, and after some of them once how long the rest will take.

    A batch takes the median of those of this start, and a validation a third of the time that training takes for as
    many images.
    """

    def __init__(self) -> None:
        self._ends: list[float] = []  # of the batches of this start
        self._reported = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the number of steps; a fit without an end has none."""
        total, gathered = trainer.estimated_stepping_batches, trainer.accumulate_grad_batches
        self._reported = total == math.inf or not trainer.is_global_zero
        if self._reported:
            return
        epoch = math.ceil(trainer.num_training_batches / gathered)
        images = _batch_size(trainer.train_dataloader) * trainer.world_size * gathered
        done = f"; {trainer.global_step} steps are done" if trainer.global_step else ""
        epochs = f"{total / epoch:.3g} epoch{'s' * (total != epoch)} of {epoch} step{'s' * (epoch != 1)}"
        print(f"fit:  {epochs}, {images} images each{done}", flush=True)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Print the time once enough steps were taken."""
        self._ends.append(time.perf_counter())
        enough = len(self._ends) > _STEPS or (len(self._ends) > 1 and self._ends[-1] - self._ends[0] > _SECONDS)
        if self._reported or not enough:
            return
        self._reported = True
        step = statistics.median(end - start for start, end in pairwise(self._ends)) * trainer.accumulate_grad_batches
        trained = trainer.num_training_batches * _batch_size(trainer.train_dataloader)
        validated = sum(trainer.num_val_batches) * _batch_size(trainer.val_dataloaders)
        validation = _FORWARD * validated / (trained * (trainer.check_val_every_n_epoch or 1))
        left = (trainer.estimated_stepping_batches - trainer.global_step) * step * (1 + validation)
        print(f"time: about {timedelta(seconds=math.ceil(left))} left ({1 / step:.3g} steps/s)", flush=True)


def _batch_size(loader: Any) -> int:
    """Images of a batch, also where a batch sampler makes it."""
    sampler = getattr(loader, "batch_sampler", None)
    return getattr(sampler, "batch_size", None) or getattr(loader, "batch_size", None) or 1
