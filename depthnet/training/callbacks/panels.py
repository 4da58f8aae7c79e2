"""Pictures of a few frames, in ``panels/`` and for the loggers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import interpolate

from depthnet.core.images import resize_nearest, write_image_png
from depthnet.core.types import Sample
from depthnet.core.visualize import panel
from depthnet.training.loggers import last_step, wandb_runs


class Panels(Callback):
    """Pictures of a few frames: image, ground truth, prediction, error.

    When a checkpoint is evaluated they are written to ``panels/``; after a validation they go to the loggers only.

    Args:
        directory: The run's directory.
        count: How many frames, evenly spaced over the split.
    """

    def __init__(self, directory: str | os.PathLike[str], count: int = 6) -> None:
        self._directory = Path(directory) / "panels"
        self._count = count
        self._drawn: dict[str, Any] = {}

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Draw the chosen frames of a batch for the loggers that show pictures."""
        if wandb_runs(trainer) and not trainer.sanity_checking:
            self._draw(trainer, "val", batch, outputs)

    def on_test_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Draw the chosen frames of a batch."""
        self._draw(trainer, trainer.datamodule.test_split, batch, outputs)  # type: ignore[attr-defined]  # is there

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send the pictures to the loggers, all in one step."""
        self._send(trainer, "panels/val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the pictures, and send them to the loggers, all in one step."""
        for label, picture in self._drawn.items():
            write_image_png(self._directory / f"{label.replace('/', '_')}.png", picture)
        self._send(trainer, f"panels/evaluated_{trainer.datamodule.test_split}")  # type: ignore[attr-defined]  # is there

    def _draw(self, trainer: Any, split: str, batch: Sample, preds: Tensor) -> None:
        layout = trainer.datamodule.layout
        total = layout.count(split)
        count = min(self._count, total)
        chosen = {i * total // count for i in range(count)}
        for place, frame in enumerate(torch.as_tensor(batch.frame).tolist()):
            if frame not in chosen:
                continue
            image = batch.image[place].permute(1, 2, 0).cpu().numpy()
            size = batch.depth.shape[-2:]
            pred = interpolate(preds[place, None].float(), size, mode="bilinear", align_corners=True)[0]
            maps = (each[0].cpu().numpy() for each in (batch.depth[place], batch.mask[place], pred))
            depth, mask, predicted = (resize_nearest(each, image.shape[:2]) for each in maps)
            label = layout.label(split, frame)
            self._drawn[label] = panel(image, depth, mask, predicted, label)

    def _send(self, trainer: Trainer, key: str) -> None:
        wide = max((picture.shape[1] for picture in self._drawn.values()), default=0)
        pictures = [
            np.pad(picture, ((0, 0), (0, wide - picture.shape[1]), (0, 0)), constant_values=255)
            for picture in self._drawn.values()
        ]
        for logger in wandb_runs(trainer) if pictures else []:
            logger.log_image(key, pictures, last_step(trainer), caption=[*self._drawn])
        self._drawn.clear()
