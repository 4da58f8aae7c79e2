"""``metrics.json`` and ``per_image.csv``: what the evaluation of a checkpoint found, printed as a table too."""

from __future__ import annotations

import logging
import math
import os
import time
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from torch import Tensor

from depthnet.core.tables import count_in_words
from depthnet.evaluation.evaluator import Evaluation, describe_frames, metrics_table, training_mean
from depthnet.evaluation.metrics import METRIC_NAMES
from depthnet.models.checkpoint import count_test
from depthnet.run.provenance import commit, versions
from depthnet.training.loggers import last_step, wandb_runs

log = logging.getLogger("depthnet")


class Results(Callback):
    """Writes what an evaluation found, beside the constant that every network must beat, and prints it as a table.

    Args:
        directory: The run's directory.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)
        self._map: Tensor | None = None
        self._figures: dict[str, dict[str, float]] = {}

    def figure(self, watch: str) -> float:
        """Return the figure of the first protocol that a key such as ``val/delta1`` names."""
        return next(iter(self._figures.values()))[watch.partition("/")[2]]

    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Make the mean training depth map."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning's type leaves it out
        self._map = training_mean(data.layout, data.test_split)
        self._baseline = Evaluation(pl_module.protocols)

    def on_test_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Evaluate the mean map on the same frames."""
        if self._map is not None:
            constant = self._map.to(batch.depth.device).expand(len(batch.depth), -1, -1, -1)
            self._baseline.update(constant, batch.depth, batch.mask, batch.frame, constant.flip(-1))

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write ``metrics.json`` and ``per_image.csv``, print the table, and log the figures."""
        evaluation: Evaluation = pl_module.evaluation
        data, run = trainer.datamodule, pl_module.run  # type: ignore[attr-defined]  # Lightning's type leaves it out
        layout, split = data.layout, data.test_split
        self._figures = evaluation.figures()
        rows = {"this checkpoint": self._figures}
        if self._map is not None:
            rows["mean map"] = self._baseline.figures()
        if not trainer.is_global_zero:
            return
        frames = range(layout.count(split))
        scenes = [layout.scene(split, frame) for frame in frames]
        labels = [layout.label(split, frame) for frame in frames]
        evaluation.write(
            self._directory,
            split=split,
            labels=labels,
            scenes=scenes,
            expected=len(frames),
            seed=run.get("seed"),
            commit=commit(),
            versions=versions(),
            data=data.record(),
            **(self._count(run["ckpt"], layout.description) if split in ("test", "keras_frames") else {}),
            mean_map=rows.get("mean map", {}),
        )
        frames_found = evaluation.rows(next(iter(self._figures)))[0]
        counts = count_in_words(len(frames_found), len(frames))
        title = f"{layout.description}, {split}: {counts}, {layout.ground_truth} ground truth"
        print(f"evaluated: {describe_frames(layout, split, frames_found)}")
        metrics_table(rows, title, {"this checkpoint": evaluation.intervals(scenes)}).print()
        step = last_step(trainer)
        for logger in trainer.loggers:
            for protocol, figures in self._figures.items():
                logger.log_metrics({f"{split}/{protocol}/{name}": value for name, value in figures.items()}, step)
        for run in wandb_runs(trainer):
            if run.log_per_image:
                images = [
                    [protocol, frame, labels[frame], scenes[frame], *(None if math.isnan(v) else v for v in row)]
                    for protocol in self._figures
                    for frame, row in zip(*evaluation.rows(protocol), strict=True)
                ]
                columns = ["protocol", "frame", "label", "scene", *METRIC_NAMES]
                run.log_table(f"per_image/{split}", columns, images, step=step)

    def _count(self, checkpoint: str, data: str) -> dict[str, int | None]:
        """Note an evaluation on test beside its checkpoint, and return how many there were, for the record."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        entry = {"when": when, "directory": str(self._directory), "data": data, **self._figures}
        count = count_test(checkpoint, entry)
        log.info(
            "test: this evaluation cannot be counted; the record of the checkpoint's tests cannot be read or written"
            if count is None
            else f"test: evaluation number {count} of this checkpoint; what is chosen by test figures is no longer "
            "tested by them"
        )
        return {"test_evaluations": count}
