"""The LightningModule: a network, a loss and protocols, and the hooks that tie them to a Trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from depthnet.core.types import InputError, Sample
from depthnet.data.sampler import derive_seed
from depthnet.evaluation.evaluator import Evaluation
from depthnet.evaluation.metrics import delta_accuracy
from depthnet.evaluation.protocols import Protocol
from depthnet.models.checkpoint import RECORD_KEY, make_record
from depthnet.models.network import DepthNetwork, focal_lengths
from depthnet.training.callbacks.ema import WeightEMA
from depthnet.training.losses import DepthLoss

_SUMS = "epoch_sums"


class DepthModule(LightningModule):
    """Trains and evaluates one network.

    It logs ``train/loss``, the loss's terms and ``train/delta1`` (averages over an epoch and all processes, kept in
    checkpoints, so that an epoch that was interrupted has the averages of all its steps), ``step/loss`` and
    ``step/delta1`` (of the first process), and after every validation ``val/<metric>`` for each metric of the first
    protocol.

    Args:
        network: Gives depth [m], ``(B, 1, H, W)``, from an ``uint8`` image ``(B, 3, H, W)``.
        loss: Gives the weighted sum and the named terms.
        optimizer: Makes the optimizer of a network.
        scheduler: Makes the schedule from the optimizer and the run's number of steps.
        protocols: How predictions are evaluated; the first one's figures are logged.
        seed: What is random in a step (dropout) follows from it, the epoch and the batch's number.
        run: The run's resolved config, stored as a record in its checkpoints.
        compile: Whether the network is compiled.
    """

    evaluation: Evaluation

    def __init__(
        self,
        network: nn.Module,
        loss: DepthLoss,
        optimizer: Callable[[nn.Module], Optimizer],
        scheduler: Callable[[Optimizer, int], LRScheduler],
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
        self._sums: dict[str, Tensor] = {}  # of this epoch's images, their number under ""

    def forward(self, image: Tensor, intrinsics: Tensor | None = None) -> Tensor:
        """Return depth [m], ``(B, 1, H, W)``, of an image ``(B, 3, H, W)``, ``uint8``, and its camera ``(B, 4)`` [px].

        A network that takes images alone is called with images alone.
        """
        focal = focal_lengths(intrinsics) if isinstance(self.network, DepthNetwork) else None
        depth: Tensor = self.network(image) if focal is None else self.network(image, focal)
        return depth

    def on_train_epoch_start(self) -> None:
        """Start new averages; Lightning leaves this out where an epoch is resumed."""
        self._sums.clear()

    def on_train_batch_start(self, batch: Sample, batch_idx: int) -> None:
        """Seed the step, so that what it draws does not depend on what was drawn before."""
        torch.manual_seed(derive_seed(self._seed, self.global_rank, self.current_epoch, batch_idx))

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """Return the loss of a batch.

        Raises:
            InputError: If a batch of one image leaves normalization a single value to normalize.
        """
        try:
            pred = self(batch.image, batch.intrinsics)
        except (ValueError, RuntimeError) as error:  # torch's own, and as torch.compile wraps it
            if "Expected more than 1 " not in str(error):
                raise
            size = "x".join(map(str, batch.image.shape[-2:]))
            raise InputError(
                f"training batches of {len(batch.image)} image of {size} give a normalization layer one value per "
                "channel; give a larger data.batch_size (with as many frames) or a larger data.image_size"
            ) from error
        loss, terms = self.loss(pred, batch.depth, batch.mask)
        delta1 = delta_accuracy(pred.detach(), batch.depth, batch.mask).nanmean().float()
        step = {"loss": loss.detach(), "delta1": delta1}
        self.log_dict({f"step/{name}": step[name] for name in step}, on_step=True, on_epoch=False, batch_size=1)
        self._add({**step, **terms}, len(batch.image))
        result: Tensor = loss
        return result

    def on_train_epoch_end(self) -> None:
        """Log the averages of the epoch."""
        sums = {name: total.sum() for name, total in self._all_sums().items()}
        if sums:
            averages = {f"train/{name}": total / sums[""] for name, total in sums.items() if name}
            self.log_dict(averages, batch_size=1)

    def on_validation_epoch_start(self) -> None:
        """Forget the last evaluation's rows."""
        self.evaluation = Evaluation(self.protocols)

    def validation_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """Evaluate a batch and return its prediction."""
        pred: Tensor = self(batch.image, batch.intrinsics)
        flipped = self(batch.image.flip(-1), batch.intrinsics).flip(-1) if self.evaluation.flip_test else None
        self.evaluation.update(pred, batch.depth, batch.mask, batch.frame, flipped)
        return pred

    def on_validation_epoch_end(self) -> None:
        """Log the first protocol's figures; the rows are gathered over the processes here."""
        figures = self.evaluation.figures()[self.protocols[0].name]
        self.log_dict({f"val/{metric}": value for metric, value in figures.items()}, rank_zero_only=False)

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step

    def configure_optimizers(self) -> Any:
        """Make the optimizer, and the schedule, which takes a step with every optimizer step.

        Raises:
            InputError: If the run has no last step.
        """
        optimizer = self._optimizer(self.network)
        steps = self.trainer.estimated_stepping_batches
        if steps == math.inf:
            raise InputError("the learning rate's schedule needs an end; give trainer.max_epochs or trainer.max_steps")
        schedule = self._scheduler(optimizer, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the record that lets the file be read without this run, and the sums of an epoch under way.

        Where weights are averaged over steps, those are what was validated; Lightning leaves them out of a checkpoint
        of weights alone.
        """
        checkpoint[RECORD_KEY] = make_record(self.network, self.run)
        checkpoint[_SUMS] = self._all_sums()
        if "callbacks" not in checkpoint:
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # Lightning's type leaves it out
                if isinstance(callback, WeightEMA):
                    checkpoint["state_dict"] = {**checkpoint["state_dict"], **callback.average}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the sums of an epoch that is resumed."""
        rank = self.global_rank
        sums = {name: value.reshape(-1).to(self.device) for name, value in checkpoint.get(_SUMS, {}).items()}
        self._sums = {name: value[rank] for name, value in sums.items() if rank < len(value)}

    def _all_sums(self) -> dict[str, Tensor]:
        """The sums of every process, each of shape ``(processes,)``; scalars where there is one."""
        if not torch.distributed.is_initialized() or not self._sums:
            return dict(self._sums)
        own = torch.stack(list(self._sums.values())).to(self.device)  # a checkpoint's are read before there is a GPU
        gathered = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(gathered, own)
        return dict(zip(self._sums, torch.stack(gathered, dim=1), strict=True))

    def _add(self, values: Mapping[str, Tensor], images: int) -> None:
        """Add a batch's averages; one whose loss is not finite, or that has no valid pixel, is left out."""
        finite = values["loss"].isfinite() & values["delta1"].isfinite()  # no valid pixel: no accuracy
        for name, value in {"": torch.ones_like(values["loss"]), **values}.items():
            self._sums[name] = self._sums.get(name, 0.0) + torch.where(finite, value.float() * images, 0.0)
