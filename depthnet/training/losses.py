r"""Masked losses, each one value per image, and their weighted sum.

    criterion = DepthLoss({"ssim": 1.0, "gradient": 1.0, "l1": 0.3}, DepthRange(1e-3, 10.0), unit="fraction")
    loss, terms = criterion(pred, depth, mask)

Every loss takes prediction, ground truth and mask of shape ``(B, 1, H, W)`` and gives ``(B,)``; :class:`DepthLoss`
checks their shapes and passes them on in float32, at any precision around it. An image's value is a mean over
its own valid pixels, so one with many holes weighs as much as another; one without a valid pixel counts 0 and moves
nothing, and a perfect prediction costs 0. What stands at an invalid pixel, NaN and infinity too, reaches neither the
value nor the gradient. A loss that draws, such as pairs of pixels, draws from torch's own generator, which the module
seeds for each step by seed, epoch and batch. In the formulas p is the prediction, t the ground truth, e = p - t.

A new loss is a function of this form and a line in :data:`TERMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from depthnet.core.types import DepthRange, InputError, RangeLike

_MIN_LOG_DEPTH = 1e-6
_SSIM_RADIUS = 5
_SSIM_SIGMA = 1.5


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Each image's mean over its valid pixels, shape ``(B,)``; 0, and no gradient, where it has none."""
    total = torch.where(mask, values, 0.0).sum(dim=(1, 2, 3))
    return total / mask.sum(dim=(1, 2, 3)).clamp(min=1)


