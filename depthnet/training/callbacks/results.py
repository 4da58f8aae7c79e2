"""What happens around training: history, panels, results and the progress bar."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch.callbacks
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning_utilities.core.rank_zero import rank_zero_only
from rich.console import Console
from torch import Tensor
from torch.nn.functional import interpolate

from depthnet.core.atomic_io import write_text
from depthnet.core.images import resize_nearest, write_image_png
from depthnet.core.types import InputError, Sample
from depthnet.core.visualize import panel
from depthnet.data.datamodule import DepthDataModule
from depthnet.data.layouts.layout import Layout
from depthnet.evaluation.evaluator import Evaluation, describe_judged, metrics_table, training_mean
from depthnet.evaluation.metrics import METRIC_NAMES
from depthnet.evaluation.per_image import count_in_words
from depthnet.models.checkpoint import count_test
from depthnet.run.config import best_direction
from depthnet.run.provenance import commit, versions
from depthnet.training.loggers import SafeLogger, last_step

log = logging.getLogger("depthnet")

_STEP_COLUMNS = ("epoch", "step", "lr", "loss", "delta1")
_STEP_ROW = re.compile(r"\d+,\d+(,[^,\n]+){3}\n")


class History(lightning.pytorch.callbacks.Checkpoint):
    """Writes ``history.csv``, a row an epoch with every logged average, and ``steps.csv``, a row every few steps.

    Both go on where a resumed run stopped, as if it had not. It is Lightning's kind of callback that comes after the
    module's own hooks, whose averages it writes.

    Args:
        directory: The run's directory.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._path = Path(directory) / "history.csv"
        self._steps = Path(directory) / "steps.csv"
        self._rows: list[dict[str, float]] = []
        self._step = 0  # the last one that was looked at

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far, for the checkpoint."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows of the run that is resumed."""
        self._rows = list(state_dict["rows"])

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the rows of steps that the run takes again, and what a kill left half written."""
        self._step = trainer.global_step
        kept = [f"{','.join(_STEP_COLUMNS)}\n"]
        if trainer.global_step and self._steps.is_file():
            text = self._steps.read_text(encoding="utf-8", errors="replace")
            whole = [line for line in text.splitlines(keepends=True) if _STEP_ROW.fullmatch(line)]
            kept += [line for line in whole if int(line.split(",")[1]) <= trainer.global_step]
        write_text(self._steps, "".join(kept))

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a row every ``trainer.log_every_n_steps`` optimiser steps."""
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if not stepped or trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]  # is there
            return
        logged = trainer.callback_metrics
        values = [float(logged[f"step/{name}"]) for name in ("loss", "delta1")]
        row = [trainer.current_epoch, trainer.global_step, _rate(trainer), *values]
        try:
            with self._steps.open("a", encoding="utf-8") as file:
                file.write(",".join(map(repr, row)) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {self._steps}: {error.strerror}") from error

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row and write the file whole."""
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row["lr"] = _rate(trainer)
        row |= {
            name: float(value)
            for name, value in sorted(trainer.callback_metrics.items())
            if name.startswith(("train/", "val/"))
        }
        self._rows.append(row)
        shown = ("train/loss", "train/delta1", "val/delta1", "val/abs_rel", "val/rmse")
        words = [f"{name} {row[name]:.3f}" for name in shown if name in row]
        last = f" of {trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""  # -1: the steps are limited
        log.info("epoch %d%s: %s", trainer.current_epoch + 1, last, ", ".join(words))
        for logger in _safe(trainer):
            logger.summary(_best(self._rows))
        columns = list(dict.fromkeys(name for line in self._rows for name in line))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self._path, text.getvalue())


def _best(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The best finite figure of each metric, over all epochs of a run, whatever number of starts it took."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith("val/") and math.isfinite(value):
                found.setdefault(name, []).append(value)
    return {name: (max if best_direction(name) == "max" else min)(values) for name, values in found.items()}


def _rate(trainer: Trainer) -> float:
    return float(max(group["lr"] for group in trainer.optimizers[0].param_groups))


class Checkpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint for runs that may be moved: it knows its best score again in another directory.

    A figure that is not finite is never the best; Lightning would keep the first one whatever it is.
    """

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Return whether a figure is among the best."""
        return current is not None and bool(current.isfinite()) and super().check_monitor_top_k(trainer, current)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state of the run that is resumed, with its paths turned to this directory."""
        old, new = str(state_dict["dirpath"]), str(self.dirpath)

        def turned(value: Any) -> Any:
            if isinstance(value, dict):
                return {turned(key): turned(item) for key, item in value.items()}
            return new + value.removeprefix(old) if isinstance(value, str) and value.startswith(old) else value

        super().load_state_dict(turned(state_dict))
        self.current_score = state_dict["current_score"]  # Lightning forgets it


class Panels(Callback):
    """Pictures of a few frames: image, truth, prediction, error.

    When a checkpoint is judged they are written to ``panels/``; after a validation they go to the loggers only.

    Args:
        directory: The run's directory.
        layout: Names the frames.
        split: The split that is judged.
        count: How many frames, evenly spaced over the split.
    """

    def __init__(self, directory: str | os.PathLike[str], layout: Layout, split: str, count: int = 6) -> None:
        self._directory = Path(directory) / "panels"
        self._layout = layout
        self._split = split
        self._count = count
        self._drawn: dict[str, Any] = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the chosen frames of a batch for the loggers that show pictures."""
        if any(logger.shows_images for logger in _safe(trainer)) and not trainer.sanity_checking:
            self._draw(outputs, batch, "val", write=False)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the chosen frames of a batch."""
        self._draw(outputs, batch, self._split, write=True)

    def _draw(self, pred: Tensor, batch: Sample, split: str, write: bool) -> None:
        total = self._layout.count(split)
        count = min(self._count, total)
        chosen = {i * total // count for i in range(count)}
        for place, frame in enumerate(torch.as_tensor(batch.frame).tolist()):
            if frame not in chosen:
                continue
            depth = batch.depth[place, 0].cpu().numpy()
            sized = interpolate(pred[place, None].float(), batch.depth.shape[-2:], mode="bilinear", align_corners=True)
            image = batch.image[place].permute(1, 2, 0).cpu().numpy()
            label = self._layout.label(split, frame)
            picture = panel(
                image,
                resize_nearest(depth, image.shape[:2]),
                resize_nearest(batch.mask[place, 0].cpu().numpy(), image.shape[:2]),
                resize_nearest(sized[0, 0].cpu().numpy(), image.shape[:2]),
                label,
            )
            if write:
                write_image_png(self._directory / f"{label.replace('/', '_')}.png", picture)
            self._drawn[label] = picture

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send the pictures to every logger, all in one step."""
        self._send(trainer, "panels/val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send the pictures to every logger, all in one step."""
        self._send(trainer, f"panels/judged_{self._split}")

    def _send(self, trainer: Trainer, key: str) -> None:
        for logger in _safe(trainer):
            logger.images(key, self._drawn, last_step(trainer))
        self._drawn.clear()


def _safe(trainer: Trainer) -> list[SafeLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, SafeLogger)]


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


class Progress(RichProgressBar):
    """Lightning's Rich progress bar, on stderr, with loss, delta1 and images per second.

    Where stderr is no terminal there is none; the line that each epoch leaves in the log has to do.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(console_kwargs={"stderr": True}, **options)
        if not sys.stderr.isatty():
            self.disable()
        self._started = 0.0
        self._images = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting images, also where an epoch goes on."""
        super().on_train_start(trainer, pl_module)
        self._started, self._images = time.perf_counter(), 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting images."""
        super().on_train_epoch_start(trainer, pl_module)
        self._started, self._images = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch's images, on all processes."""
        self._images += len(batch.image) * trainer.world_size
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what the bar shows."""
        shown: dict[str, int | str | float | dict[str, float]] = {}
        for name in ("step/loss", "step/delta1", "val/delta1"):
            if name in trainer.callback_metrics:
                shown[name.removeprefix("step/")] = f"{float(trainer.callback_metrics[name]):.3f}"
        seconds = time.perf_counter() - self._started
        if self._images and seconds > 0:
            shown["img/s"] = f"{self._images / seconds:.1f}"
        return shown
