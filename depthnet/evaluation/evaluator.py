"""From predictions to figures and files: every number with the protocol that made it, a row per image.

evaluation = Evaluation(protocols)
evaluation.update(pred, depth, mask, frame)      # each batch once, for all protocols
evaluation.figures()                             # {"nyu_eigen": {"delta1": 0.86, ...}}
evaluation.intervals(scenes)                     # {"nyu_eigen": {"delta1": Interval(low=0.84, high=0.88), ...}}
evaluation.write(directory, split="val", ...)    # metrics.json and per_image.csv
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from depthnet.core.atomic_io import write_json
from depthnet.core.images import resize_nearest
from depthnet.core.tables import Table
from depthnet.core.types import InputError
from depthnet.data.layouts.layout import Layout
from depthnet.data.layouts.official import TEST_FRAMES
from depthnet.data.layouts.scenes import frame_number
from depthnet.evaluation.bootstrap import DRAWS, LEVEL, Interval, bootstrap
from depthnet.evaluation.metrics import METRIC_NAMES, DepthMetrics, mean_rows
from depthnet.evaluation.protocols import Protocol, resize_prediction
from depthnet.run.files import METRICS, write_images

_MEAN_MAP_FRAMES = 300

Figures = Mapping[str, Mapping[str, float]]
Intervals = Mapping[str, Mapping[str, Sequence[float | None]]]


class Evaluation:
    """The figures of one set of images under one or more protocols, for one pass over the predictions.

    An image in which a protocol finds no valid pixel has no figures. It is left out of the means, and it is named: in
    :meth:`empty`, in ``metrics.json`` and, as ``nan``, in ``per_image.csv``.

    Args:
        protocols: One or more, each already narrowed to the data's depth range, with different names.
    """

    def __init__(self, protocols: Sequence[Protocol]) -> None:
        self.protocols = {protocol.name: protocol for protocol in protocols}
        self._metrics = {name: DepthMetrics() for name in self.protocols}
        self._rows: dict[str, tuple[list[int], list[list[float]]]] | None = None
        self.flip_test = any(protocol.flip_test for protocol in protocols)

    def update(
        self, pred: Tensor, depth: Tensor, mask: Tensor, frame: Tensor | int, flipped: Tensor | None = None
    ) -> None:
        """Evaluate a batch.

        Args:
            pred: Predicted depth [m], shape ``(B, 1, h, w)``; resized to the size of ``depth``, once for all protocols.
            depth: True depth [m], shape ``(B, 1, H, W)``.
            mask: Valid pixels, bool, shape ``(B, 1, H, W)``.
            frame: Each image's place in its split, int64, shape ``(B,)``.
            flipped: The mirrored images' prediction, mirrored back, shape of ``pred``; needed if ``flip_test`` is true,
                that is, if some protocol averages it with ``pred``.

        Raises:
            ValueError: If ``flipped`` is needed and missing, or shapes do not fit.
        """
        self._rows = None
        size = (depth.shape[-2], depth.shape[-1])
        plain = mean = resize_prediction(pred, size)
        if self.flip_test:
            if flipped is None:
                raise ValueError("flip averaging needs flipped=, the mirrored images' prediction")
            mean = resize_prediction((pred.float() + flipped.float()) / 2, size)
        for name, protocol in self.protocols.items():
            self._metrics[name].update(*protocol(mean if protocol.flip_test else plain, depth, mask), frame)

    def rows(self, protocol: str) -> tuple[list[int], list[list[float]]]:
        """Return one protocol's frames, ascending, and their figures, float64, in the order of ``METRIC_NAMES``.

        The first call after an update gathers the rows of all processes, so all of them have to make it.
        """
        if self._rows is None:
            gathered = {name: metrics.rows() for name, metrics in self._metrics.items()}
            self._rows = {name: (frames.tolist(), table.tolist()) for name, (frames, table) in gathered.items()}
        return self._rows[protocol]

    def empty(self) -> dict[str, list[int]]:
        """Return the frames without a valid pixel, by protocol; a protocol without any is left out."""
        found = {
            name: [frame for frame, row in zip(*self.rows(name), strict=True) if math.isnan(row[0])]
            for name in self.protocols
        }
        return {name: frames for name, frames in found.items() if frames}

    def figures(self) -> dict[str, dict[str, float]]:
        """Return ``{protocol: {metric: mean over images}}``, exactly rounded; NaN where no image has a valid pixel."""
        return {name: mean_rows(self.rows(name)[1]) for name in self.protocols}

    def intervals(self, scenes: Sequence[str]) -> dict[str, dict[str, Interval]]:
        """Return ``{protocol: {metric: interval}}``: 95% by bootstrap over scenes, of the images with a valid pixel.

        Args:
            scenes: Each frame's scene, by its place in the split; the ends are NaN where there are fewer than two.
        """
        found: dict[str, dict[str, Interval]] = {}
        for name in self.protocols:
            frames, table = self.rows(name)
            ends = bootstrap(table, [scenes[frame] for frame in frames])
            found[name] = dict(zip(METRIC_NAMES, ends, strict=True))
        return found

    def record(self, labels: Sequence[str], scenes: Sequence[str]) -> dict[str, Any]:
        """Return all that was found as plain values, each number with its protocol.

        Args:
            labels: Each frame's name, by its place in the split.
            scenes: Each frame's scene, by its place in the split.

        Returns:
            "protocols" (each one's metrics), "intervals" (lists of two; None where there is none), "scene_count",
            "level" and "draws" (how those were made), "empty" (labels), "definitions" and "digests" of the protocols.
        """
        intervals = {
            protocol: {metric: [None if math.isnan(end) else end for end in ends] for metric, ends in row.items()}
            for protocol, row in self.intervals(scenes).items()
        }
        return {
            "protocols": self.figures(),
            "intervals": intervals,
            "scene_count": len({scenes[frame] for frame in self.rows(next(iter(self.protocols)))[0]}),
            "level": LEVEL,
            "draws": DRAWS,
            "empty": {name: [labels[frame] for frame in frames] for name, frames in self.empty().items()},
            "definitions": {name: protocol.definition for name, protocol in self.protocols.items()},
            "digests": {name: protocol.digest for name, protocol in self.protocols.items()},
        }

    def write(
        self, directory: str | os.PathLike[str], *, labels: Sequence[str], scenes: Sequence[str], **about: Any
    ) -> None:
        """Write ``per_image.csv`` and then ``metrics.json``, both to full precision.

        Args:
            directory: Where to; made if it is missing.
            labels, scenes: As :meth:`record`.
            **about: What ``metrics.json`` states besides: which ``split`` the frames are of, how many it has
                (``expected``), the run's ``seed``, ``commit`` and ``versions``, and what the ``data`` is.

        Raises:
            InputError: If a file cannot be written.
        """
        images = {
            name: {
                frame: (labels[frame], scenes[frame], dict(zip(METRIC_NAMES, row, strict=True)))
                for frame, row in zip(*self.rows(name), strict=True)
            }
            for name in self.protocols
        }
        write_images(directory, images)
        count = len(self.rows(next(iter(self.protocols)))[0])
        write_json(Path(directory, METRICS), {**about, "images": count, **self.record(labels, scenes)})


def describe_frames(layout: Layout, split: str, frames: Sequence[int]) -> str:
    """Describe the evaluated frames of a split: which, of NYU how many official test frames, and of how many scenes.

    Args:
        layout: The data.
        split: The split to evaluate.
        frames: Places in it, ascending, one or more.

    Returns:
        Such as "the 654 official test frames; 95% intervals by bootstrap over 215 scenes (as the file names them)".
    """
    labels = [layout.label(split, frame) for frame in frames]
    which = f"{len(labels)} frames, {labels[0]} to {labels[-1]}"
    if layout.nyu:
        official = len(TEST_FRAMES.intersection(map(frame_number, labels)))
        if split not in layout.numbered:
            which += ", not numbered as the labelled set"
        elif official == len(labels) == len(TEST_FRAMES):
            which = f"the {official} official test frames"
        else:
            which += f", {official or 'none'} of the official test frames"
    scenes = len({layout.scene(split, frame) for frame in frames})
    over = f"{LEVEL:.0%} intervals by bootstrap over {scenes} scenes" if scenes > 1 else "one scene, so no intervals"
    return f"{which}; {over} ({layout.scene_rule})"


def metrics_table(
    figures: Mapping[str, Figures], title: str, intervals: Mapping[str, Intervals] | None = None
) -> Table:
    """Lay out metrics for the terminal: under each protocol a row for each predictor.

    Args:
        figures: ``{who: {protocol: {metric: value}}}``, such as the network's and the mean map's.
        title: What was evaluated: data, split, number of images, ground truth.
        intervals: ``{who: {protocol: {metric: (low, high)}}}`` of those who have them, two dim lines below their row;
            an end that is None or NaN stays blank.

    Returns:
        It fits 80 columns.
    """
    table = Table(("protocol", *METRIC_NAMES), "l" + "r" * len(METRIC_NAMES), title, _short)
    for protocol in dict.fromkeys(name for one in figures.values() for name in one):
        table.section()
        table.add(protocol, *[None] * len(METRIC_NAMES), style="bold")
        for who, found in figures.items():
            if protocol not in found:
                continue
            table.add(f"  {who}", *(found[protocol][metric] for metric in METRIC_NAMES))
            ends = (intervals or {}).get(who, {}).get(protocol, {})
            for label, place in ((f"{LEVEL:.0%} from", 0), ("to", 1)):
                values = [ends[metric][place] if metric in ends else None for metric in METRIC_NAMES]
                if not all(value is None or math.isnan(value) for value in values):
                    table.add(f"    {label:>8}", *values, style="dim")
    return table


def _short(value: float) -> str:
    """Three decimals, fewer where a value is large: at most six characters for usual values."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}" if abs(value) < 1000 else f"{value:.3g}"


def training_mean(layout: Layout, split: str) -> Tensor | None:
    """Return the :func:`mean_map` of up to 300 training frames, evenly spaced.

    Args:
        layout: The data.
        split: The split that the map is evaluated on, and has the size of.

    Returns:
        Depth [m], shape ``(1, 1, H, W)``; None where there is no training frame.
    """
    count = layout.count("train")
    if not count:
        return None
    used = min(count, _MEAN_MAP_FRAMES)
    depths = (layout.read("train", i * count // used)[1] for i in range(used))
    return torch.from_numpy(mean_map(depths, layout.size(split, 0)))[None, None]


def mean_map(depths: Iterable[npt.NDArray[np.floating]], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Average depth pixel by pixel: the constant prediction that every network must beat.

    Args:
        depths: Training depth [m], each of any shape ``(H, W)``, 0 where it is missing; taken one at a time.
        size: (height, width) of the map.

    Returns:
        The mean of the valid depths at each pixel [m], ``float32``, shape ``size``; where none is valid, the mean of
        all that are.

    Raises:
        InputError: If no pixel of any depth is valid.

    Example:
        >>> mean_map([np.array([[1.0, 0.0]]), np.array([[3.0, 0.0]])], (1, 2)).tolist()
        [[2.0, 2.0]]
    """
    total, count = np.zeros(size), np.zeros(size, np.int64)
    for depth in depths:
        resized = resize_nearest(np.asarray(depth, np.float32), size)
        valid = np.isfinite(resized) & (resized > 0)
        total[valid] += resized[valid]
        count += valid
    if not count.any():
        raise InputError("the training depth has no valid pixel, so there is no mean map; check the data")
    filled = np.where(count > 0, total / np.maximum(count, 1), total.sum() / count.sum())
    return filled.astype(np.float32)
