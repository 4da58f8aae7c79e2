"""``metrics.json`` and ``per_image.csv``: what the evaluation of a checkpoint found, printed as a table too."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from torch import Tensor

from depthnet.data.datamodule import DepthDataModule
from depthnet.evaluation.evaluator import Evaluation, commit, describe_judged, metrics_table, training_mean, versions
from depthnet.evaluation.metrics import METRIC_NAMES
from depthnet.evaluation.per_image import count_in_words
from depthnet.models.checkpoint import count_test
from depthnet.training.loggers import SafeLogger, last_step

log = logging.getLogger("depthnet")


class Results(Callback):
    """Writes what a judgement found, beside the constant that every network must beat, and prints it as a table.

    Args:
        directory: The run's directory.
        data: The data that is judged on; its training frames make the mean map.
        split: The split that is judged.
        seed: The run's seed, for the record.
        checkpoint: What is judged, where that was named; a judgement on test is counted beside it.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        data: DepthDataModule,
        split: str,
        seed: int,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        self._directory = Path(directory)
        self._data = data
        self._split = split
        self._seed = seed
        self._checkpoint = checkpoint
        self._map: Tensor | None = None
        self._constant: Evaluation | None = None
        self._figures: dict[str, dict[str, float]] = {}

    def figure(self, watch: str) -> float:
        """Return the figure of the first protocol that a key such as ``val/delta1`` names."""
        return next(iter(self._figures.values()))[watch.partition("/")[2]]

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the mean training depth map."""
        self._map = training_mean(self._data.layout, self._split)
        if self._map is not None:
            self._constant = Evaluation(pl_module.protocols)  # type: ignore[arg-type]

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Judge the mean map on the same frames."""
        if self._map is not None and self._constant is not None:
            constant = self._map.to(batch.depth.device).expand(len(batch.depth), -1, -1, -1)
            self._constant.update(constant, batch.depth, batch.mask, batch.frame, constant.flip(-1))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``metrics.json`` and ``per_image.csv``, print the table, and tell the loggers."""
        evaluation: Evaluation = pl_module.evaluation  # type: ignore[assignment]
        layout = self._data.layout
        count = layout.count(self._split)
        self._figures = evaluation.figures()
        constant = self._constant.figures() if self._constant is not None else {}
        if not trainer.is_global_zero:
            return
        scenes = [layout.scene(self._split, frame) for frame in range(count)]
        labels = [layout.label(self._split, frame) for frame in range(count)]
        counted = {}
        if self._split in ("test", "published") and self._checkpoint is not None:
            when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            entry = {"when": when, "directory": str(self._directory), "data": layout.description, **self._figures}
            counted = {"test_judgements": count_test(self._checkpoint, entry)}
            log.info(_count_in_words(counted["test_judgements"]))
        evaluation.write(
            self._directory,
            split=self._split,
            labels=labels,
            scenes=scenes,
            expected=count,
            seed=self._seed,
            commit=commit(),
            versions=versions(),
            data=self._data.record(),
            **counted,
            mean_map=constant,
        )
        rows = {"this checkpoint": self._figures}
        if constant:
            rows["mean map"] = constant
        judged = evaluation.rows(next(iter(self._figures)))[0]
        title = f"{layout.description}, {self._split}: {count_in_words(len(judged), count)}, {layout.truth} truth"
        print(f"judged: {describe_judged(layout, self._split, judged)}")
        Console().print(metrics_table(rows, title, {"this checkpoint": evaluation.intervals(scenes)}))
        step = last_step(trainer)
        for logger in trainer.loggers:
            for protocol, figures in self._figures.items():
                named = {f"{self._split}/{protocol}/{metric}": value for metric, value in figures.items()}
                logger.log_metrics(named, step)
            if isinstance(logger, SafeLogger):
                columns = ("protocol", "frame", "label", "scene", *METRIC_NAMES)
                images = (  # drawn only where a table is asked for
                    (protocol, frame, labels[frame], scenes[frame], *row)
                    for protocol in self._figures
                    for frame, row in zip(*evaluation.rows(protocol), strict=True)
                )
                logger.table(f"per_image/{self._split}", columns, images, step)


def _count_in_words(count: int | None) -> str:
    if count is None:
        return "test: this evaluation cannot be counted; the record of the checkpoint's tests cannot be read or written"
    return (
        f"test: judgement number {count} of this checkpoint; what is chosen by test figures is no longer tested by them"
    )
