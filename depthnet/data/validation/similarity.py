"""What is wrong between frames rather than within one: photographs that two splits share, depth out of step or inverse.

All are found from small pictures of each pair, so that 50,000 pairs fit in memory and compare within seconds. The
limits were set on the 795 official training frames of NYU Depth V2; beside each stands what it parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from depthnet.core.images import resize_nearest

_SMALL = (24, 32)  # thumbnails and edge maps
_EDGE_CELL = 5  # edges are taken at 120x160
_HOLE = np.float32(0.3)  # [m] what a hole counts as: sensors have their holes along edges, so a hole's rim is one
_ALIKE = 0.78  # correlation at 12x16: a copy 2 % cropped has 0.83 and more, 1 in 5,000 other pairs
_SAME = 0.92  # correlation at 24x32, aligned: 3 % and 1.5 degrees on, a camera sees 0.91 to 0.98; other pairs 0.84
_NEAR_BITS = 80  # a moment later has 37 to 102; this keeps most, spares comparing, and parts chance likeness
_SAME_BITS = 48  # of 256: copies (JPEG of quality 50, 20 % brighter, 2 % cropped) have 43 at most, other pairs 53
_SHIFTS = [(down, right) for down in (-2, -1, 0, 1, 2) for right in (-2, -1, 0, 1, 2)]
_TEXTURE = 2.0  # gray levels of local contrast; photographs of NYU have 14 and more, a blank wall less than 1
_BLOCK = 1 << 22  # correlations held at a time
_PAIRS = 4096  # pairs of thumbnails aligned at a time
_BETTER = 0.06  # how much better a neighbor's depth must fit; a frame's own fits by 0.35, another's by 0
_EVIDENCE = 1.0  # over a stretch: 10 frames out of step gather 1.3 to 3, clean sets 0.4, unrelated depth 0.6 in 60,000
_APART = 10  # rows or columns of 120x160 from the middle to the ends of what may be a slope
_STEEP = 0.3  # how much farther its far end is; on less, noise hides the curve
_SLOPES = 50  # fewer show nothing
_STRAIGHT = 0.55  # share of slopes that are straight in the value itself: depth has 0.12 to 0.43, inverse depth 0.57 up
_UPHILL = 0.1  # mean correlation of row and log depth: real sets have -0.9 to -0.2, their inverse the same above 0

Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]


class Fingerprint(NamedTuple):
    """Small pictures of a pair.

    Attributes:
        thumbnail: Gray, ``uint8``, shape ``(24, 32)``.
        bits: Perceptual hash, ``uint8``, shape ``(32,)``: whether each of 16x16 cells is brighter than its left one.
        image_edges: Strength of the image's edges over its strongest, ``uint8``, shape ``(24, 32)``.
        depth_edges: The same of the logarithm of depth; a hole counts as 0.3 m.
        uphill: Correlation of a pixel's row, counted from the top, with the logarithm of its depth; 0 if there is none.
        slopes: How many slopes are flat if the values are depth, and how many if they are inverse depth.
    """

    thumbnail: UInt8Array
    bits: UInt8Array
    image_edges: UInt8Array
    depth_edges: UInt8Array
    uphill: float
    slopes: tuple[int, int]


def fingerprint(image: UInt8Array, depth: Float32Array) -> Fingerprint:
    """Make the small pictures of a pair.

    Args:
        image: RGB, ``uint8``, shape ``(H, W, 3)``.
        depth: Meters, shape ``(H, W)``; what is not finite or not above 0 is a hole.
    """
    rows, columns = (_EDGE_CELL * side for side in _SMALL)
    gray = Image.fromarray(image).convert("L").resize((columns, rows), Image.Resampling.BOX)
    cells = np.asarray(gray.resize((17, 16), Image.Resampling.BOX))
    near = resize_nearest(depth, (rows, columns))
    near = np.where((near > 0) & np.isfinite(near), near, np.float32(0))
    return Fingerprint(
        thumbnail=np.asarray(gray.resize(_SMALL[::-1], Image.Resampling.BOX)),
        bits=np.packbits(cells[:, 1:] > cells[:, :-1]),
        image_edges=_edges(np.asarray(gray, np.float32)),
        depth_edges=_edges(np.log(np.maximum(near, _HOLE))),
        uphill=_uphill(near[1::4, 1::3]),
        slopes=_slopes(near),
    )


def _edges(picture: Float32Array) -> UInt8Array:
    steep = np.hypot(np.diff(picture, axis=0, append=picture[-1:]), np.diff(picture, axis=1, append=picture[:, -1:]))
    height, width = _SMALL
    strength = np.sqrt(steep.reshape(height, _EDGE_CELL, width, _EDGE_CELL).mean((1, 3)))
    scaled: UInt8Array = np.rint(strength * (255 / max(strength.max(), 1e-6))).astype(np.uint8)
    return scaled


def _uphill(depth: Float32Array) -> float:
    rows, columns = np.nonzero(depth)
    if not rows.size:
        return 0.0
    down, far = rows - rows.mean(), np.log(depth[rows, columns])
    far -= far.mean()
    return float(down @ far / max(1e-6, np.sqrt((down @ down) * (far @ far))))


def _slopes(depth: Float32Array) -> tuple[int, int]:
    """Count slopes by the value in their middle: that of a plane's depth is the ends' harmonic mean.

    1 / depth is linear in the image on a plane; a map of inverse depth is itself, so its middle is the arithmetic mean.
    """
    depths = inverses = 0
    for picture in (depth[:, ::4], depth[::3].T):
        one, middle, other = picture[: -2 * _APART : 2], picture[_APART:-_APART:2], picture[2 * _APART :: 2]
        nearer = np.minimum(one, other)
        steep = (np.abs(other - one) > _STEEP * nearer) & (nearer > 0) & (middle > 0)
        one, middle, other = one[steep], middle[steep], other[steep]
        arithmetic = (one + other) / 2
        harmonic = one * other / arithmetic
        place = (middle - harmonic) / (arithmetic - harmonic)
        depths += int(np.count_nonzero(np.abs(place) < 0.5))
        inverses += int(np.count_nonzero(np.abs(place - 1) < 0.5))
    return depths, inverses


def inverse_share(fingerprints: Sequence[Fingerprint]) -> float:
    """Find out whether depth is stored as its inverse, by two signs that have to agree.

    On average the lower part of a picture is nearer than the upper one, and planes are flat in depth but curved in its
    inverse. Cameras that look down, or up, lack the first; toys and faces the second.

    Returns:
        The share of pairs whose lower part is the farther one; 0 if the set is not inverse as a whole.
    """
    depths, inverses = (sum(one.slopes[k] for one in fingerprints) for k in (0, 1))
    if depths + inverses < _SLOPES or inverses < _STRAIGHT * (depths + inverses):
        return 0.0
    uphill = np.array([one.uphill for one in fingerprints])
    return float((uphill > 0).mean()) if uphill.mean() > _UPHILL else 0.0


def near_duplicates(first: Sequence[Fingerprint], second: Sequence[Fingerprint]) -> dict[int, int]:
    """Find photographs of one set that are nearly in another: re-compressed, brighter, cropped, or a moment later.

    Two are the same where their hashes nearly agree, or agree roughly while their thumbnails correlate when moved over
    each other by up to a sixteenth. Pictures without texture, such as blank walls, are never the same: all look alike.

    Returns:
        The place in ``first`` of a near-duplicate, for each place in ``second`` that has one.
    """
    if not (first and second):
        return {}
    small_first, small_second = (np.stack([one.thumbnail for one in some]) for some in (first, second))
    bits_first, bits_second = (np.stack([one.bits for one in some]) for some in (first, second))
    coarse_first, coarse_second = _coarse(small_first), _coarse(small_second)
    found: dict[int, int] = {}
    step = max(1, _BLOCK // len(second))
    for start in range(0, len(first), step):
        i, j = np.nonzero(coarse_first[start : start + step] @ coarse_second.T >= _ALIKE)
        i += start
        differ = np.bitwise_count(bits_first[i] ^ bits_second[j]).sum(1, dtype=int)
        same = differ <= _SAME_BITS
        near = np.flatnonzero(~same & (differ <= _NEAR_BITS))
        for some in (near[part : part + _PAIRS] for part in range(0, len(near), _PAIRS)):
            same[some] = _aligned(small_first[i[some]], small_second[j[some]]) >= _SAME
        for a, b in zip(i[same].tolist(), j[same].tolist(), strict=True):
            found.setdefault(b, a)
    return found


def _coarse(thumbnails: UInt8Array) -> Float32Array:
    """Return unit vectors of 12x16 cells, 0 for pictures without texture."""
    count, height, width = thumbnails.shape
    coarse = _unit(thumbnails.reshape(count, height // 2, 2, width // 2, 2).mean((2, 4), dtype=np.float32))
    around = np.pad(thumbnails.astype(np.float32), ((0, 0), (2, 2), (2, 2)), "edge")
    local = np.lib.stride_tricks.sliding_window_view(around, (5, 5), axis=(1, 2)).mean((3, 4))
    coarse[(thumbnails - local).std((1, 2)) < _TEXTURE] = 0
    return coarse


def _unit(maps: npt.NDArray[Any]) -> Float32Array:
    flat = maps.reshape(len(maps), -1).astype(np.float32, copy=False)  # given floats are overwritten
    flat -= flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return flat


def _aligned(first: UInt8Array, second: UInt8Array) -> Float32Array:
    """Return the best correlation of thumbnails over small shifts, shape ``(N,)``."""
    height, width = first.shape[1:]
    best = np.full(len(first), -1.0, np.float32)
    for down, right in _SHIFTS:
        a = first[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
        b = second[:, max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
        np.maximum(best, np.vecdot(_unit(a), _unit(b)), out=best)
    return best


def shifted_segments(fingerprints: Sequence[Fingerprint]) -> list[tuple[int, int, int]]:
    """Find stretches of rows whose images fit the depth of the next or the previous row better than their own.

    Depth has its edges where the image has some. What all frames have in common is taken away; the rest of the two maps
    correlates by about 0.35 for a true pair and by 0 for another, even for two views of one room.

    Args:
        fingerprints: One split's frames in the order of its rows.

    Returns:
        (first row, number of rows, step) of each stretch; the depth of row ``i`` lies beside the image of row
        ``i - step``, so +1 means that depth files are one too early.
    """
    if len(fingerprints) < 2:
        return []
    maps = [np.stack([one[k] for one in fingerprints]).astype(np.float32) for k in (2, 3)]
    image, depth = (_unit(edges - edges.mean(0)) for edges in maps)
    own = np.vecdot(image, depth)
    found = []
    for step in (1, -1):
        fit = np.vecdot(image, np.roll(depth, step, axis=0))  # row i's image beside the depth of row i - step
        fit[0 if step == 1 else -1] = -1.0  # it has no such neighbor
        evidence = np.minimum(fit, fit - own) - _BETTER
        while True:
            total, start, stop = _best_segment(evidence)
            if total < _EVIDENCE:
                break
            found.append((start, stop - start, step))
            evidence[start:stop] = -1.0
    return sorted(found)


def _best_segment(values: npt.NDArray[np.float64]) -> tuple[float, int, int]:
    """Return the sum and the ends of the run whose sum is largest."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    lowest = np.minimum.accumulate(sums)
    stop = int(np.argmax(sums - lowest))
    start = int(np.argmin(sums[: stop + 1]))
    return float(sums[stop] - sums[start]), start, stop
