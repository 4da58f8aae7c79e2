"""How sharp depth is: boundaries as jumps between neighboring pixels, and as edges found in the map of depth.

    boundary_f1(pred, depth, mask)                                    # after Depth Pro, from 0 to 1
    edge_f1(pred, depth, mask)                                        # after Hu et al., from 0 to 1
    boundary_errors(depth_edges(pred, mask), depth_edges(depth, mask))    # after iBims-1, in pixels

All depth is in meters, ``(H, W)``; the pixels of ``mask`` count.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]

EDGE_REACH = 10
"""Distance to a depth edge beyond which boundary errors are cut off [pixels], as iBims-1 has it."""

EDGE_STEP = 0.25
"""Length of Sobel's gradient beyond which a pixel is an edge [m], the smallest of the three of Hu et al."""

EDGE_ROWS = 240
"""Rows to which maps are thinned for it, about as there: NYU's halved frame."""

EDGE_F1 = (
    "Boundary F1 (Hu et al., Revisiting Single Image Depth Estimation, 2019) of the maps that the protocol compares, "
    f"thinned to about {EDGE_ROWS} rows: a pixel is an edge where Sobel's gradient of depth, unscaled, is longer than "
    f"{EDGE_STEP} m; the harmonic mean of precision and recall, pixel by pixel; per image, then averaged over the "
    "images whose ground truth has an edge."
)
"""The definition of ``edge_f1``, for reports and tables."""

_RATIOS = np.linspace(1.05, 1.25, 10)  # of neighboring depths, as Depth Pro's reference code has them
_SIGMA, _WEAK, _STRONG = math.sqrt(2.0), 0.15, 0.3  # of Canny's method, as iBims-1's evaluation has them
_SQUARE = np.ones((3, 3), bool)  # a pixel and its eight neighbors


def boundary_f1(pred: FloatArray, depth: FloatArray, mask: BoolArray) -> float:
    """Scale-invariant boundary F1: do depths of neighboring pixels jump where, and as, those of the ground truth do?

    Between neighbors there is a boundary at t if the farther is more than t times as deep. Precision and recall are
    the shares of predicted and of true boundaries that are both, averaged over the four directions in which the jump
    may go; F1 is their harmonic mean, averaged over ten t from 1.05 to 1.25 with weights proportional to t.

    Unlike the reference, a direction, or a t, in which there is no boundary to find is left out instead of counting 0,
    so that the ground truth itself scores 1; only pairs of valid pixels count.

    Args:
        pred: Predicted depth [m], above 0, shape ``(H, W)``.
        depth: True depth [m], same shape.
        mask: Valid pixels, bool, same shape.

    Returns:
        From 0 to 1; NaN if the ground truth has no boundary.

    Source:
        Bochkovskii et al., "Depth Pro", 2024, section 4 and its ``boundary_metrics.py``.

    Example:
        >>> depth = np.repeat([[1.0, 1.0, 2.0, 2.0]], 3, axis=0)
        >>> boundary_f1(5 * depth, depth, depth > 0), boundary_f1(np.full_like(depth, 1.5), depth, depth > 0)
        (1.0, 0.0)
    """
    steps = []
    for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        both = mask[one] & mask[other]
        found, true = (np.log(values[other][both] / values[one][both]) for values in (pred, depth))
        steps += [(found, true), (-found, -true)]
    total = weights = 0.0
    for ratio in _RATIOS:
        edges = [(found > math.log(ratio), true > math.log(ratio)) for found, true in steps]
        both, predicted, wanted = np.array([((p & t).sum(), p.sum(), t.sum()) for p, t in edges], float).T
        recall, precision = _mean_share(both, wanted), _mean_share(both, predicted)
        if not math.isnan(recall):
            weights += ratio
            total += ratio * 2 * precision * recall / (precision + recall) if precision * recall > 0 else 0.0
    return float(total / weights) if weights else math.nan


def _mean_share(counts: npt.NDArray[np.float64], totals: npt.NDArray[np.float64]) -> float:
    held = totals > 0
    return float((counts[held] / totals[held]).mean()) if held.any() else math.nan


def edge_f1(pred: FloatArray, depth: FloatArray, mask: BoolArray) -> float:
    """F1 of edge pixels: those at which the length of Sobel's gradient of depth is above :data:`EDGE_STEP`.

    Unlike :func:`boundary_f1`, which asks for a jump between neighbors of the full map and is 0 for networks that draw
    smoothly, it gives part of the credit for a slope at the right place. Maps are thinned to about :data:`EDGE_ROWS`
    rows first: every second pixel of 480x640. Pixels beside a missing one do not count.

    Args:
        pred: Predicted depth [m], shape ``(H, W)``.
        depth: True depth [m], same shape.
        mask: Valid pixels, bool, same shape.

    Returns:
        From 0 to 1; NaN if the ground truth has no edge.

    Source:
        Hu et al., "Revisiting Single Image Depth Estimation", WACV 2019, section 4.2.

    Example:
        >>> depth = np.repeat([[1.0, 1.0, 1.0, 2.0, 2.0, 2.0]], 4, axis=0)
        >>> edge_f1(depth, depth, depth > 0), edge_f1(np.full_like(depth, 1.5), depth, depth > 0)
        (1.0, 0.0)
    """
    every = max(1, round(len(mask) / EDGE_ROWS))
    thin = np.s_[::every, ::every]
    counts = ndimage.binary_erosion(mask[thin], _SQUARE)
    found, true = (counts & (np.hypot(*_gradient(values[thin])) > EDGE_STEP) for values in (pred, depth))
    return 2 * int((found & true).sum()) / int(found.sum() + true.sum()) if true.any() else math.nan


