"""A run from its start or from where it stopped: settled once, fitted, judged, its checkpoints written whole."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from lightning import Trainer, seed_everything
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.loggers import WandbLogger
from torch import nn

from depthnet.checkpoint import fitting_weights, load_plain, load_weights, read_checkpoint, save_plain
from depthnet.data.datamodule import DepthDataModule
from depthnet.models.encoder import resolve_pretrained
from depthnet.run import BEST, CONFIG, LAST
from depthnet.types import InputError

__all__ = ["DurableCheckpointIO", "fine_tune", "fit_and_judge", "settle"]

log = logging.getLogger("depthnet")

_FEWEST_FITTING = 0.1  # of a network's tensors; a head in common is no start


class DurableCheckpointIO(CheckpointIO):
    """Writes checkpoints through the durable writer and reads them as plain data.

    Lightning's own moves a file over from TMPDIR, which leaves a torn checkpoint when it is killed and destroys the
    good one on a full disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint whole, with its digest beside it."""
        save_plain(path, checkpoint)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; whatever is asked for, only plain data is loaded."""
        return load_plain(path)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint and its digest."""
        path = Path(path)
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".sha256").unlink(missing_ok=True)


def settle(cfg: Any, directory: Path) -> None:
    """Decide, in place, what a config leaves to the machine and to the checkpoint, and seed all that is random.

    Args:
        cfg: The run's config.
        directory: The run's; one that has stored its config goes on, and keeps what was decided then.

    Raises:
        InputError: If the checkpoint or the pretrained weights cannot be had.
    """
    new = not (directory / CONFIG).exists()
    source = read_checkpoint(cfg.ckpt) if cfg.ckpt else None
    if source and cfg.mode == "test":
        cfg.data.image_size = source.config["image_size"]
    elif new and "pretrained" in cfg.model:
        wanted = False if source and cfg.model.pretrained == "auto" else cfg.model.pretrained
        cfg.model.pretrained = resolve_pretrained(cfg.model.encoder, wanted)
    seed_everything(cfg.seed, verbose=False)


def fine_tune(network: nn.Module, path: str | os.PathLike[str] | None) -> None:
    """Start a network from a checkpoint's weights, if one is named; what did not fit is listed.

    Raises:
        InputError: If the file cannot be read, or next to nothing in it fits.
    """
    if path is None:
        return
    state = read_checkpoint(path).state
    fitting = len(fitting_weights(network, state))
    if fitting < _FEWEST_FITTING * len(network.state_dict()):
        raise InputError(
            f"ckpt={path}: {fitting} of its {len(state)} tensors fit this network; choose the model it is of"
        )
    misfits = load_weights(network, state)
    for line in misfits:
        log.warning("ckpt: %s", line)
    log.info("ckpt: started from %s; %d tensors did not fit", path, len(misfits))


def fit_and_judge(trainer: Trainer, module: Any, data: DepthDataModule, split: str, directory: Path | None) -> None:
    """Fit from the start or from the last finished epoch, and judge the best checkpoint.

    Args:
        trainer: Carries both out; its loggers' runs are ended.
        module: The DepthModule.
        data: The data of both.
        split: The split that is judged.
        directory: The run's directory; None to judge the weights that the module holds.
    """
    status = "failed"
    try:
        for logger in trainer.loggers:
            logger.log_hyperparams(module.run)
        if directory is not None:
            last = directory / LAST
            trainer.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
            module.network.load_state_dict(read_checkpoint(directory / BEST).state)
        trainer.test(module, data.eval_dataloader(split), verbose=False)
        status = "success"
    finally:
        for logger in trainer.loggers:  # so that the next job of a sweep starts a run of its own
            logger.finalize(status)
            if isinstance(logger, WandbLogger):
                logger.experiment.finish(exit_code=int(status == "failed"))
