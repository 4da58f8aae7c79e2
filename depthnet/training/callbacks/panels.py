"""Pictures of a few frames, in ``panels/`` and for the loggers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import interpolate

from depthnet.core.images import resize_nearest, write_image_png
from depthnet.core.types import Sample
from depthnet.core.visualize import panel
from depthnet.data.layouts.layout import Layout
from depthnet.training.loggers import SafeLogger, last_step


class Panels(Callback):
    """Pictures of a few frames: image, truth, prediction, error.

    When a checkpoint is judged they are written to ``panels/``; after a validation they go to the loggers only.

    Args:
        directory: The run's directory.
        layout: Names the frames.
        split: The split that is judged.
        count: How many frames, evenly spaced over the split.
    """

    def __init__(self, directory: str | os.PathLike[str], layout: Layout, split: str, count: int = 6) -> None:
        self._directory = Path(directory) / "panels"
        self._layout = layout
        self._split = split
        self._count = count
        self._drawn: dict[str, Any] = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the chosen frames of a batch for the loggers that show pictures."""
        if any(logger.shows_images for logger in _safe(trainer)) and not trainer.sanity_checking:
            self._draw(outputs, batch, "val", write=False)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the chosen frames of a batch."""
        self._draw(outputs, batch, self._split, write=True)

    def _draw(self, pred: Tensor, batch: Sample, split: str, write: bool) -> None:
        total = self._layout.count(split)
        count = min(self._count, total)
        chosen = {i * total // count for i in range(count)}
        for place, frame in enumerate(torch.as_tensor(batch.frame).tolist()):
            if frame not in chosen:
                continue
            depth = batch.depth[place, 0].cpu().numpy()
            sized = interpolate(pred[place, None].float(), batch.depth.shape[-2:], mode="bilinear", align_corners=True)
            image = batch.image[place].permute(1, 2, 0).cpu().numpy()
            label = self._layout.label(split, frame)
            picture = panel(
                image,
                resize_nearest(depth, image.shape[:2]),
                resize_nearest(batch.mask[place, 0].cpu().numpy(), image.shape[:2]),
                resize_nearest(sized[0, 0].cpu().numpy(), image.shape[:2]),
                label,
            )
            if write:
                write_image_png(self._directory / f"{label.replace('/', '_')}.png", picture)
            self._drawn[label] = picture

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send the pictures to every logger, all in one step."""
        self._send(trainer, "panels/val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send the pictures to every logger, all in one step."""
        self._send(trainer, f"panels/judged_{self._split}")

    def _send(self, trainer: Trainer, key: str) -> None:
        for logger in _safe(trainer):
            logger.images(key, self._drawn, last_step(trainer))
        self._drawn.clear()


def _safe(trainer: Trainer) -> list[SafeLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, SafeLogger)]
