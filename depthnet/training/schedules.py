"""The learning-rate schedules, all of them torch's own."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

from depthnet.core.types import InputError


def one_cycle(
    optimizer: Optimizer, steps: int, warmup: float = 0.1, start: float = 0.04, end: float = 1e-3
) -> LRScheduler:
    """Rise to the optimiser's rates over a share of the steps, then fall by a cosine (Smith, 2018).

    Args:
        optimizer: Its groups' rates are the peaks.
        steps: Optimiser steps in the whole run.
        warmup: Share of the steps that rise, 0 to 1.
        start: First rate as a share of the peak.
        end: Last rate as a share of the peak.

    Raises:
        InputError: If ``warmup`` is outside 0 to 1, or ``start`` or ``end`` is not positive.
    """
    if not (0 < warmup < 1 and 0 < start <= 1 and 0 < end <= 1):
        raise InputError(f"scheduler: warmup={warmup}, start={start}, end={end}; each is a share between 0 and 1")
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


def cosine(optimizer: Optimizer, steps: int, warmup: float = 0.0, end: float = 0.0) -> LRScheduler:
    """Fall from the optimiser's rates by a half cosine, after a linear warm-up if one is asked for.

    Args:
        optimizer: Its groups' rates are the peaks.
        steps: Optimiser steps in the whole run.
        warmup: Share of the steps that rise, 0 to below 1.
        end: Last rate as a share of the peak.

    Raises:
        InputError: If ``warmup`` or ``end`` is no share.
    """
    if not 0 <= warmup < 1:
        raise InputError(f"scheduler.warmup={warmup}: it is a share of the steps, from 0 to below 1")
    _require_share(end)
    rising = round(warmup * steps)
    falling = _CosineToShare(optimizer, max(steps - rising, 1), end)
    if not rising:
        return falling
    return SequentialLR(optimizer, [LinearLR(optimizer, 0.01, 1.0, rising), falling], milestones=[rising])


def linear(optimizer: Optimizer, steps: int, end: float = 0.0) -> LRScheduler:
    """Fall in a line from the optimiser's rates to the share ``end`` of them at the last step.

    Raises:
        InputError: If ``end`` is no share.
    """
    _require_share(end)
    return LinearLR(optimizer, start_factor=1.0, end_factor=end, total_iters=max(steps, 1))


def _require_share(end: float) -> None:
    if not 0 <= end <= 1:
        raise InputError(f"scheduler.end={end}: it is a share of the optimizer's rate, from 0 to 1")


def constant(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Keep the optimiser's rates for all ``steps``."""
    return ConstantLR(optimizer, factor=1.0, total_iters=steps)
