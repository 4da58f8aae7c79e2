"""Where a network errs: by depth, near depth edges, by place in the image, by kind of room and of object.

    atlas = Atlas(depth_range, object_names)
    atlas.add(pred, depth, mask, scene="kitchen 3")     # one image at a time, as a protocol made it comparable
    atlas.groups("depth"), atlas.sharpness(), atlas.position(), atlas.predicted()

Arrays in, plain values out. All depth is in meters, ``(H, W)``; the pixels of ``mask`` count.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from depthnet.core.types import DepthRange
from depthnet.evaluation.bootstrap import Interval, bootstrap
from depthnet.evaluation.sharpness import boundary_errors, boundary_f1, depth_edges, edge_distance, edge_f1
from depthnet.run.files import Run, exact_mean

FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]

GROUP_FIGURES = ("abs_rel", "delta1", "rmse", "bias")
"""The metrics of each group of pixels; ``bias`` is the mean of (p - t) / t: above 0 where predictions are too far."""

SHARPNESS = ("edge_f1", "boundary_f1", "dbe_accuracy", "dbe_completeness")
"""The metrics of depth boundaries, image by image; the first is in the results table."""

MIN_PIXELS = 50
"""An image counts in a group from this many pixels of it."""

_DEPTHS = 10  # depth ranges of equal length
_NEAR = (0, 2, 4, 8, 16, 32)  # distances to a depth edge at which groups begin [pixels]
_GRID = (24, 32)  # cells of the map of errors: rows, columns
_BINS = 100  # of true and of predicted depth


class Figure(NamedTuple):
    """A mean over images with its 95 % interval over scenes."""

    mean: float
    interval: Interval


class Group(NamedTuple):
    """The metrics of some pixels of all images.

    Attributes:
        name: Of the group, such as "1–2 m".
        images: How many images count in it.
        share: Its share of all pixels that count.
        figures: By the names of :data:`GROUP_FIGURES`; none where no image counts.
    """

    name: str
    images: int
    share: float
    figures: dict[str, Figure]


def mean_figures(names: Sequence[str], values: npt.ArrayLike, scenes: Sequence[str]) -> dict[str, Figure]:
    """Average metrics over images, with intervals over scenes.

    Args:
        names: Of the metrics.
        values: A row per image, shape ``(N, len(names))``; an image without a value, NaN, is left out of that mean.
        scenes: The scene of each image.

    Returns:
        By name; those that no image has are left out.
    """
    table = np.asarray(values, np.float64).reshape(-1, len(names))
    columns = zip(names, table.T.tolist(), bootstrap(table, scenes), strict=True)
    return {name: Figure(exact_mean(column), ends) for name, column, ends in columns if not np.isnan(column).all()}


def run_figures(run: Run, protocol: str) -> dict[str, Figure]:
    """Return the metrics of a run under a protocol, over the images that have a valid pixel."""
    images = run.rows[protocol].values()
    names = list(next(iter(images)).figures)
    return mean_figures(names, [list(image.figures.values()) for image in images], [image.scene for image in images])


def group_figures(
    pred: FloatArray, depth: FloatArray, groups: npt.NDArray[np.integer], count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Measure each group of one image's pixels.

    Args:
        pred: Predicted depth of the pixels that count [m], shape ``(P,)``.
        depth: Their true depth [m].
        groups: The group of each, from 0.
        count: How many groups there are.

    Returns:
        Pixels of each group, shape ``(count,)``; and :data:`GROUP_FIGURES`, shape ``(count, 4)``, NaN without pixels.

    Example:
        >>> pixels, figures = group_figures(np.array([2.0, 3.0]), np.array([2.0, 2.0]), np.array([1, 1]), 2)
        >>> pixels.tolist(), figures[1].round(3).tolist()
        ([0, 2], [0.25, 0.5, 0.707, 0.25])
    """
    p, t = pred.astype(np.float64), depth.astype(np.float64)
    relative = (p - t) / t
    parts = (np.abs(relative), np.maximum(p / t, t / p) < 1.25, (p - t) ** 2, relative)
    pixels = np.bincount(groups, minlength=count)
    with np.errstate(invalid="ignore"):
        figures = np.stack([np.bincount(groups, part, count) for part in parts], axis=1) / pixels[:, None]
    figures[:, 2] = np.sqrt(figures[:, 2])
    return pixels, figures


