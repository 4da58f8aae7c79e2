"""Additive attention gates on skip connections."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_OPEN = 3.0  # as the authors' code; sigmoid(3) = 0.95


class AttentionGate(nn.Module):
    r"""Weighs each pixel of a skip by a coefficient between 0 and 1, the same for all of its channels.

    .. math::
        \alpha = \sigma(\psi^T \mathrm{relu}(W_x x + W_g g + b_g) + b_\psi), \qquad \hat{x} = \alpha x

    The coefficients are computed at the gate's size, to which the skip is resampled, and upsampled to the skip's. An
    untrained gate lets nearly everything through, as in the paper.

    Args:
        skip_channels: Channels of the skip.
        gate_channels: Channels of the gating signal, which is the coarser of the two.

    Source:
        Oktay et al., MIDL 2018, "Attention U-Net: Learning Where to Look for the Pancreas".

    Example:
        >>> gate = AttentionGate(skip_channels=8, gate_channels=16)
        >>> weighed, alpha = gate(torch.ones(1, 8, 11, 15), torch.ones(1, 16, 5, 7))
        >>> weighed.shape, alpha.shape
        (torch.Size([1, 8, 11, 15]), torch.Size([1, 1, 11, 15]))
    """

    def __init__(self, skip_channels: int, gate_channels: int) -> None:
        super().__init__()
        inter_channels = max(1, skip_channels // 2)
        self.skip_projection = nn.Conv2d(skip_channels, inter_channels, kernel_size=1, bias=False)
        self.gate_projection = nn.Conv2d(gate_channels, inter_channels, kernel_size=1)
        self.psi = nn.Conv2d(inter_channels, 1, kernel_size=1)
        nn.init.constant_(self.psi.bias, _OPEN)  # type: ignore[arg-type]

    def forward(self, skip: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh a skip.

        Args:
            skip: Shape ``(B, skip_channels, H, W)``.
            gate: Shape ``(B, gate_channels, h, w)``, of any size.

        Returns:
            The weighed skip, of the skip's shape, and its coefficients in [0, 1], shape ``(B, 1, H, W)``.
        """
        coarse = F.interpolate(skip, gate.shape[-2:], mode="bilinear", align_corners=False)
        score = self.psi(F.relu(self.skip_projection(coarse) + self.gate_projection(gate)))
        alpha = F.interpolate(torch.sigmoid(score), skip.shape[-2:], mode="bilinear", align_corners=False)
        return skip * alpha, alpha
