"""Skip steps whose loss or gradient is not finite, keep their batches, and stop the run after several."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning import Callback, LightningModule, Trainer
from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from depthnet.core.types import InputError, Sample
from depthnet.models.checkpoint import save_plain

log = logging.getLogger("depthnet")

_NAMED = 8  # samples in a message


class FiniteSteps(Callback):
    """Keeps NaN and infinity out of the weights.

    Before the optimizer's step, loss and gradients of all processes are checked. Where one is not finite, no process
    takes the step; the samples are named and the batch is kept in ``nonfinite/`` (:func:`torch.load` reads it). With
    float16, whose loss scale is found by overflowing, only the loss is checked.

    Args:
        directory: The run's directory.
        limit: Number of such steps in one epoch that stops the run.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        limit: Annotated[int, Field(ge=1), "a whole number, at least 1"] = 3,
    ) -> None:
        self._directory = Path(directory) / "nonfinite"
        self._limit = limit
        self._count = 0
        self._batches: list[Sample] = []  # since the last optimizer step
        self._losses: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps of this epoch were not taken."""
        return {"count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it from the run that is resumed."""
        self._count = int(state_dict["count"])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to count."""
        self._count = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the batch until the step is taken."""
        self._batches.append(batch)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Keep the loss until the step is taken."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Leave the step out on every process if a loss or a gradient of any is not finite.

        Raises:
            InputError: If this was one too many, or the network's statistics are not finite already.
        """
        batches, losses = self._batches, self._losses
        self._batches, self._losses = [], []
        finite = torch.stack(losses).isfinite().all()
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if getattr(trainer.precision_plugin, "scaler", None) is None and gradients:
            finite = finite & torch.nn.utils.get_total_norm(gradients).isfinite()
        if trainer.world_size > 1:
            known = finite.int()
            torch.distributed.all_reduce(known, torch.distributed.ReduceOp.MIN)
            finite = known.bool()
        if finite.item():
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None  # the optimizer leaves it out: no step, no decay, no moments
        self._count += 1
        where = f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}"
        samples = f"samples {_labels(trainer, batches)}; kept in {self._keep(trainer, batches)}"
        log.warning("%s: loss or gradient is not finite, step not taken; %s", where, samples)
        reasons = [
            f"{name} is not finite any more" for name, value in pl_module.named_buffers() if not value.isfinite().all()
        ]
        if self._count >= self._limit:
            reasons.append(f"loss or gradient was not finite {self._count} times in this epoch")
        if reasons:
            raise InputError(
                f"{where}: {reasons[0]} ({samples}); see these samples and continue from the last checkpoint, which is "
                "finite, by resume=, or lower optimizer.lr in a new run"
            )

    def _keep(self, trainer: Trainer, batches: Sequence[Sample]) -> Path:
        """Write the batches of a step, a file for each process."""
        path = self._directory / f"step_{trainer.global_step:06d}_process_{trainer.global_rank}.pt"
        content: dict[str, Any] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        save_plain(path, content | {f"batch_{number}": dict(batch._asdict()) for number, batch in enumerate(batches)})
        return path


def _labels(trainer: Trainer, batches: Sequence[Sample]) -> str:
    data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning's type leaves it out
    labels = [data.train_label(frame) for batch in batches for frame in torch.as_tensor(batch.frame).tolist()]
    return ", ".join(labels[:_NAMED]) + (f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else "")