class Atlas:
    """Where a network errs on a set of images.

    A group's figures are those of one image's pixels of it, averaged over the images that have at least
    :data:`MIN_PIXELS` of them.

    Args:
        depth_range: The depths that count [m].
        object_names: The names of the object classes, where the data has them.

    Attributes:
        top: Where the histogram ends [m].
        histogram: Pixels by true (rows) and predicted (columns) depth, in equal steps from 0.
    """

    def __init__(self, depth_range: DepthRange, object_names: Sequence[str] = ()) -> None:
        self.top = top = depth_range.max
        ends = [f"{top * place / _DEPTHS:.3g}" for place in range(_DEPTHS + 1)]
        near = [f"{low}–{high} px" for low, high in itertools.pairwise(_NEAR)]
        self._names = {
            "depth": [f"{low}–{high} m" for low, high in itertools.pairwise(ends)],
            "edge": [*near, f"{_NEAR[-1]} px or more"],
            "object": list(object_names),
            "scene type": [],
        }
        # by kind and place among its names: scene, pixels and figures of each image
        self._groups: dict[tuple[str, int], list[tuple[str, int, npt.NDArray[np.float64]]]] = defaultdict(list)
        self._scenes: list[str] = []
        self._sharpness: list[tuple[float, ...]] = []
        self._errors, self._counts = np.zeros(_GRID), np.zeros(_GRID)
        self.histogram = np.zeros((_BINS, _BINS), np.int64)

    def add(
        self,
        pred: FloatArray,
        depth: FloatArray,
        mask: BoolArray,
        scene: str,
        scene_type: str = "",
        objects: npt.NDArray[np.integer] | None = None,
    ) -> float:
        """Add an image; one without a valid pixel counts nowhere.

        Args:
            pred: Predicted depth [m], above 0, shape ``(H, W)``.
            depth: True depth [m], same shape.
            mask: Pixels that count, bool, same shape.
            scene: The image's scene.
            scene_type: What kind of scene; empty where it is not known.
            objects: The object class of each pixel, same shape, a place in ``object_names``; None where not known.

        Returns:
            The image's ``edge_f1``; NaN where its ground truth has no edge.
        """
        if not mask.any():
            return math.nan
        p, t = pred[mask], depth[mask]
        true = depth_edges(depth, mask)
        groups = {
            "depth": _places(t, self.top, _DEPTHS),
            "edge": np.searchsorted(_NEAR, edge_distance(true, _NEAR[-1])[mask], side="right") - 1,
        }
        if objects is not None:
            groups["object"] = np.where(objects < len(self._names["object"]), objects, 0)[mask].astype(np.int64)
        if scene_type:
            types = self._names["scene type"]
            types += [scene_type] if scene_type not in types else []
            groups["scene type"] = np.full(t.size, types.index(scene_type))
        for kind, places in groups.items():
            for place, (pixels, row) in enumerate(
                zip(*group_figures(p, t, places, len(self._names[kind])), strict=True)
            ):
                if pixels >= MIN_PIXELS:
                    self._groups[kind, place].append((scene, int(pixels), row))
        self._scenes.append(scene)
        sharp = edge_f1(pred, depth, mask), boundary_f1(pred, depth, mask)
        self._sharpness.append((*sharp, *boundary_errors(depth_edges(pred, mask), true)))
        (height, width), (rows, columns) = mask.shape, np.nonzero(mask)
        cell = (rows * _GRID[0] // height) * _GRID[1] + columns * _GRID[1] // width
        self._errors += _counted(cell, _GRID, np.abs(p - t) / t)
        self._counts += _counted(cell, _GRID)
        places = _places(t, self.top, _BINS) * _BINS + _places(p, self.top, _BINS)
        self.histogram += _counted(places, self.histogram.shape)
        return sharp[0]

    def groups(self, kind: str, most: int | None = None) -> list[Group]:
        """Return the figures of each group that has an image.

        Args:
            kind: "depth", "edge" (distance to the nearest edge of true depth), "object" or "scene type".
            most: Only this many groups, those in most images, first; None for all, in their own order.
        """
        found = [(name, self._groups[kind, place]) for place, name in enumerate(self._names[kind])]
        if most is not None:
            found = sorted(found, key=lambda item: -len(item[1]))[:most]
        groups = []
        for name, images in found:
            if images:
                scenes, pixels, rows = zip(*images, strict=True)
                share = sum(pixels) / self.histogram.sum()
                groups.append(Group(name, len(rows), share, mean_figures(GROUP_FIGURES, rows, scenes)))
        return groups

    def sharpness(self) -> dict[str, Figure]:
        """Return :data:`SHARPNESS` by name, over the images whose ground truth has boundaries."""
        return mean_figures(SHARPNESS, self._sharpness, self._scenes)

    def position(self, rows: int = _GRID[0], columns: int = _GRID[1]) -> npt.NDArray[np.float64]:
        """Return the mean relative error by place in the image, all pixels alike; NaN where none counts.

        Args:
            rows: Of cells; a divisor of 24.
            columns: Of cells; a divisor of 32.

        Returns:
            Shape ``(rows, columns)``.
        """
        errors, counts = (
            cells.reshape(rows, _GRID[0] // rows, columns, _GRID[1] // columns).sum((1, 3))
            for cells in (self._errors, self._counts)
        )
        with np.errstate(invalid="ignore"):
            return np.asarray(errors / counts)

    def predicted(self) -> list[tuple[str, int, list[float]]]:
        """Return each range of true depth: name, pixels, and the 0.1, 0.5 and 0.9 quantiles predicted there [m]."""
        table = self.histogram.reshape(_DEPTHS, -1, _BINS).sum(1)
        found = []
        for name, counts in zip(self._names["depth"], table, strict=True):
            if counts.any():
                places = np.searchsorted(np.cumsum(counts), np.array([0.1, 0.5, 0.9]) * counts.sum())
                found.append((name, int(counts.sum()), [float(self.top * (place + 0.5) / _BINS) for place in places]))
        return found


def _counted(
    places: npt.NDArray[np.int64], shape: tuple[int, ...], weights: FloatArray | None = None
) -> npt.NDArray[Any]:
    """How often each cell of a table of this shape is named, or the sum of its weights."""
    return np.bincount(places, weights, math.prod(shape)).reshape(shape)


def _places(values: FloatArray, top: float, count: int) -> npt.NDArray[np.int64]:
    """Which of ``count`` equal steps from 0 to ``top`` each value is in."""
    return np.asarray(np.minimum(values * (count / top), count - 1), np.int64)