def _gradient(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sobel's gradient, unscaled: across, and down."""
    return ndimage.sobel(values, axis=1, mode="constant"), ndimage.sobel(values, axis=0, mode="constant")


def depth_edges(depth: FloatArray, mask: BoolArray) -> BoolArray:
    """Find edges of depth by Canny's method: smooth, differentiate, thin, and follow from strong to weak.

    Depth is scaled to [0, 1] over the valid pixels first; an edge is strong where it jumps by about 15 % of the image's
    range. Pixels beside a missing one or the image's border are no edges.

    Args:
        depth: Depth [m], shape ``(H, W)``.
        mask: Valid pixels, bool, same shape.

    Returns:
        Bool, same shape.

    Source:
        Canny, PAMI 1986; sigma and thresholds as in the Python evaluation of iBims-1 (Koch et al., 2018).
    """
    held = depth[mask]
    low, high = (float(held.min()), float(held.max())) if held.size else (0.0, 0.0)
    if not low < high:
        return np.zeros_like(mask)
    scaled = np.where(mask, (depth - low) / (high - low), 0.0)
    planes = scaled, mask.astype(float)
    blurred, weight = (ndimage.gaussian_filter(plane, _SIGMA, mode="constant") for plane in planes)
    across, down = _gradient(blurred / np.maximum(weight, 1e-6))  # so missing pixels weigh nothing
    strength = np.hypot(across, down) * ndimage.binary_erosion(mask, _SQUARE)

    peaks = np.zeros_like(mask)
    direction = np.rint(np.arctan2(down, across) * (4 / math.pi)) % 4  # to the nearest of four
    for number, step in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        behind, ahead = np.roll(strength, step, (0, 1)), np.roll(strength, (-step[0], -step[1]), (0, 1))
        # a step lies between two pixels that are equally strong but for rounding: the first of them is its edge
        peaks |= (direction == number) & (strength >= ahead - 1e-5) & (strength > behind + 1e-5)
    edges: BoolArray = ndimage.binary_propagation(peaks & (strength >= _STRONG), _SQUARE, peaks & (strength >= _WEAK))
    return edges


def edge_distance(edges: BoolArray, limit: int) -> FloatArray:
    """Return the Euclidean distance of each pixel to the nearest edge [pixels], cut off at ``limit``.

    Example:
        >>> edge_distance(np.array([[False, False, False, True]]), 2).tolist()
        [[2.0, 2.0, 1.0, 0.0]]
    """
    if not edges.any():
        return np.full(edges.shape, float(limit))
    distance: FloatArray = ndimage.distance_transform_edt(~edges)
    return distance.clip(max=limit)


def boundary_errors(predicted: BoolArray, true: BoolArray) -> tuple[float, float]:
    """Depth boundary errors: how far predicted edges are from true ones, and how many are missing or too many.

    Accuracy is the mean distance from the predicted edges that have a true edge within 10 pixels to the nearest one.
    Completeness is the mean distance, cut off at 10 pixels, from each predicted edge to the nearest true one and from
    each true edge to the nearest predicted one. Both are 10 where no predicted edge is near a true one.

    Args:
        predicted: Edges of the predicted depth, bool, shape ``(H, W)``.
        true: Edges of the true depth, same shape.

    Returns:
        Accuracy and completeness [pixels]; NaN, both, if the ground truth has no edge.

    Source:
        Koch et al., "Evaluation of CNN-based Single-Image Depth Estimation Methods" (iBims-1), 2018, and its Python
        evaluation. There the true edges are annotated by hand; here :func:`depth_edges` finds them as it finds the
        predicted ones.

    Example:
        >>> true = np.eye(1, 8, 2, dtype=bool)
        >>> boundary_errors(np.roll(true, 3), true)
        (3.0, 3.0)
    """
    if not true.any():
        return math.nan, math.nan
    to_true, to_predicted = edge_distance(true, EDGE_REACH), edge_distance(predicted, EDGE_REACH)
    near = predicted & (to_true < EDGE_REACH)
    if not near.any():
        return float(EDGE_REACH), float(EDGE_REACH)
    both = float(to_true[predicted].sum(dtype=float) + to_predicted[true].sum(dtype=float))
    return float(to_true[near].mean(dtype=float)), both / float(predicted.sum() + true.sum())
