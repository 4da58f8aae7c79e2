r"""The field's nine metrics of depth, one row per image, as functions and as a torchmetrics Metric.

    table = depth_metrics(pred, target, mask)          # nine names, each of shape (B,): the fused pass
    metrics = DepthMetrics(); metrics.update(pred, target, mask, frame); metrics.compute()

Every metric comes from one image's valid pixels alone, in float64; a set's metric is the mean of its rows. So the same
predictions give the same bits in every order, grouping and number of processes or threads.

NaN means one thing only: the image has no valid pixel. A prediction there that is NaN, infinite or not positive is
wrong by an infinite factor: it counts in no delta, and an error that it leaves without a value is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from depthnet.core.types import HIGHER_IS_BETTER
from depthnet.run.files import exact_mean

_CHUNK = 12_288  # pixels whose temporary arrays stay in a core's cache and below the size that malloc maps afresh
_TOLERANCE = 0.05  # between two rows of one frame: far above a network's noise, far below another image's row

METRIC_NAMES: tuple[str, ...] = tuple(HIGHER_IS_BETTER)
"""The nine names, in the order of every table."""


class _Pixels:
    """Some valid pixels of one image, and what the formulas share."""

    def __init__(self, pred: Tensor, target: Tensor, shift: Tensor | None) -> None:
        self.fraction = pred / target
        self.ratio = torch.maximum(self.fraction, target / pred)
        self.ratio.masked_fill_(self.ratio <= 0, math.inf)  # a negative prediction has a small ratio, and is not right
        self.difference = pred - target
        self.relative = self.difference / target
        self.log_error = self.fraction.log()
        # E[e^2] - E[e]^2 is the same for e less a constant, and does not cancel when that is near the mean.
        self.shift = self.log_error.mean() if shift is None else shift
        self.shifted = self.log_error - self.shift


_Formula = tuple[Callable[[_Pixels], Sequence[Tensor]], Callable[..., Tensor]]
_FORMULAS: dict[str, _Formula] = {  # what is averaged over the valid pixels, and the metric from these means
    "delta1": (lambda x: [x.ratio < 1.25], lambda mean: mean),
    "delta2": (lambda x: [x.ratio < 1.25**2], lambda mean: mean),
    "delta3": (lambda x: [x.ratio < 1.25**3], lambda mean: mean),
    "abs_rel": (lambda x: [x.relative.abs()], lambda mean: mean),
    "sq_rel": (lambda x: [x.difference * x.relative], lambda mean: mean),
    "rmse": (lambda x: [x.difference.square()], torch.sqrt),
    "rmse_log": (lambda x: [x.log_error.square()], torch.sqrt),
    "log10": (lambda x: [x.log_error.abs()], lambda mean: mean / math.log(10.0)),
    "silog": (
        lambda x: [x.shifted, x.shifted.square()],
        lambda mean, square: 100.0 * (square - mean.square()).clamp(min=0.0).sqrt(),
    ),
}


def _row(pred: Tensor, target: Tensor, mask: Tensor, formulas: Sequence[_Formula]) -> Tensor:
    """One image's metrics; chunk by chunk, so that neither neighbors nor threads change the order of the sums."""
    step = _CHUNK if pred.device.type == "cpu" else pred.numel()
    sums: list[list[Tensor]] = []
    count, shift = 0, None
    for start in range(0, pred.numel(), step):
        part = slice(start, start + step)
        p, t = (torch.masked_select(values[part], mask[part]).double() for values in (pred, target))
        if p.numel():
            pixels = _Pixels(p, t, shift)
            count, shift = count + p.numel(), pixels.shift
            sums.append([torch.stack([term.sum() for term in terms(pixels)]) for terms, _ in formulas])
    if not count:
        return torch.full((len(formulas),), math.nan, dtype=torch.float64, device=pred.device)
    means = [torch.stack(parts).double().sum(0) / count for parts in zip(*sums, strict=True)]
    values = torch.stack([finish(*mean) for (_, finish), mean in zip(formulas, means, strict=True)])
    return values.nan_to_num(nan=math.inf, posinf=math.inf)


def _rows(pred: Tensor, target: Tensor, mask: Tensor, names: Sequence[str] = METRIC_NAMES) -> Tensor:
    """One row per image, shape ``(B, len(names))``, float64."""
    if not pred.shape == target.shape == mask.shape or pred.ndim != 4 or mask.dtype != torch.bool:
        raise ValueError(
            "pred, target and mask need one shape (B, 1, H, W) and a bool mask; "
            f"got {tuple(pred.shape)}, {tuple(target.shape)} and {tuple(mask.shape)} of {mask.dtype}"
        )
    device = "cpu" if pred.device.type == "mps" else pred.device  # Apple's GPUs have no float64
    batch = [tensor.detach().to(device).flatten(1) for tensor in (pred, target, mask)]
    formulas = [_FORMULAS[name] for name in names]
    return torch.stack([_row(p, t, valid, formulas) for p, t, valid in zip(*batch, strict=True)])


