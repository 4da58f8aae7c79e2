"""From predictions to figures and files: every number with the protocol that made it, a row per image.

evaluation = Evaluation(protocols)
evaluation.update(pred, depth, mask, frame)      # each batch once, whatever the number of protocols
evaluation.figures()                             # {"nyu_eigen": {"delta1": 0.86, ...}}
evaluation.intervals(scenes)                     # {"nyu_eigen": {"delta1": Interval(low=0.84, high=0.88), ...}}
evaluation.write(directory, split="val", ...)    # metrics.json and per_image.csv
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import depthnet
from depthnet.core.atomic_io import write_json
from depthnet.core.images import resize_nearest
from depthnet.core.tables import Table
from depthnet.core.types import HIGHER_IS_BETTER, InputError
from depthnet.data.layouts.layout import Layout
from depthnet.data.layouts.official import TEST_FRAMES
from depthnet.data.layouts.scenes import frame_number
from depthnet.evaluation.bootstrap import DRAWS, LEVEL, Interval, bootstrap
from depthnet.evaluation.metrics import METRIC_NAMES, DepthMetrics
from depthnet.evaluation.protocols import Protocol, default_protocol, find_protocols, resize_prediction
from depthnet.run.files import METRICS, write_images

_MEAN_MAP_FRAMES = 300

Figures = Mapping[str, Mapping[str, float]]
Intervals = Mapping[str, Mapping[str, Sequence[float | None]]]


class Evaluation:
    """The figures of one set of images under one or more protocols, for one pass over the predictions.

    An image in which a protocol finds no valid pixel has no figures. It is left out of the means, and it is named: in
    :meth:`empty`, in ``metrics.json`` and, as ``nan``, in ``per_image.csv``.

    Args:
        protocols: Each already narrowed to the data's depth range, with different names.

    Raises:
        ValueError: If there is no protocol, or two have one name.
    """

    def __init__(self, protocols: Sequence[Protocol]) -> None:
        self.protocols = {protocol.name: protocol for protocol in protocols}
        if not protocols or len(self.protocols) < len(protocols):
            raise ValueError(f"protocols {[protocol.name for protocol in protocols]}; needs one or more, each once")
        self._metrics = {name: DepthMetrics() for name in self.protocols}
        self._rows: dict[str, tuple[list[int], list[list[float]]]] | None = None
        self.flip_test = any(protocol.flip_test for protocol in protocols)

    def update(
        self, pred: Tensor, depth: Tensor, mask: Tensor, frame: Tensor | int, flipped: Tensor | None = None
    ) -> None:
        """Judge a batch.

        Args:
            pred: Predicted depth [m], shape ``(B, 1, h, w)``; resized to the truth's size, once for all protocols.
            depth: True depth [m], shape ``(B, 1, H, W)``.
            mask: Valid pixels, bool, shape ``(B, 1, H, W)``.
            frame: Each image's place in its split, int64, shape ``(B,)``.
            flipped: The mirrored images' prediction, mirrored back, shape of ``pred``; needed if ``flip_test`` is true,
                which says that some protocol averages it with ``pred``.

        Raises:
            ValueError: If ``flipped`` is needed and missing, or a shape does not fit.
        """
        self._rows = None
        size = (depth.shape[-2], depth.shape[-1])
        plain = mean = resize_prediction(pred, size)
        if self.flip_test:
            if flipped is None or flipped.shape != pred.shape:
                raise ValueError("flip averaging needs flipped=, the mirrored images' prediction, of the shape of pred")
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
        means: dict[str, dict[str, float]] = {}
        for name in self.protocols:
            judged = [row for row in self.rows(name)[1] if not math.isnan(row[0])]
            columns = list(zip(*judged, strict=True)) or [(math.nan,)] * len(METRIC_NAMES)
            values = [math.fsum(column) / len(column) for column in columns]
            means[name] = dict(zip(METRIC_NAMES, values, strict=True))
        return means

    def intervals(self, scenes: Sequence[str]) -> dict[str, dict[str, Interval]]:
        """Return ``{protocol: {metric: interval}}``: 95% by bootstrap over scenes, of the images with a valid pixel.

        Args:
            scenes: Each frame's scene, by its place in the split; the ends are NaN where there are fewer than two.
        """
        found: dict[str, dict[str, Interval]] = {}
        for name in self.protocols:
            judged = [(frame, row) for frame, row in zip(*self.rows(name), strict=True) if not math.isnan(row[0])]
            values = np.array([row for _, row in judged]).reshape(-1, len(METRIC_NAMES))
            ends = bootstrap(values, [scenes[frame] for frame, _ in judged])
            found[name] = dict(zip(METRIC_NAMES, ends, strict=True))
        return found

    def interval_record(self, scenes: Sequence[str]) -> dict[str, Any]:
        """Return :meth:`intervals` as plain values: lists of two, None where there is none, and how they were made."""
        found = {
            protocol: {metric: [None if math.isnan(end) else end for end in ends] for metric, ends in row.items()}
            for protocol, row in self.intervals(scenes).items()
        }
        count = len({scenes[frame] for frame in self.rows(next(iter(self.protocols)))[0]})
        return {"intervals": found, "scene_count": count, "level": LEVEL, "draws": DRAWS}

    def write(
        self,
        directory: str | os.PathLike[str],
        *,
        split: str,
        labels: Sequence[str],
        scenes: Sequence[str],
        expected: int,
        seed: int | None,
        commit: str | None,
        versions: Mapping[str, str | None],
        data: Mapping[str, Any],
        **extra: Any,
    ) -> None:
        """Write ``per_image.csv`` and then ``metrics.json``, both to full precision.

        Args:
            directory: Where to; made if it is missing.
            split: Which split the frames are of.
            labels: Each frame's name, by its place in the split.
            scenes: Each frame's scene, by its place in the split.
            expected: How many frames the split has.
            seed: The run's seed.
            commit: As :func:`commit` gives it.
            versions: As :func:`versions` gives it.
            data: What the data is and how it was prepared.
            **extra: Further entries of ``metrics.json``.

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
        content = {
            "split": split,
            "images": len(self.rows(next(iter(self.protocols)))[0]),
            "expected": expected,
            "seed": seed,
            "commit": commit,
            "versions": dict(versions),
            "data": dict(data),
            "protocols": self.figures(),
            **self.interval_record(scenes),
            "empty": {name: [labels[frame] for frame in frames] for name, frames in self.empty().items()},
            "definitions": {name: protocol.definition for name, protocol in self.protocols.items()},
            "digests": {name: protocol.digest for name, protocol in self.protocols.items()},
        }
        write_json(Path(directory, METRICS), extra | content)


