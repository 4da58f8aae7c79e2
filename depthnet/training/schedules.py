"""The learning-rate schedules, all of them torch's own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), "a share, from 0 to 1"]
PositiveShare = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), "a share, above 0 and at most 1"]


def one_cycle(
    optimizer: Optimizer,
    steps: int,
    warmup: Share = 0.1,
    start: PositiveShare = 0.04,
    end: PositiveShare = 1e-3,
) -> LRScheduler:
    """Rise to the optimizer's rates over a share of the steps, then fall by a cosine (Smith, 2018).

    Args:
        optimizer: Its groups' rates are the peaks.
        steps: Optimizer steps in the whole run.
        warmup: Share of the steps that rise, 0 to 1.
        start: First rate as a share of the peak.
        end: Last rate as a share of the peak.
    """
    # below two rising steps torch's formula divides by zero
    share = min(max(warmup, 2.0 / max(steps, 3)), 0.9)
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=max(steps, 3) + 1,
        pct_start=share,
        div_factor=1 / start,
        final_div_factor=start / end,
        cycle_momentum=False,
    )


class _CosineToShare(CosineAnnealingLR):
    """Torch's, but ends at a share of each group's own rate."""

    def __init__(self, optimizer: Optimizer, steps: int, share: float) -> None:
        self._share = share
        super().__init__(optimizer, T_max=steps)

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of each group."""
        rates = []
        for number, peak in enumerate(self.base_lrs):
            self.eta_min = self._share * float(peak)
            rates.append(super().get_lr()[number])
        return rates


def cosine(optimizer: Optimizer, steps: int, warmup: Share = 0.0, end: Share = 0.0) -> LRScheduler:
    """Fall from the optimizer's rates by a half cosine, after a linear warm-up if one is asked for.

    Args:
        optimizer: Its groups' rates are the peaks.
        steps: Optimizer steps in the whole run.
        warmup: Share of the steps that rise.
        end: Last rate as a share of the peak.
    """
    rising = round(warmup * steps)
    falling = _CosineToShare(optimizer, max(steps - rising, 1), end)
    if not rising:
        return falling
    return SequentialLR(optimizer, [LinearLR(optimizer, 0.01, 1.0, rising), falling], milestones=[rising])


def linear(optimizer: Optimizer, steps: int, end: Share = 0.0) -> LRScheduler:
    """Fall in a line from the optimizer's rates to the share ``end`` of them at the last step."""
    return LinearLR(optimizer, start_factor=1.0, end_factor=end, total_iters=max(steps, 1))


def constant(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Keep the optimizer's rates for all ``steps``."""
    return ConstantLR(optimizer, factor=1.0, total_iters=steps)
