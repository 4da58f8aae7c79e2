"""How long a run has trained, in ``run.json``."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from depthnet.core.types import InputError
from depthnet.run.files import read_record, update_record


class Clock(Callback):
    """Keeps the time that a run has trained, over all its starts, in ``run.json``.

    It counts from the start of fitting to each save of a run's place and to the end of fitting, validations included;
    steps that a kill has lost, and that are taken again, count once. It stands in ``run.json`` and in no checkpoint,
    which hold the same bits however long they took.

    Args:
        directory: The run's directory.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = directory
        self._since = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        self._since = time.monotonic()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note the time up to here."""
        if trainer.is_global_zero:
            now = time.monotonic()
            with contextlib.suppress(InputError):  # a clock stops no run; the checkpoint says why nothing is written
                spent, hardware = read_record(self._directory).get("seconds", {}), _hardware(trainer)
                seconds = round(spent.get(hardware, 0.0) + now - self._since, 3)
                update_record(self._directory, seconds=spent | {hardware: seconds})
            self._since = now

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time up to the end."""
        self.on_save_checkpoint(trainer, pl_module, {})


def _hardware(trainer: Trainer) -> str:
    """Return the hardware that a run trains on, in words."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        name = f"{cores} CPU cores, torch on {torch.get_num_threads()}"
    else:
        name = device.type
    return name if trainer.world_size == 1 else f"{trainer.world_size} x {name}"
