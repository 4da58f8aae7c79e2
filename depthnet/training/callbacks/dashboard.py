"""What the loggers show of a training under way: rates, gradients, speed, and histograms of depth."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import interpolate
from torch.optim import Optimizer

from depthnet.core.types import DepthRange, RangeLike
from depthnet.training.loggers import last_step, logs_step, wandb_runs

_BINS = 50


class Dashboard(Callback):
    """Logs how training goes, every ``trainer.log_every_n_steps`` optimizer steps.

    - ``lr/encoder``, ``lr/decoder``: the rates that the step was taken with (``lr/network`` where there is no encoder);
    - ``step/gradient_norm``: before clipping, over all processes' images;
    - ``speed/images_per_second``: since the last row, of all processes, without validations;
    - ``speed/waiting``: the share of that time between two steps, which is waiting for data but for some callbacks.

    After each validation W&B gets ``depth/prediction`` and ``depth/ground_truth``: histograms of the valid pixels of
    the frames that the first process has seen. Where there is no logger nothing is measured.

    Args:
        depth_range: What the histograms cover [m].
    """

    def __init__(self, depth_range: RangeLike) -> None:
        self._top = DepthRange.of(depth_range).max
        self._taken: dict[str, Any] = {}  # what is known of a step before it is taken
        self._counts: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to measure."""
        self._ended = time.perf_counter()  # of the last step
        self._clear()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the time since the last epoch, and a validation's."""
        self._ended = time.perf_counter()

    on_validation_end = on_train_epoch_start

    def _clear(self) -> None:
        self._images, self._seconds, self._waited = 0, 0.0, 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count the time since the last batch."""
        self._waited += time.perf_counter() - self._ended

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        """Look at gradients and rates, if the step is one of those that are logged."""
        if not trainer.loggers or (trainer.global_step + 1) % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) if gradients else float("nan")  # of a step that is not taken
        self._taken = {"step/gradient_norm": norm}
        encoder = {id(p) for name, p in pl_module.network.named_parameters() if name.startswith("encoder.")}
        for group in optimizer.param_groups:
            part = "encoder" if id(group["params"][0]) in encoder else "decoder" if encoder else "network"
            self._taken[f"lr/{part}"] = group["lr"]

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log a row, beside Lightning's own of this step."""
        now = time.perf_counter()
        self._seconds, self._ended = self._seconds + now - self._ended, now
        self._images += len(batch.image) * trainer.world_size
        if not trainer.loggers or not logs_step(trainer, batch_idx):
            return
        speed = {"images_per_second": self._images / self._seconds, "waiting": self._waited / self._seconds}
        row = self._taken | {f"speed/{name}": value for name, value in speed.items()}
        pl_module.log_dict(row, on_step=True, on_epoch=False, rank_zero_only=True, batch_size=1)
        self._clear()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Count depths, at the prediction's size."""
        if trainer.sanity_checking or not wandb_runs(trainer):
            return
        size = outputs.shape[-2:]
        mask = interpolate(batch.mask.to(torch.uint8), size).bool()
        for name, depth in (("prediction", outputs), ("ground_truth", interpolate(batch.depth, size))):
            counts = torch.histc(depth[mask].float(), _BINS, 0.0, self._top).long()
            self._counts[f"depth/{name}"] = counts + self._counts.get(f"depth/{name}", 0)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send the histograms."""
        ends = np.linspace(0.0, self._top, _BINS + 1).tolist()
        for logger in wandb_runs(trainer) if self._counts else []:
            import wandb

            counts = {
                name: wandb.Histogram(np_histogram=(found.tolist(), ends)) for name, found in self._counts.items()
            }
            logger.log_metrics(counts, last_step(trainer))
        self._counts.clear()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Name the best checkpoint to the loggers, also where it was saved before this start."""
        if best := trainer.checkpoint_callback:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(best)  # type: ignore[arg-type]  # Lightning's type is too wide
