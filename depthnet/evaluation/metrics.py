r"""The field's nine figures of depth, one row per image, as functions and as torchmetrics Metrics.

    table = depth_metrics(pred, target, mask)          # nine names, each of shape (B,): the fused pass
    metrics = DepthMetrics(); metrics.update(pred, target, mask, frame); metrics.compute()

Every figure comes from one image's valid pixels alone, in float64; a set's figure is the mean of its rows. So the same
predictions give the same bits in every order, grouping and number of processes or threads.

NaN means one thing only: the image has no valid pixel. A prediction there that is NaN, infinite or not positive is
wrong by an infinite factor: it counts in no delta, and an error that it leaves without a value is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from depthnet.core.types import HIGHER_IS_BETTER

_CHUNK = 12_288  # pixels whose temporary arrays stay in a core's cache and below the size that malloc maps afresh
_TOLERANCE = 0.05  # between two rows of one frame: far above a network's noise, far below another image's row


class _Chunk:
    """Some valid pixels of one image, and what the figures share, each computed once and only if it is asked for."""

    def __init__(self, pred: Tensor, target: Tensor, mask: Tensor) -> None:
        self.pred = torch.masked_select(pred, mask).double()
        self.target = torch.masked_select(target, mask).double()

    @cached_property
    def fraction(self) -> Tensor:
        return self.pred / self.target

    @cached_property
    def ratio(self) -> Tensor:
        ratio = torch.maximum(self.fraction, self.target / self.pred)
        return ratio.masked_fill_(ratio <= 0, math.inf)  # a negative prediction has a small ratio, and is not right

    @cached_property
    def difference(self) -> Tensor:
        return self.pred - self.target

    @cached_property
    def relative(self) -> Tensor:
        return self.difference / self.target

    @cached_property
    def log_error(self) -> Tensor:
        return self.fraction.log()


class _Formula(NamedTuple):
    """A figure: sums over a chunk (given it and some log error of its image), and what to do with the means."""

    sums: Callable[[_Chunk, Tensor], list[Tensor]]
    finish: Callable[..., Tensor]


def _delta(power: float) -> _Formula:
    return _Formula(lambda chunk, _: [(chunk.ratio < 1.25**power).count_nonzero()], lambda mean: mean)


def _log_moments(chunk: _Chunk, shift: Tensor) -> list[Tensor]:
    # E[e^2] - E[e]^2 is the same for e less a constant, and does not cancel when that is near the mean.
    error = chunk.log_error - shift
    return [error.sum(), error.square().sum()]


_FORMULAS: dict[str, _Formula] = {
    "delta1": _delta(1),
    "delta2": _delta(2),
    "delta3": _delta(3),
    "abs_rel": _Formula(lambda chunk, _: [chunk.relative.abs().sum()], lambda mean: mean),
    "sq_rel": _Formula(lambda chunk, _: [(chunk.difference * chunk.relative).sum()], lambda mean: mean),
    "rmse": _Formula(lambda chunk, _: [chunk.difference.square().sum()], torch.sqrt),
    "rmse_log": _Formula(lambda chunk, _: [chunk.log_error.square().sum()], torch.sqrt),
    "log10": _Formula(lambda chunk, _: [chunk.log_error.abs().sum()], lambda mean: mean / math.log(10.0)),
    "silog": _Formula(_log_moments, lambda mean, square: 100.0 * (square - mean.square()).clamp(min=0.0).sqrt()),
}

METRIC_NAMES: tuple[str, ...] = tuple(HIGHER_IS_BETTER)
"""The nine names, in the order of every table."""


def _row(image: Sequence[Tensor], formulas: Sequence[_Formula]) -> Tensor:
    """One image's figures; chunk by chunk, so that neither neighbours nor threads change the order of the sums."""
    step = _CHUNK if image[0].device.type == "cpu" else image[0].numel()
    sums: list[list[Tensor]] = []
    count, shift = 0, torch.zeros(())
    for start in range(0, image[0].numel(), step):
        chunk = _Chunk(*(tensor[start : start + step] for tensor in image))
        if chunk.pred.numel():
            shift = shift if count else chunk.log_error.mean()
            count += chunk.pred.numel()
            sums.append([torch.stack(formula.sums(chunk, shift)) for formula in formulas])
    if not count:
        return torch.full((len(formulas),), math.nan, dtype=torch.float64, device=image[0].device)
    means = [torch.stack(parts).double().sum(0) / count for parts in zip(*sums, strict=True)]
    values = torch.stack([formula.finish(*mean) for formula, mean in zip(formulas, means, strict=True)])
    return values.nan_to_num(nan=math.inf, posinf=math.inf)


