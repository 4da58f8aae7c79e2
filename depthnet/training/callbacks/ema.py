"""An exponential moving average (EMA) of the weights: what is validated, and kept as the best checkpoint."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Annotated, Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_only
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from depthnet.training.loggers import step_taken

log = logging.getLogger("depthnet")

Decay = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), "a number, at least 0 and below 1"]


class WeightEMA(Callback):
    r"""Averages the weights over optimizer steps, and puts the average in their place where the network is validated.

    After step t, :math:`a_t = d a_{t-1} + (1 - d) w_t`, with :math:`a_1 = w_1`: an average over about
    :math:`1 / (1 - d)` steps. Averaged are the parameters and the running mean and variance of batch normalization;
    every other buffer is the network's own, so that constants stay what they are. Lightning's callback averages them
    too, each time with a rounding error, and those that no checkpoint holds are then not what was validated.

    A checkpoint's ``state_dict`` is the average; one to resume from has the weights under ``current_model_state``.

    Args:
        decay: d, at least 0 and below 1.
        warm_up: Whether the decay of update t is at most (1 + t) / (10 + t), so that the average forgets the first
            steps sooner.
    """

    def __init__(self, decay: Decay = 0.999, warm_up: bool = False) -> None:
        self.average: dict[str, Tensor] = {}
        """By the names of the module's state; empty except while it is fitted."""
        self._decay = decay
        self._warm_up = warm_up
        self._weights: dict[str, Tensor] = {}  # of the module, in the same order
        self._resumed: dict[str, Tensor] = {}
        self._updates = 0

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the average of the run that is resumed, and give the module its weights."""
        if "current_model_state" in checkpoint:
            self._resumed = checkpoint["state_dict"]
            self._updates = int(checkpoint["averaging_state"]["n_averaged"])
            pl_module.load_state_dict(checkpoint["current_model_state"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the weights, or with the average of the run that is resumed, on the module's device."""
        self._weights = dict(_averaged(pl_module))
        self.average = {name: weight.detach().clone() for name, weight in self._weights.items()}
        for name in self.average.keys() & self._resumed.keys():
            self.average[name].copy_(self._resumed[name])
        self._resumed = {}

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if an epoch has fewer steps than the average remembers."""
        steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        remembered = round(1 / (1 - self._decay))
        if steps < remembered and not self._warm_up:
            fitting = math.floor(1000 * (1 - 1 / steps)) / 1000
            log.warning(
                f"callbacks.average.decay={self._decay:g}: the average remembers about {remembered} optimizer steps "
                f"and an epoch has {steps}, so the first validations lag behind training; callbacks.average.decay="
                f"{fitting:g} fits an epoch, and callbacks.average.warm_up=true begins with a shorter average"
            )

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Update the average after an optimizer step."""
        if not step_taken(trainer, batch_idx):
            return
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates)) if self._warm_up else self._decay
        # it interpolates, so that a weight that does not change leaves its average as it is, to the bit
        update: Any = get_ema_multi_avg_fn(decay if self._updates else 0.0)  # type: ignore[no-untyped-call]
        update(tuple(self.average.values()), tuple(self._weights.values()), self._updates)
        self._updates += 1

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in place of the weights."""
        self._swap()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the weights back in their place."""
        self._swap()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average with the module, also where nothing was left to train."""
        self._swap()
        self.average, self._weights = {}, {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the average as the module's state, and the weights beside it."""
        if self.average:
            checkpoint["current_model_state"] = checkpoint["state_dict"]
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **self.average}
            checkpoint["averaging_state"] = {"n_averaged": self._updates}

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._weights.items():
            kept = weight.clone()
            weight.copy_(self.average[name])
            self.average[name].copy_(kept)


def _averaged(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield names and tensors: parameters, and the statistics of batch normalization (not its count of batches)."""
    yield from module.named_parameters()
    for place, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            for name in ("running_mean", "running_var"):
                if (value := getattr(part, name)) is not None:
                    yield f"{place}.{name}" if place else name, value
