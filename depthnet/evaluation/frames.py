"""A run evaluated again, frame by frame: its data, and where its best checkpoint errs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import default_collate

from depthnet.core.device import find_gpu
from depthnet.core.types import BEST, DepthRange, InputError, Sample, read_size
from depthnet.data.dataset import Change, DepthDataset
from depthnet.data.layouts.layout import Layout
from depthnet.data.layouts.registry import open_root
from depthnet.data.rooms.layout import RoomsLayout
from depthnet.evaluation.atlas import Atlas
from depthnet.evaluation.metrics import METRIC_NAMES, depth_metrics
from depthnet.evaluation.protocols import choose_protocols
from depthnet.models.checkpoint import find_checkpoint
from depthnet.models.depth_net import load_network
from depthnet.models.network import focal_lengths
from depthnet.run.files import Run

_SOURCE = ("layout", "ground_truth", "depth_range", "val", "test_root", "lists", "unit", "focal", "fov_x")


@dataclass(frozen=True)
class FrameResult:
    """A frame and a network's prediction of it.

    Attributes:
        frame: Its number.
        image: What the network saw, RGB, ``(h, w, 3)``.
        pred, depth, mask: Predicted and true depth [m] and valid pixels as the protocol compares them, ``(H, W)``.
        metrics: The nine, in the order of ``METRIC_NAMES``.
    """

    frame: int
    image: npt.NDArray[np.uint8]
    pred: npt.NDArray[np.float32]
    depth: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    metrics: list[float]


@dataclass(frozen=True)
class FrameResults:
    """The results of evaluating a run's frames.

    Attributes:
        metrics: The nine metrics of each frame, by its number.
        edges: ``delta1`` and ``edge_f1`` of each frame, NaN where its ground truth has no edge.
        atlas: Where the errors are.
        examples: Frames to be shown, by "Best", "Median" and "Worst".
    """

    metrics: dict[int, list[float]]
    edges: dict[int, dict[str, float]]
    atlas: Atlas
    examples: dict[str, list[FrameResult]]


def open_data(data: Mapping[str, Any], root: str | os.PathLike[str] | None = None) -> Layout:
    """Open the data that a run's config names, without Lightning.

    Args:
        data: The config's ``data``.
        root: Where the data is now, if it moved.

    Raises:
        InputError: If the data cannot be opened, or is made in a way that this tool does not know.
    """
    maker = str(data["_target_"]).rpartition(".")[2]
    if maker == "rooms":
        if root is not None:
            raise InputError("--root: the run was evaluated on built-in rooms, which have no folder; leave it out")
        size, depth_range = read_size("data.image_size", data["image_size"]), DepthRange.of(data["depth_range"])
        return RoomsLayout(data["frames"], size, data.get("scene_seed", 0), depth_range, data.get("holes", False))
    if maker == "from_root":
        return open_root(root or data["root"], **{name: data[name] for name in _SOURCE if name in data})
    raise InputError(f"the run's data is made by {data['_target_']}; a report knows .from_root and .rooms")


class FramePredictor:
    """A checkpoint's network, to predict any frame of a split as the evaluation of a run does.

    Args:
        checkpoint: A checkpoint file.
        layout: The data.
        split: Its split.
        device: A torch device.
        image_size: (height, width) that the network sees; None: what it was trained at.

    Raises:
        InputError: If the checkpoint cannot be read.
    """

    def __init__(
        self, checkpoint: Path, layout: Layout, split: str, device: str, image_size: Sequence[int] | None = None
    ) -> None:
        self._network, self._device = load_network(checkpoint, device, size=image_size), device
        self._layout, self._split = layout, split
        sizes = (layout.size(split, frame) for frame in range(layout.count(split)))
        self._sizes = [self._network.size_for(size) for size in sizes]

    @torch.inference_mode()
    def predict(
        self, frame: int, change: Change | None = None, flip: bool = False
    ) -> tuple[Sample, Tensor, Tensor | None]:
        """Predict a frame.

        Args:
            frame: Its place in the split.
            change: Changes its photograph first, as :class:`depthnet.data.dataset.DepthDataset` does it.
            flip: Whether to predict the mirrored image as well.

        Returns:
            The frame as a batch of one; its depth [m], shape ``(1, 1, h, w)``; and that of the mirrored image, mirrored
            back, None unless ``flip``.
        """
        dataset = DepthDataset(self._layout, self._split, self._sizes, change=change)
        sample: Sample = default_collate([dataset[frame]])
        image, focal = sample.image.to(self._device), focal_lengths(sample.intrinsics)
        flipped = self._network(image.flip(-1), focal).flip(-1).cpu() if flip else None
        return sample, self._network(image, focal).cpu(), flipped


class FrameEvaluator:
    """A run's checkpoint and the data that it was evaluated on, to evaluate any frame again under its first protocol.

    Args:
        run: The run.
        checkpoint: What is evaluated; None: the run's best checkpoint, or the one that it was given to evaluate.
        root: Where the data is now, if it moved.
        limit: Only this many frames, evenly spaced.

    Raises:
        InputError: If checkpoint or data are not there, or the data is not what the run was evaluated on.
    """

    def __init__(
        self,
        run: Run,
        checkpoint: str | os.PathLike[str] | None = None,
        root: str | os.PathLike[str] | None = None,
        limit: int | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise InputError(f"--limit {limit}: needs 1 or more frames")
        self.run, self.checkpoint = run, evaluated_checkpoint(run, checkpoint)
        self.split, self.rows = run.metrics["split"], run.rows[run.protocol]
        self.layout = open_data(run.config["data"], root)
        total = self.layout.count(self.split)
        for frame, (label, _, _) in self.rows.items():
            if frame >= total or self.layout.label(self.split, frame) != label:
                where = f"{self.layout.description}: its {self.split} frame {frame} is not {label}"
                raise InputError(f"{where}, which the run was evaluated on; name that data with --root")
        (self.protocol,) = choose_protocols(run.protocol, self.layout, self.split)
        device, size = "cpu" if find_gpu().reason else "cuda", run.config["data"]["image_size"]
        self._predictor = FramePredictor(self.checkpoint, self.layout, self.split, device, size)
        frames = sorted(self.rows)
        count = min(limit or len(frames), len(frames))
        self.frames = [frames[place * len(frames) // count] for place in range(count)]

    def evaluate(self, frame: int, change: Change | None = None) -> FrameResult:
        """Evaluate a frame, its photograph changed first as :class:`depthnet.data.dataset.DepthDataset` does it."""
        sample, pred, flipped = self._predictor.predict(frame, change, self.protocol.flip_test)
        batch = self.protocol(pred if flipped is None else (pred + flipped) / 2, sample.depth, sample.mask)
        metrics = [value.item() for value in depth_metrics(*batch).values()]
        seen, depth, mask = (part[0, 0].numpy() for part in batch)
        return FrameResult(frame, sample.image[0].permute(1, 2, 0).numpy(), seen, depth, mask, metrics)


def evaluate_frames(evaluator: FrameEvaluator, advance: Callable[[int, int], None] | None = None) -> FrameResults:
    """Evaluate a run's frames, one at a time, and find where the errors are.

    Args:
        evaluator: The checkpoint and its frames.
        advance: Called after each frame with how many were evaluated and how many there are.

    Raises:
        InputError: If no frame has a pixel that counts.
    """
    layout, split = evaluator.layout, evaluator.split
    atlas = Atlas(evaluator.protocol.depth_range or layout.depth_range, layout.object_names)
    metrics: dict[int, list[float]] = {}
    edges: dict[int, dict[str, float]] = {}
    for done, frame in enumerate(evaluator.frames, start=1):
        result = evaluator.evaluate(frame)
        metrics[frame] = result.metrics
        kind, objects = layout.scene_type(split, frame), layout.objects(split, frame)
        sharp = atlas.add(result.pred, result.depth, result.mask, evaluator.rows[frame].scene, kind, objects)
        edges[frame] = {"delta1": result.metrics[0], "edge_f1": sharp}
        if advance is not None:
            advance(done, len(evaluator.frames))
    chosen = choose_frames(metrics)
    if not chosen:
        why = f"no {split} frame has a pixel that counts under {evaluator.protocol.name}"
        raise InputError(f"{layout.description}: {why}")
    examples = {name: [evaluator.evaluate(frame) for frame in some] for name, some in chosen.items()}
    return FrameResults(metrics, edges, atlas, examples)


def choose_frames(figures: Mapping[int, Sequence[float]], most: int = 3) -> dict[str, list[int]]:
    """Choose frames to show, by AbsRel.

    Args:
        figures: The nine figures of each frame, by its number; a frame with NaN is left out.
        most: Frames of each kind; at most a third of the frames.

    Returns:
        Frames by "Best", "Median" and "Worst", the clearest first; none twice.

    Example:
        >>> choose_frames({frame: [0.0, 0.0, 0.0, float(frame)] for frame in range(6)}, most=1)
        {'Best': [0], 'Median': [3], 'Worst': [5]}
    """
    column = METRIC_NAMES.index("abs_rel")
    ordered = sorted((f for f, row in figures.items() if not math.isnan(row[column])), key=lambda f: figures[f][column])
    count = min(most, max(1, len(ordered) // 3))
    middle = (len(ordered) - count + 1) // 2
    median = ordered[middle : middle + count] if len(ordered) > 2 else []
    chosen = {"Best": ordered[:count], "Median": median, "Worst": ordered[count:][-count:][::-1]}
    return {name: frames for name, frames in chosen.items() if frames}


def evaluated_checkpoint(run: Run, stated: str | os.PathLike[str] | None = None) -> Path:
    """Return the stated checkpoint, else the one that a run evaluated: its best, or its ``ckpt``.

    Raises:
        InputError: If it is not there.
    """
    best = run.directory / BEST
    named = stated or (best if best.is_file() else run.config.get("ckpt"))  # a run that only evaluated has no best one
    if named is None:
        raise InputError(f"{best}: no such checkpoint; name the one that was evaluated with --ckpt")
    return find_checkpoint(named)
