"""The progress bar of a training."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


class Progress(RichProgressBar):
    """Lightning's Rich progress bar, on stderr, with loss, delta1 and images per second.

    Where stderr is no terminal there is none; the line that each epoch leaves in the log has to do.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(console_kwargs={"stderr": True}, **options)
        if not sys.stderr.isatty():
            self.disable()
        self._started = 0.0
        self._images = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting images, also where an epoch goes on."""
        super().on_train_start(trainer, pl_module)
        self._started, self._images = time.perf_counter(), 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting images."""
        super().on_train_epoch_start(trainer, pl_module)
        self._started, self._images = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch's images, on all processes."""
        self._images += len(batch.image) * trainer.world_size
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what the bar shows."""
        shown: dict[str, int | str | float | dict[str, float]] = {}
        for name in ("step/loss", "step/delta1", "val/delta1"):
            if name in trainer.callback_metrics:
                shown[name.removeprefix("step/")] = f"{float(trainer.callback_metrics[name]):.3f}"
        seconds = time.perf_counter() - self._started
        if self._images and seconds > 0:
            shown["img/s"] = f"{self._images / seconds:.1f}"
        return shown
