"""The progress bar of a training."""

from __future__ import annotations

import sys
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

_SHOWN = ("step/loss", "step/delta1", "val/delta1")


class Progress(RichProgressBar):
    """Lightning's Rich progress bar, on stderr, with loss and delta1.

    Where stderr is no terminal there is none, and the line that each epoch leaves in the log has to do.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(console_kwargs={"stderr": True}, **options)
        if not sys.stderr.isatty():
            self.disable()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return what the bar shows."""
        logged = trainer.callback_metrics
        return {name.removeprefix("step/"): f"{float(logged[name]):.3f}" for name in _SHOWN if name in logged}