def _rows(pred: Tensor, target: Tensor, mask: Tensor, formulas: Sequence[_Formula]) -> Tensor:
    """One row per image, shape ``(B, len(formulas))``, float64."""
    if not pred.shape == target.shape == mask.shape or pred.ndim != 4 or mask.dtype != torch.bool:
        raise ValueError(
            "pred, target and mask need one shape (B, 1, H, W) and a bool mask; "
            f"got {tuple(pred.shape)}, {tuple(target.shape)} and {tuple(mask.shape)} of {mask.dtype}"
        )
    device = "cpu" if pred.device.type == "mps" else pred.device  # Apple's GPUs have no float64
    batch = [tensor.detach().to(device).flatten(1) for tensor in (pred, target, mask)]
    return torch.stack([_row(image, formulas) for image in zip(*batch, strict=True)])


def depth_metrics(pred: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """All nine figures of each image in one pass; their formulas and sources stand with the single functions.

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
    return dict(zip(METRIC_NAMES, _rows(pred, target, mask, list(_FORMULAS.values())).unbind(1), strict=True))


def delta_accuracy(pred: Tensor, target: Tensor, mask: Tensor, power: float = 1) -> Tensor:
    r"""Share of valid pixels whose depth is right to within a factor: :math:`\max(p / t, t / p) < 1.25^k`.

    Args:
        pred: Predicted depth [m], shape ``(B, 1, H, W)``, positive.
        target: True depth [m], same shape; read only where ``mask`` is true.
        mask: Valid pixels, bool, same shape.
        power: The exponent k; the field reports 1, 2 and 3.

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
    return _rows(pred, target, mask, [_delta(power)])[:, 0]


def abs_rel(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    r"""Absolute relative error, :math:`\mathrm{mean}\,|p - t| / t`; the truth divides, never the prediction.

    Args, Returns and Raises as :func:`delta_accuracy`, the values from 0.

    Source:
        Eigen et al., NeurIPS 2014, "Abs Relative difference".

    Example:
        >>> pred, target = torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 2, 2), 2.0)
        >>> abs_rel(pred, target, target > 0).item()
        0.5
    """
    return _rows(pred, target, mask, [_FORMULAS["abs_rel"]])[:, 0]


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
    return _rows(pred, target, mask, [_FORMULAS["sq_rel"]])[:, 0]


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
    return _rows(pred, target, mask, [_FORMULAS["rmse"]])[:, 0]


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
    return _rows(pred, target, mask, [_FORMULAS["rmse_log"]])[:, 0]


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
    return _rows(pred, target, mask, [_FORMULAS["log10"]])[:, 0]


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
    return _rows(pred, target, mask, [_FORMULAS["silog"]])[:, 0]


class _FrameMetric(Metric):
    """One row per frame, gathered over processes: the frame's number, then its figures."""

    full_state_update = False

    def __init__(self, names: Sequence[str], state: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names, self._state = tuple(names), state
        self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, pred: Tensor, target: Tensor, mask: Tensor, frame: Tensor | int) -> None:
        """Add a batch.

        Args:
            pred, target, mask: As :func:`depth_metrics`.
            frame: Each image's place in its split, int64, shape ``(B,)``; an int for a batch of one.

        Raises:
            ValueError: If the three shapes differ, the mask is not bool, or there is not one frame per image.
        """
        table = _rows(pred, target, mask, [_FORMULAS[name] for name in self.names])
        frames = torch.as_tensor(frame, dtype=torch.float64, device=table.device).reshape(-1, 1)
        if len(frames) != len(table):
            raise ValueError(f"{len(frames)} frame numbers for {len(table)} images; each image needs its own")
        getattr(self, self._state).append(torch.cat([frames, table], dim=1))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows of all processes; one that has no image takes part with a table of no rows."""
        if len(getattr(self, self._state)) == 0:
            device = "cpu" if self.device.type == "mps" else self.device
            empty = torch.empty(0, 1 + len(self.names), dtype=torch.float64, device=device)
            setattr(self, self._state, [empty])
        super().sync(*args, **kwargs)

    def rows(self) -> tuple[Tensor, Tensor]:
        """Each frame's row, of all processes; all of them have to call it.

        Returns:
            Frames, int64, ``(n,)``, ascending, each once, and their figures, float64, ``(n, len(names))``.

        Raises:
            ValueError: If two images came under one frame number.
        """
        with self.sync_context(should_sync=not self._is_synced, should_unsync=not self._is_synced):
            table = self._by_frame()
        return table[:, 0].long(), table[:, 1:]

    def empty_frames(self) -> list[int]:
        """The frames without a valid pixel, which no mean counts. Called, and raises, as :meth:`rows`."""
        frames, table = self.rows()
        return [int(frame) for frame in frames[table.isnan().any(1)]]

    def _by_frame(self) -> Tensor:
        table = dim_zero_cat(getattr(self, self._state))
        table = table[table[:, 0].argsort(stable=True)]
        close = torch.isclose(table, table.roll(1, 0), rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True).all(1)
        repeat = table[:, 0] == table[:, 0].roll(1, 0)  # a distributed sampler pads with frames that it gave already
        repeat[:1] = False
        if (repeat & ~close).any():
            number = int(table[repeat & ~close][0, 0])
            raise ValueError(f"frame {number} came twice with other figures; frame has to number the images of a split")
        return table[~repeat]

    def _means(self) -> list[Tensor]:
        table = self._by_frame()[:, 1:]
        valid = table[~table.isnan().any(1)]
        means = [math.fsum(column) / len(valid) if len(valid) else math.nan for column in valid.T.tolist()]
        return list(table.new_tensor(means).unbind())


class DepthMetrics(_FrameMetric):
    """All nine figures of a set of images: the means of their rows, over the images that have a valid pixel.

    A frame that comes twice (a padded sampler) counts once

    Example:
        >>> metrics = DepthMetrics()
        >>> target = torch.full((2, 1, 4, 4), 2.0)
        >>> metrics.update(target * 1.5, target, target > 0, torch.tensor([0, 1]))
        >>> metrics.update(target[:1], target[:1], target[:1] > 0, 2)
        >>> {name: round(value.item(), 4) for name, value in metrics.compute().items() if name in ("delta1", "abs_rel")}
        {'delta1': 0.3333, 'abs_rel': 0.3333}
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(METRIC_NAMES, "depth_metrics", **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """Return ``{name: mean}`` in the order of :data:`METRIC_NAMES`, float64 scalars; NaN where no image counts."""
        return dict(zip(self.names, self._means(), strict=True))


class DepthMetric(_FrameMetric):
    """One of the nine figures, for a MetricCollection or ``self.log``; :class:`DepthMetrics` gives all in one pass.

    Args:
        name: One of :data:`METRIC_NAMES`.
        **kwargs: What torchmetrics' Metric takes.

    Raises:
        ValueError: If the name is unknown.

    Example:
        >>> target = torch.full((1, 1, 4, 4), 2.0)
        >>> DepthMetric("abs_rel")(target * 1.5, target, target > 0, 0).item()
        0.5
    """

    def __init__(self, name: str, **kwargs: Any) -> None:
        if name not in _FORMULAS:
            raise ValueError(f"{name!r} is no metric; there are {', '.join(METRIC_NAMES)}")
        # MetricCollection merges metrics whose states have one name and, after the first batch, equal values, as delta2
        # and delta3 have when both are 1.0; so the state bears the metric's name.
        super().__init__([name], name, **kwargs)
        self.__dict__["higher_is_better"] = HIGHER_IS_BETTER[name]  # torchmetrics refuses a plain assignment

    def compute(self) -> Tensor:
        """Return the mean over the images with a valid pixel, a float64 scalar; NaN if there is none."""
        return self._means()[0]
