"""What the loggers show of a training under way: rates, gradients, speed, memory, and histograms of depth."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn.functional import interpolate
from torch.optim import Optimizer

from depthnet.core.types import DepthRange, RangeLike, Sample
from depthnet.training.loggers import SafeLogger, last_step

_BINS = 50


class Dashboard(Callback):
    """Tells the loggers how training goes, every ``trainer.log_every_n_steps`` optimiser steps.

    - ``lr/encoder``, ``lr/decoder``: the rates that the step was taken with (``lr/network`` where there is no encoder);
    - ``step/gradient_norm``: before clipping, over all processes' images;
    - ``speed/images_per_second``: since the last row, of all processes, without validations;
    - ``speed/waiting``: the share of that time between two steps, which is waiting for data but for some callbacks.

    After each validation W&B gets ``depth/prediction`` and ``depth/truth``: histograms of the valid pixels of the
    frames that the first process has seen. Where there is no logger nothing is measured.

    Args:
        depth_range: What the histograms cover [m].
    """

    def __init__(self, depth_range: RangeLike) -> None:
        self._top = DepthRange.of(depth_range).max
        self._parts: list[str] = []  # of the optimiser's groups
        self._taken: dict[str, Any] = {}  # what is known of a step before it is taken
        self._step = 0  # the last one that was looked at
        self._ended = self._began = 0.0  # the last step
        self._images = 0
        self._seconds = self._waited = 0.0
        self._counts: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Begin to measure."""
        names = {id(parameter): name for name, parameter in pl_module.network.named_parameters()}
        groups = [names[id(group["params"][0])] for group in trainer.optimizers[0].param_groups]
        encoders = [name.startswith("encoder.") for name in groups]
        self._parts = ["encoder" if own else "decoder" if any(encoders) else "network" for own in encoders]
        self._step = trainer.global_step
        self._images, self._seconds, self._waited = 0, 0.0, 0.0
        self._ended = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the time since the last epoch."""
        self._ended = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count the time since the last batch."""
        self._began = time.perf_counter()
        self._waited += self._began - self._ended

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Look at gradients and rates, if the step is one of those that are logged."""
        if not trainer.loggers or (trainer.global_step + 1) % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) if gradients else float("nan")  # of a step that is not taken
        rates = zip(self._parts, optimizer.param_groups, strict=True)
        self._taken = {"step/gradient_norm": norm} | {f"lr/{part}": group["lr"] for part, group in rates}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log a row, beside Lightning's own of this step."""
        self._ended = time.perf_counter()
        self._seconds += self._ended - self._began
        self._images += len(batch.image) * trainer.world_size
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if not (stepped and trainer.loggers) or trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        total = self._seconds + self._waited
        speed = {"speed/images_per_second": self._images / total, "speed/waiting": self._waited / total}
        row = self._taken | speed
        pl_module.log_dict(row, on_step=True, on_epoch=False, rank_zero_only=True, batch_size=1)
        self._images, self._seconds, self._waited = 0, 0.0, 0.0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Sample,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count depths, at the prediction's size."""
        if trainer.sanity_checking or not _boards(trainer):
            return
        size = outputs.shape[-2:]
        mask = interpolate(batch.mask.to(torch.uint8), size).bool()
        for name, depth in (("prediction", outputs), ("truth", interpolate(batch.depth, size))):
            counts = torch.histc(depth[mask].float(), _BINS, 0.0, self._top).long()
            self._counts[f"depth/{name}"] = counts + self._counts.get(f"depth/{name}", 0)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send the histograms."""
        counts = {name: found.tolist() for name, found in self._counts.items()}
        self._counts.clear()
        ends = [self._top * place / _BINS for place in range(_BINS + 1)]
        for logger in _boards(trainer) if counts else []:
            logger.histograms(counts, ends, last_step(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the validation's time."""
        self._ended = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Name the best checkpoint to the loggers, also where it was saved before this start."""
        for checkpoint in trainer.checkpoint_callbacks:
            if isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_path and trainer.is_global_zero:
                for logger in trainer.loggers:
                    logger.after_save_checkpoint(checkpoint)


def _boards(trainer: Trainer) -> list[SafeLogger]:
    """The loggers of the first process that take more than numbers."""
    loggers = trainer.loggers if trainer.is_global_zero else []
    return [logger for logger in loggers if isinstance(logger, SafeLogger) and logger.shows_images]