def choose_protocols(names: str | Sequence[str], layout: Layout, split: str) -> list[Protocol]:
    """Return the protocols that a split is judged under, narrowed to the data's depth range.

    Args:
        names: A protocol's name, several, "all" for every one that fits the data, or "auto" for the data's own.
        layout: The data.
        split: Which split is judged.

    Raises:
        InputError: If the split is empty, a name is unknown, or one is not made for this truth or size.
    """
    count = layout.count(split)
    if not count:
        raise InputError(f"{layout.description}: it has no {split} frames")
    sizes = sorted({layout.size(split, frame) for frame in range(count)})
    if isinstance(names, str) and names == "auto":
        names = default_protocol(layout.nyu, layout.truth, sizes[0])
    found = find_protocols(names, layout.truth, sizes[0])
    for size in sizes[1:]:
        for protocol in found:
            protocol.check(layout.truth, size)
    if names == "all":
        limits = layout.depth_range
        own = [protocol.depth_range or limits for protocol in found]
        found = [p for p, r in zip(found, own, strict=True) if limits.min <= r.min and r.max <= limits.max]
    return [protocol.within(layout.depth_range) for protocol in found]


def describe_judged(layout: Layout, split: str, frames: Sequence[int]) -> str:
    """Say which frames of a split figures are of, for NYU how many official test frames, and of how many scenes.

    Args:
        layout: The data.
        split: The split that is judged.
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
    """Lay out figures for the terminal: under each protocol a row for each who was judged.

    Args:
        figures: ``{who: {protocol: {metric: value}}}``, such as the network's and the mean map's.
        title: What was judged: data, split, number of images, truth.
        intervals: ``{who: {protocol: {metric: (low, high)}}}`` of those who have them, two dim lines below their row;
            an end that is None or NaN stays blank.

    Returns:
        The best value of a protocol is bold where several were judged. It fits 80 columns.
    """
    table = Table(("protocol", *METRIC_NAMES), "l" + "r" * len(METRIC_NAMES), title, HIGHER_IS_BETTER, _short)
    for protocol in dict.fromkeys(name for judged in figures.values() for name in judged):
        table.section()
        table.add(protocol, *[None] * len(METRIC_NAMES), style="bold")
        for who, judged in figures.items():
            if protocol not in judged:
                continue
            table.add(f"  {who}", *(judged[protocol][metric] for metric in METRIC_NAMES))
            ends = (intervals or {}).get(who, {}).get(protocol, {})
            for label, place in ((f"{LEVEL:.0%} from", 0), ("to", 1)):
                values = [ends[metric][place] if metric in ends else None for metric in METRIC_NAMES]
                if not all(value is None or math.isnan(value) for value in values):
                    table.add(f"    {label:>8}", *values, style="dim")
    return table


def _short(value: float) -> str:
    """Three decimals, fewer where a figure is large: at most six characters for what networks score."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}" if abs(value) < 1000 else f"{value:.3g}"


def training_mean(layout: Layout, split: str) -> Tensor | None:
    """Return the :func:`mean_map` of up to 300 training frames, evenly spaced.

    Args:
        layout: The data.
        split: The split that the map is judged on, and has the size of.

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
    """Average depth pixel by pixel: the constant answer that every network must beat.

    Args:
        depths: Training depth [m], each of any shape ``(H, W)``, 0 where it is missing; taken one at a time.
        size: (height, width) of the answer.

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


def commit() -> str | None:
    """Return the git commit that this code is at, with ``-dirty`` when tracked files differ; None outside git."""
    source = Path(__file__).resolve()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source.parent), *arguments]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=10)
        return answer.stdout.strip()

    try:
        # installed inside another project's folder, the code is not at that project's commit
        git("ls-files", "--error-unmatch", source.name)
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str | None]:
    """Return the versions that figures may depend on, without importing more; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "depthnet": depthnet.__version__}
    found["torch"] = torch.__version__  # with its build, such as +cu132
    for name in ("torchvision", "lightning", "timm", "numpy", "pillow", "albumentations", "torchmetrics"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
