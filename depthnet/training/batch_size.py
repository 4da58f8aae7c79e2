"""The largest training batch that fits into a GPU's memory, found by Lightning's tuner."""

from __future__ import annotations

import logging
import tempfile
from typing import Any

import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.tuner.tuning import Tuner
from lightning.pytorch.utilities.memory import garbage_collection_cuda
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from depthnet.core.device import job_devices
from depthnet.core.types import InputError, Sample
from depthnet.run.distributed import started_processes
from depthnet.run.targets import build
from depthnet.training.module import DepthModule

log = logging.getLogger("depthnet")

_FIRST = 2  # images
_TRIALS = 10  # 2, 4, 8 and on to 1024
_STEPS = 3  # of each trial; the optimizer's own memory is there from the second on


def resolve_batch_size(cfg: Any) -> None:
    """Replace ``data.batch_size=auto`` by a number, in place.

    Args:
        cfg: The run's config.

    Raises:
        InputError: If it trains on a CPU, whose memory is not its own, several processes were started, or not one
            image fits.
    """
    if OmegaConf.select(cfg, "data.batch_size") != "auto":
        return
    if cfg.mode == "test":
        cfg.data.batch_size = 1  # nothing learns from it
        return
    if started_processes() > 1:
        raise InputError("data.batch_size=auto: processes started together do not agree on one; write a number")
    with tempfile.TemporaryDirectory() as folder:  # the tuner keeps the first weights in a file
        own: dict[str, Any] = {"num_nodes": 1, "strategy": "auto", "max_epochs": 1, "fast_dev_run": False}
        own |= {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "devices": 1}
        trainer = build(cfg.trainer, "trainer", default_root_dir=folder, **own | job_devices(cfg.trainer))
        device = trainer.strategy.root_device
        if device.type == "cpu":
            raise InputError("data.batch_size=auto: it asks a GPU how many images fit; on a CPU, write a number")
        parts = {part: build(cfg[part], part) for part in ("loss", "optimizer", "scheduler")}
        module = DepthModule(build(cfg.model, "model"), protocols=[], compile=cfg.compile, **parts)
        cfg.data.batch_size = find_batch_size(trainer, module, tuple(cfg.data.image_size))
    del trainer, module, parts
    garbage_collection_cuda()
    print(f"data.batch_size=auto: {cfg.data.batch_size} images fit")


def find_batch_size(trainer: Trainer, module: DepthModule, image_size: tuple[int, int]) -> int:
    """Return the largest power of two, to 1024, of which training steps do not run out of memory.

    Args:
        trainer: Without loggers and checkpoints; used up.
        module: What is trained; used up.
        image_size: (height, width) of its images.

    Raises:
        InputError: If not one image fits.
    """
    blank = _Blank(image_size)
    try:
        Tuner(trainer).scale_batch_size(module, datamodule=blank, steps_per_trial=_STEPS, max_trials=_TRIALS)
    except (RuntimeError, ValueError) as error:
        if blank.batch_size == 0:
            raise InputError("data.batch_size=auto: not one image fits; smaller data.image_size or model") from error
        if blank.batch_size <= _FIRST:
            raise
        # a full memory has more words than Lightning knows: cuBLAS and cuDNN have their own, large tensors too
        log.info("data.batch_size=auto: %d images: %s", blank.batch_size, " ".join(str(error).split())[:200])
        blank.batch_size //= 2
    return blank.batch_size


class _Blank(LightningDataModule):
    """Equal samples, as many as the largest trial takes; the tuner sets the batch size."""

    def __init__(self, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.batch_size = _FIRST
        image, depth = torch.zeros((3, *image_size), dtype=torch.uint8), torch.ones((1, *image_size))
        sample = Sample(image, depth, depth > 0, torch.tensor(0), torch.full((4,), torch.nan))
        self._samples: Any = [sample] * (_STEPS << _TRIALS)

    def train_dataloader(self) -> DataLoader[Sample]:
        return DataLoader(self._samples, self.batch_size)

    def val_dataloader(self) -> list[DataLoader[Sample]]:
        return []  # the tuner would ask for some
