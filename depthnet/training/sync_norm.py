"""Batch normalization over all processes, in timm's networks too."""

from __future__ import annotations

from lightning.pytorch.plugins import TorchSyncBatchNorm
from torch import nn


class SyncNorm(TorchSyncBatchNorm):
    """What ``trainer.sync_batchnorm`` stands for: Lightning's own would leave out activations.

    Most of timm's networks have normalization and activation in one module. torch's conversion, which Lightning calls,
    makes a normalization alone of it, and the network computes something else.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Return the network with its batch normalization over all processes; weights keep their names."""
        from timm.layers import convert_sync_batchnorm

        converted: nn.Module = convert_sync_batchnorm(model)
        return converted

    def revert(self, model: nn.Module) -> nn.Module:
        """Return the network as it is: where it does not learn, it computes what it did before."""
        return model
