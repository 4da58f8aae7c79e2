"""The LightningModule: a network, a loss and protocols, and the hooks that tie them to a Trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from depthnet.checkpoint import RECORD_KEY, make_record
from depthnet.data.sampling import derive_seed
from depthnet.evaluation import Evaluation
from depthnet.losses import DepthLoss
from depthnet.metrics import delta_accuracy
from depthnet.protocol import Protocol
from depthnet.types import Sample

__all__ = ["DepthModule"]


class DepthModule(LightningModule):
    """Trains and judges one network.

    It logs ``train/loss``, the loss's terms and ``train/delta1`` (averages over an epoch), ``step/loss`` and
    ``step/delta1``, and after every validation ``val/<metric>`` for each metric of the first protocol.

    Args:
        network: Gives depth [m], ``(B, 1, H, W)``, from an ``uint8`` image ``(B, 3, H, W)``.
        loss: Gives the weighted sum and the named terms.
        optimizer: Makes the optimiser of a network; needed to fit.
        scheduler: Makes the schedule from the optimiser and the run's number of steps; None for a constant rate.
        protocols: How predictions are judged; the first one's figures are logged.
        seed: What is random in a step (dropout) follows from it and the step's number.
        run: The run's resolved config, stored as a record in its checkpoints.
        compile: Whether the network is compiled.
    """

    evaluation: Evaluation

    def __init__(
        self,
        network: nn.Module,
        loss: DepthLoss,
        optimizer: Callable[[nn.Module], Optimizer] | None,
        scheduler: Callable[[Optimizer, int], LRScheduler] | None,
        protocols: Sequence[Protocol],
        seed: int = 0,
        run: Mapping[str, Any] | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if compile:
            network.compile()  # torch.compile(network) would rename the keys of its state
        self.network = network.to(memory_format=torch.channels_last)
        self.loss = loss
        self.protocols = list(protocols)
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._seed = seed
        self.run = dict(run or {})

    def forward(self, image: Tensor) -> Tensor:
        """Return depth [m], ``(B, 1, H, W)``, of an image ``(B, 3, H, W)``, ``uint8``."""
        depth: Tensor = self.network(image)
        return depth

    def on_train_batch_start(self, batch: Sample, batch_idx: int) -> None:
        """Seed the step, so that what it draws does not depend on what was drawn before."""
        torch.manual_seed(derive_seed(self._seed, self.global_rank, self.global_step))

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        pred = self.network(batch.image)
        loss, terms = self.loss(pred, batch.depth, batch.mask)
        delta1 = delta_accuracy(pred.detach(), batch.depth, batch.mask).nanmean().float()
        size = len(batch.image)
        self.log_dict(
            {"step/loss": loss.detach(), "step/delta1": delta1}, on_step=True, on_epoch=False, batch_size=size
        )
        epoch = {"train/loss": loss.detach(), "train/delta1": delta1}
        epoch |= {f"train/{name}": value for name, value in terms.items()}
        self.log_dict(epoch, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        result: Tensor = loss
        return result

    def on_validation_epoch_start(self) -> None:
        """Forget the last evaluation's rows."""
        self.evaluation = Evaluation(self.protocols)

    def validation_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """Judge a batch and return its prediction."""
        pred: Tensor = self.network(batch.image)
        flipped = self.network(batch.image.flip(-1)).flip(-1) if self.evaluation.flip_test else None
        self.evaluation.update(pred, batch.depth, batch.mask, batch.frame, flipped)
        return pred

    def on_validation_epoch_end(self) -> None:
        """Log the first protocol's figures; the rows are gathered over the processes here."""
        figures = self.evaluation.figures()[self.protocols[0].name]
        self.log_dict({f"val/{metric}": value for metric, value in figures.items()}, rank_zero_only=False)

    def on_test_epoch_start(self) -> None:
        """Forget the last evaluation's rows."""
        self.on_validation_epoch_start()

    def test_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """Judge a batch and return its prediction."""
        return self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        """Make the optimiser, and the schedule, which takes a step with every optimiser step."""
        if self._optimizer is None:
            return None
        optimizer = self._optimizer(self.network)
        if self._scheduler is None:
            return optimizer
        schedule = self._scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the record that lets the file be read without this run."""
        checkpoint[RECORD_KEY] = make_record(self.network, self.run)