def _error(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """``pred - target``, 0 at invalid pixels; chosen before the arithmetic, for 0 times NaN is NaN."""
    return torch.where(mask, pred, 0.0) - torch.where(mask, target, 0.0)


def _log_error(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """``log pred - log target``, 0 at invalid pixels; finite for a prediction of 0 or below."""
    pred, target = (torch.where(mask, depth, 1.0).clamp(min=_MIN_LOG_DEPTH).log() for depth in (pred, target))
    return pred - target


def _slope(error: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``|dx|`` plus mean of ``|dy|`` over the pairs of neighbors that are both valid."""
    dx, x_valid = error[..., :, 1:] - error[..., :, :-1], mask[..., :, 1:] & mask[..., :, :-1]
    dy, y_valid = error[..., 1:, :] - error[..., :-1, :], mask[..., 1:, :] & mask[..., :-1, :]
    return _mean(dx.abs(), x_valid) + _mean(dy.abs(), y_valid)


def _safe_sqrt(values: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0, where that of ``sqrt`` is infinite."""
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1.0).sqrt(), 0.0)


def l1_loss(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    r"""Mean absolute error, :math:`\mathrm{mean}\,|p - t|` [m].

    Args:
        pred: Predicted depth [m], shape ``(B, 1, H, W)``.
        target: True depth [m], same shape; read only where ``mask`` is true.
        mask: Valid pixels, bool, same shape.

    Returns:
        One value [m] per image, shape ``(B,)``, float32; 0 for an image with no valid pixel.

    Example:
        >>> target = torch.tensor([[[[2.0, 4.0, float("nan")]]]])
        >>> l1_loss(torch.full_like(target, 3.5), target, target > 0).item()
        1.0
    """
    return _mean(_error(pred, target, mask).abs(), mask)


def gradient_loss(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    r"""Edges: how far the slopes of the prediction are from the ground truth's.

    .. math:: \mathrm{mean}\,|e_{y, x+1} - e_{y, x}| + \mathrm{mean}\,|e_{y+1, x} - e_{y, x}|

    A pair of neighbors counts if both are valid; each of the two means is over its own pairs.

    Args:
        pred: Predicted depth [m], shape ``(B, 1, H, W)``.
        target: True depth [m], same shape; read only where ``mask`` is true.
        mask: Valid pixels, bool, same shape.

    Returns:
        One value [m per pixel] per image, shape ``(B,)``, float32; 0 for an image with no two valid neighbors.

    Source:
        Alhashim and Wonka, "High Quality Monocular Depth Estimation via Transfer Learning", 2018, equation 3.

    Example:
        >>> target = torch.ones(1, 1, 1, 3)
        >>> gradient_loss(torch.tensor([[[[1.0, 2.0, 5.0]]]]), target, target > 0).item()
        2.0
    """
    return _slope(_error(pred, target, mask), mask)


def ssim_loss(pred: Tensor, target: Tensor, mask: Tensor, max_depth: float = 1.0) -> Tensor:
    r"""Structural dissimilarity, the mean of :math:`(1 - \mathrm{SSIM}) / 2`, in [0, 1].

    The usual window: 11x11 Gaussian, sigma 1.5, :math:`K_1 = 0.01, K_2 = 0.03`, dynamic range L = ``max_depth``. It
    stands on every valid pixel from which it stays inside the image, as in ``tf.image.ssim``; an image smaller than
    the window is surrounded by holes. Inside a window the holes weigh nothing and the other weights are scaled up to 1,
    so a window's statistics are those of its valid pixels, and without holes this is the SSIM of Wang et al.

    Args:
        pred: Predicted depth [m], shape ``(B, 1, H, W)``.
        target: True depth [m], same shape; read only where ``mask`` is true.
        mask: Valid pixels, bool, same shape.
        max_depth: The dynamic range L, in the unit of the depths.

    Returns:
        One value per image, shape ``(B,)``, float32; 0 where no window stands on a valid pixel.

    Source:
        Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004; as a loss on
        depth: Alhashim and Wonka 2018, equation 4.

    Example:
        >>> target = torch.rand(1, 1, 16, 16)
        >>> round(ssim_loss(target, target, target >= 0).item(), 6)
        0.0
    """
    missing = [max(0, 2 * _SSIM_RADIUS + 1 - side) for side in pred.shape[-2:]]
    if any(missing):
        pred, target, mask = (F.pad(map_, (0, missing[1], 0, missing[0])) for map_ in (pred, target, mask))
    rows, columns = (_gaussian_rows(side, pred) for side in pred.shape[-2:])

    def blur(maps: Tensor) -> Tensor:
        return rows @ maps @ columns.T

    # Variances do not change when both maps are shifted, and near 0 their difference of squares loses fewer digits.
    shift = _mean(target, mask).view(-1, 1, 1, 1)
    pred, target = (torch.where(mask, depth - shift, 0.0) for depth in (pred, target))
    weight, mean_t = blur(torch.cat([mask.float(), target], dim=1)).chunk(2, dim=1)
    maps = torch.cat([pred, pred.square() + target.square(), pred * target], dim=1)
    inside = mask[..., _SSIM_RADIUS:-_SSIM_RADIUS, _SSIM_RADIUS:-_SSIM_RADIUS]
    scale = 1.0 / torch.where(inside, weight, 1.0)
    mean_t = mean_t * scale
    mean_p, squares, product = (blur(maps) * scale).chunk(3, dim=1)

    variances = (squares - mean_p.square() - mean_t.square()).clamp(min=0.0)
    covariance = product - mean_p * mean_t
    mean_p, mean_t = mean_p + shift, mean_t + shift
    c1, c2 = (0.01 * max_depth) ** 2, (0.03 * max_depth) ** 2
    luminance = (2.0 * mean_p * mean_t + c1) / (mean_p.square() + mean_t.square() + c1)
    structure = (2.0 * covariance + c2) / (variances + c2)
    return _mean(((1.0 - luminance * structure) / 2.0).clamp(0.0, 1.0), inside)


def _gaussian_rows(size: int, like: Tensor) -> Tensor:
    """The window at each of its places along one side, shape ``(size - 10, size)``: a blur is two matrix products.

    On a CPU they take a tenth of the time of a convolution with one channel.
    """
    places = torch.arange(size, device=like.device, dtype=like.dtype)
    offset = places - places[: size - 2 * _SSIM_RADIUS, None] - _SSIM_RADIUS
    window = torch.where(offset.abs() <= _SSIM_RADIUS, (-offset.square() / (2 * _SSIM_SIGMA**2)).exp(), 0.0)
    return window / window.sum(dim=1, keepdim=True)


def silog_loss(pred: Tensor, target: Tensor, mask: Tensor, variance_focus: float = 0.85) -> Tensor:
    r"""Scale-invariant logarithmic error.

    .. math:: \sqrt{\mathrm{mean}\,d^2 - \lambda\,(\mathrm{mean}\,d)^2}, \quad d = \log p - \log t

    Computed as variance plus :math:`(1 - \lambda)` squared mean, which cannot fall below 0. BTS and its successors
    multiply it by 10: here that is the term's weight.

    Args:
        pred: Predicted depth [m], shape ``(B, 1, H, W)``; taken as 1e-6 where it is less.
        target: True depth [m], same shape; read only where ``mask`` is true.
        mask: Valid pixels, bool, same shape.
        variance_focus: Lambda, 0 to 1; at 1 a common factor costs nothing.

    Returns:
        One value per image, shape ``(B,)``, float32; 0 for an image with no valid pixel.

    Source:
        Eigen et al., NeurIPS 2014, equation 4; lambda and the root: Lee et al., "From Big to Small" (BTS), 2019.

    Example:
        >>> target = torch.ones(1, 1, 2, 2)
        >>> round(silog_loss(target * torch.e, target, target > 0, variance_focus=0.75).item(), 4)
        0.5
    """
    error = _log_error(pred, target, mask)
    mean = _mean(error, mask)
    variance = _mean((error - mean.view(-1, 1, 1, 1)).square(), mask)
    return _safe_sqrt(variance + (1.0 - variance_focus) * mean.square())


def berhu_loss(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    r"""Reverse Huber: absolute where the error is small, squared where it is large.

    .. math:: |e| \;\text{where}\; |e| \le c, \;\text{else}\; (e^2 + c^2) / 2c, \quad c = 0.2 \max |e|

    The c of each image is its own, and a constant for the gradient.

    Args, Returns and Raises as :func:`l1_loss`.

    Source:
        Laina et al., "Deeper Depth Prediction with Fully Convolutional Residual Networks", 2016, section 3.2 (there
        one c for a batch).

    Example:
        >>> target = torch.ones(1, 1, 1, 2)
        >>> berhu_loss(torch.tensor([[[[1.0, 6.0]]]]), target, target > 0).item()  # c = 1: (25 + 1) / 2, over 2 pixels
        6.5
    """
    error = _error(pred, target, mask).abs()
    c = (0.2 * error.detach().amax(dim=(1, 2, 3), keepdim=True)).clamp(min=1e-12)
    return _mean(torch.where(error <= c, error, (error.square() + c.square()) / (2.0 * c)), mask)


def log_l1_loss(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    r"""Mean absolute error of the logarithm, :math:`\mathrm{mean}\,|\log p - \log t|`: relative, so near counts as far.

    Args, Returns and Raises as :func:`silog_loss`.

    Example:
        >>> target = torch.ones(1, 1, 2, 2)
        >>> round(log_l1_loss(target * torch.e, target, target > 0).item(), 6)
        1.0
    """
    return _mean(_log_error(pred, target, mask).abs(), mask)


def log_gradient_loss(pred: Tensor, target: Tensor, mask: Tensor, scales: int = 4) -> Tensor:
    r"""Edges of the logarithm at several scales: :func:`gradient_loss` of log depth at every 1st, 2nd, 4th, ... pixel.

    .. math:: \sum_{k < \text{scales}} \mathrm{mean}\,|\Delta_x d^{(k)}| + \mathrm{mean}\,|\Delta_y d^{(k)}|,
        \quad d = \log p - \log t

    Args:
        pred: Predicted depth [m], shape ``(B, 1, H, W)``; taken as 1e-6 where it is less.
        target: True depth [m], same shape; read only where ``mask`` is true.
        mask: Valid pixels, bool, same shape.
        scales: How many scales, each taking every second pixel of the last.

    Returns:
        One value per image, shape ``(B,)``, float32; 0 for an image with no two valid neighbors.

    Source:
        Li and Snavely, "MegaDepth", 2018, equation 3; pixels taken, not averaged, as in MiDaS (Ranftl et al., 2020).

    Example:
        >>> target = torch.ones(1, 1, 1, 2)
        >>> round(log_gradient_loss(torch.tensor([[[[1.0, torch.e]]]]), target, target > 0).item(), 6)
        1.0
    """
    error = _log_error(pred, target, mask)
    steps = [2**scale for scale in range(scales)]
    return torch.stack([_slope(error[..., ::step, ::step], mask[..., ::step, ::step]) for step in steps]).sum(dim=0)


TERMS: dict[str, Callable[..., Tensor]] = {
    "l1": l1_loss,
    "gradient": gradient_loss,
    "ssim": ssim_loss,
    "silog": silog_loss,
    "berhu": berhu_loss,
    "log_l1": log_l1_loss,
    "log_gradient": log_gradient_loss,
}
"""The losses by the name that a config gives them."""


class DepthLoss(nn.Module):
    """Weighted sum of the terms, averaged over the images of a batch.

    Args:
        terms: ``{name: weight}``, names from :data:`TERMS`, weights 0 or more; a term of weight 0 is left out.
        depth_range: The depths that count as valid [m]; its maximum is SSIM's dynamic range.
        unit: ``meters``, or ``fraction`` to divide prediction and ground truth by the maximum first, so that a term
            in meters becomes one in [0, 1]; the terms ssim, silog, log_l1 and log_gradient are the same in both.

    Raises:
        InputError: If a term is unknown, or no weight is above 0.

    Example:
        >>> criterion = DepthLoss({"l1": 2.0}, DepthRange(1e-3, 10.0), unit="fraction")
        >>> depth = torch.full((1, 1, 4, 4), 5.0)
        >>> loss, terms = criterion(depth + 1, depth, depth > 0)
        >>> round(loss.item(), 4), round(terms["l1"].item(), 4)
        (0.2, 0.1)
    """

    def __init__(
        self,
        terms: Mapping[str, Annotated[float, Field(ge=0, allow_inf_nan=False), "a number from 0"]],
        depth_range: RangeLike,
        unit: Literal["meters", "fraction"] = "meters",
    ) -> None:
        super().__init__()
        for name in terms:
            if name not in TERMS:
                raise InputError(f"loss: no term is called {name}; there are {', '.join(TERMS)}")
        if not any(terms.values()):
            raise InputError(f"loss: no term has a weight above 0; give one of {', '.join(TERMS)} a weight")
        max_depth = DepthRange.of(depth_range).max
        self.unit_depth = max_depth if unit == "fraction" else 1.0
        self.weights = {name: float(weight) for name, weight in terms.items() if weight > 0}
        self.options = {"ssim": {"max_depth": max_depth / self.unit_depth}}

    def forward(self, pred: Tensor, depth: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch.

        Args:
            pred: Predicted depth [m], shape ``(B, 1, H, W)``.
            depth: True depth [m], same shape; read only where ``mask`` is true.
            mask: Valid pixels, bool, same shape.

        Returns:
            The weighted sum, a float32 scalar, and ``{name: mean of the term}``, unweighted and detached. An image
            with no valid pixel counts 0 in both.

        Raises:
            ValueError: If the three shapes differ or the mask is not bool.
        """
        if not pred.shape == depth.shape == mask.shape or pred.ndim != 4 or mask.dtype != torch.bool:
            raise ValueError(
                "pred, depth and mask need one shape (B, 1, H, W) and a bool mask; "
                f"got {tuple(pred.shape)}, {tuple(depth.shape)} and {tuple(mask.shape)} of {mask.dtype}"
            )
        pred, depth = pred.float() / self.unit_depth, depth.float() / self.unit_depth
        with torch.autocast(pred.device.type, enabled=False):  # half precision has no digits left for a difference
            losses = {name: TERMS[name](pred, depth, mask, **self.options.get(name, {})) for name in self.weights}
            values = {name: value.mean() for name, value in losses.items()}
            total = torch.stack([self.weights[name] * value for name, value in values.items()]).sum()
        return total, {name: value.detach() for name, value in values.items()}