def mean_rows(rows: Iterable[Sequence[float]]) -> dict[str, float]:
    """Average metrics over images, exactly rounded.

    Args:
        rows: Each image's metrics, in the order of :data:`METRIC_NAMES`; those of NaN, without a valid pixel, do not
            count.

    Returns:
        ``{name: mean}``; NaN where no image is left.
    """
    columns = list(zip(*rows, strict=True)) or [()] * len(METRIC_NAMES)
    return dict(zip(METRIC_NAMES, map(exact_mean, columns), strict=True))


def depth_metrics(pred: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Compute all nine metrics of each image in one pass; the single functions state formulas and sources.

    Args:
        pred: Predicted depth [m], shape ``(B, 1, H, W)``, positive.
        target: True depth [m], same shape; read only where ``mask`` is true.
        mask: Valid pixels, bool, same shape.

    Returns:
        ``{name: values}`` as :data:`METRIC_NAMES`, each ``(B,)``, float64; NaN for an image with no valid pixel.

    Raises:
        ValueError: If the three shapes differ or the mask is not bool.

    Example:
        >>> pred, target = torch.tensor([2.0, 3.0, 9.0]), torch.tensor([2.0, 2.0, 0.0])
        >>> row = depth_metrics(pred.view(1, 1, 1, 3), target.view(1, 1, 1, 3), (target > 0).view(1, 1, 1, 3))
        >>> {name: round(value.item(), 4) for name, value in row.items() if name in ("delta1", "abs_rel", "rmse")}
        {'delta1': 0.5, 'abs_rel': 0.25, 'rmse': 0.7071}
    """
    return dict(zip(METRIC_NAMES, _rows(pred, target, mask).unbind(1), strict=True))


def delta_accuracy(pred: Tensor, target: Tensor, mask: Tensor, power: int = 1) -> Tensor:
    r"""Share of valid pixels whose depth is right to within a factor: :math:`\max(p / t, t / p) < 1.25^k`.

    Args:
        pred: Predicted depth [m], shape ``(B, 1, H, W)``, positive.
        target: True depth [m], same shape; read only where ``mask`` is true.
        mask: Valid pixels, bool, same shape.
        power: The exponent k: 1, 2 or 3.

    Returns:
        One value in [0, 1] per image, shape ``(B,)``, float64; NaN for an image with no valid pixel.

    Raises:
        ValueError: If the three shapes differ or the mask is not bool.

    Source:
        Eigen et al., NeurIPS 2014, "Threshold".

    Example:
        >>> pred, target = torch.tensor([2.0, 2.4, 2.5, 1.7]).view(1, 1, 1, 4), torch.full((1, 1, 1, 4), 2.0)
        >>> delta_accuracy(pred, target, target > 0).item()
        0.75
    """
    return _rows(pred, target, mask, [f"delta{power}"])[:, 0]


def abs_rel(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    r"""Absolute relative error, :math:`\mathrm{mean}\,|p - t| / t`; the ground truth divides, never the prediction.

    Args, Returns and Raises as :func:`delta_accuracy`, the values from 0.

    Source:
        Eigen et al., NeurIPS 2014, "Abs Relative difference".

    Example:
        >>> pred, target = torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 2, 2), 2.0)
        >>> abs_rel(pred, target, target > 0).item()
        0.5
    """
    return _rows(pred, target, mask, ["abs_rel"])[:, 0]


def sq_rel(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    r"""Squared relative error, :math:`\mathrm{mean}\,(p - t)^2 / t` [m].

    Args, Returns and Raises as :func:`delta_accuracy`, the values from 0 [m].

    Source:
        Eigen et al., NeurIPS 2014, "Squared Relative difference" (divided by t, not by its square).

    Example:
        >>> pred, target = torch.full((1, 1, 2, 2), 4.0), torch.full((1, 1, 2, 2), 2.0)
        >>> sq_rel(pred, target, target > 0).item()
        2.0
    """
    return _rows(pred, target, mask, ["sq_rel"])[:, 0]


def rmse(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    r"""Root mean squared error, :math:`\sqrt{\mathrm{mean}\,(p - t)^2}` [m].

    Args, Returns and Raises as :func:`delta_accuracy`, the values from 0 [m].

    Source:
        Eigen et al., NeurIPS 2014, "RMSE (linear)"; per image, then averaged, as BTS and its successors do.

    Example:
        >>> pred, target = torch.tensor([2.0, 5.0]).view(1, 1, 1, 2), torch.tensor([5.0, 1.0]).view(1, 1, 1, 2)
        >>> round(rmse(pred, target, target > 0).item(), 4)
        3.5355
    """
    return _rows(pred, target, mask, ["rmse"])[:, 0]


def rmse_log(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    r"""Root mean squared error of the natural logarithm, :math:`\sqrt{\mathrm{mean}\,(\log p - \log t)^2}`.

    Args, Returns and Raises as :func:`delta_accuracy`, the values from 0.

    Source:
        Eigen et al., NeurIPS 2014, "RMSE (log)".

    Example:
        >>> target = torch.full((1, 1, 2, 2), 2.0)
        >>> round(rmse_log(2 * target, target, target > 0).item(), 4)
        0.6931
    """
    return _rows(pred, target, mask, ["rmse_log"])[:, 0]


def log10(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    r"""Mean error of the decimal logarithm, :math:`\mathrm{mean}\,|\log_{10} p - \log_{10} t|`.

    Args, Returns and Raises as :func:`delta_accuracy`, the values from 0.

    Source:
        Saxena et al., PAMI 2009; as in BTS' ``eval_with_pngs.py``.

    Example:
        >>> target = torch.full((1, 1, 2, 2), 2.0)
        >>> round(log10(10 * target, target, target > 0).item(), 9)
        1.0
    """
    return _rows(pred, target, mask, ["log10"])[:, 0]


def silog(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    r"""Scale-invariant error, :math:`100 \sqrt{\mathrm{mean}\,e^2 - (\mathrm{mean}\,e)^2}, e = \log p - \log t`.

    A factor on the whole image costs nothing. Lambda 0.5 (Eigen's) or 0.85 (BTS' loss) gives other numbers.

    Args, Returns and Raises as :func:`delta_accuracy`, the values from 0.

    Source:
        Eigen et al., NeurIPS 2014; the KITTI depth benchmark; BTS' ``eval_with_pngs.py``.

    Example:
        >>> pred, target = torch.tensor([math.e, 2.0]).view(1, 1, 1, 2), torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
        >>> round(silog(pred, target, target > 0).item(), 4)
        50.0
    """
    return _rows(pred, target, mask, ["silog"])[:, 0]


class DepthMetrics(Metric):
    """All nine metrics of a set of images: the means of their rows, over the images that have a valid pixel.

    A frame that comes twice (a padded sampler) counts once.

    Example:
        >>> metrics = DepthMetrics()
        >>> target = torch.full((2, 1, 4, 4), 2.0)
        >>> metrics.update(target * 1.5, target, target > 0, torch.tensor([0, 1]))
        >>> metrics.update(target[:1], target[:1], target[:1] > 0, 2)
        >>> {name: round(value.item(), 4) for name, value in metrics.compute().items() if name in ("delta1", "abs_rel")}
        {'delta1': 0.3333, 'abs_rel': 0.3333}
    """

    full_state_update = False
    depth_metrics: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("depth_metrics", default=[], dist_reduce_fx="cat")

    def update(self, pred: Tensor, target: Tensor, mask: Tensor, frame: Tensor | int) -> None:
        """Add a batch.

        Args:
            pred, target, mask: As :func:`depth_metrics`.
            frame: Each image's place in its split, int64, shape ``(B,)``; an int for a batch of one.

        Raises:
            ValueError: If the three shapes differ, the mask is not bool, or there is not one frame per image.
        """
        table = _rows(pred, target, mask)
        frames = torch.as_tensor(frame, dtype=torch.float64, device=table.device).reshape(-1, 1)
        if len(frames) != len(table):
            raise ValueError(f"{len(frames)} frame numbers for {len(table)} images; each image needs its own")
        self.depth_metrics.append(torch.cat([frames, table], dim=1))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows of all processes; one that has no image takes part with a table of no rows."""
        if len(self.depth_metrics) == 0:
            device = "cpu" if self.device.type == "mps" else self.device
            self.depth_metrics = [torch.empty(0, 1 + len(METRIC_NAMES), dtype=torch.float64, device=device)]
        super().sync(*args, **kwargs)

    def rows(self) -> tuple[Tensor, Tensor]:
        """Return each frame's row, of all processes; all of them have to call it.

        Returns:
            Frames, int64, ``(n,)``, ascending, each once, and their metrics, float64, ``(n, 9)``; NaN for an image with
            no valid pixel.

        Raises:
            ValueError: If two images came under one frame number.
        """
        with self.sync_context(should_sync=not self._is_synced, should_unsync=not self._is_synced):
            table = dim_zero_cat(self.depth_metrics)
        table = table[table[:, 0].argsort(stable=True)]
        close = torch.isclose(table, table.roll(1, 0), rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True).all(1)
        repeat = table[:, 0] == table[:, 0].roll(1, 0)  # a distributed sampler pads with frames that it gave already
        repeat[:1] = False
        if (repeat & ~close).any():
            number = int(table[repeat & ~close][0, 0])
            raise ValueError(f"frame {number} came twice with other metrics; frame has to number the images of a split")
        table = table[~repeat]
        return table[:, 0].long(), table[:, 1:]

    def compute(self) -> dict[str, Tensor]:
        """Return ``{name: mean}`` in the order of :data:`METRIC_NAMES`, float64 scalars; NaN where no image counts."""
        table = self.rows()[1]
        return {name: table.new_tensor(mean) for name, mean in mean_rows(table.tolist()).items()}
