"""What happens around training: history, panels, results, the progress bar, and a W&B logger that cannot stop a run."""

from __future__ import annotations

import csv
import io
import logging
import netrc
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning_utilities.core.rank_zero import rank_zero_only
from rich.console import Console
from torch import Tensor
from torch.nn.functional import interpolate

from depthnet.checkpoint import count_test
from depthnet.data.datamodule import DepthDataModule
from depthnet.data.layout import Layout
from depthnet.durable import write_text
from depthnet.evaluation import Evaluation, commit, describe_judged, mean_map, metrics_table, versions
from depthnet.image import resize_nearest, write_image_png
from depthnet.types import Sample
from depthnet.visualize import panel

__all__ = ["Checkpoint", "History", "Panels", "Progress", "Results", "wandb_logger"]

log = logging.getLogger("depthnet")

_MEAN_MAP_FRAMES = 300
_SILENT = {"silent": True}


class History(Callback):
    """Writes ``history.csv``, a row an epoch with every logged average; it goes on where a resumed run stopped.

    Args:
        directory: The run's directory.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._path = Path(directory) / "history.csv"
        self._rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far, for the checkpoint."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows of the run that is resumed."""
        self._rows = list(state_dict["rows"])

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row and write the file whole."""
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row["lr"] = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        row |= {
            name: float(value)
            for name, value in sorted(trainer.callback_metrics.items())
            if name.startswith(("train/", "val/"))
        }
        self._rows.append(row)
        shown = ("train/loss", "train/delta1", "val/delta1", "val/abs_rel", "val/rmse")
        words = [f"{name} {row[name]:.3f}" for name in shown if name in row]
        log.info("epoch %d of %s: %s", trainer.current_epoch + 1, trainer.max_epochs, ", ".join(words))
        columns = list(dict.fromkeys(name for line in self._rows for name in line))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self._path, text.getvalue())


class Checkpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint for runs that may be moved: it knows its best score again in another directory."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state of the run that is resumed, with its paths turned to this directory."""
        old, new = str(state_dict["dirpath"]), str(self.dirpath)

        def turned(value: Any) -> Any:
            if isinstance(value, dict):
                return {turned(key): turned(item) for key, item in value.items()}
            return new + value.removeprefix(old) if isinstance(value, str) and value.startswith(old) else value

        super().load_state_dict(turned(state_dict))


class Panels(Callback):
    """Pictures of a few frames: image, truth, prediction, error.

    When a checkpoint is judged they are written to ``panels/``; after a validation they go to the logger only.

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
        """Send the chosen frames of a batch to the logger."""
        if isinstance(trainer.logger, WandbLogger) and not trainer.sanity_checking:
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
        """Send the pictures to the logger, all in one step."""
        if self._drawn and isinstance(trainer.logger, WandbLogger):
            height, width = (max(picture.shape[axis] for picture in self._drawn.values()) for axis in (0, 1))
            pictures = [  # W&B shows pictures of one size only
                np.pad(p, ((0, height - p.shape[0]), (0, width - p.shape[1]), (0, 0)), constant_values=255)
                for p in self._drawn.values()
            ]
            trainer.logger.log_image(f"panels/{self._split}", pictures, caption=[*self._drawn])
        self._drawn.clear()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send the pictures to the logger, all in one step."""
        self.on_validation_epoch_end(trainer, pl_module)


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
        layout = self._data.layout
        count = layout.count("train")
        if count:
            used = min(count, _MEAN_MAP_FRAMES)
            depths = (layout.read("train", i * count // used)[1] for i in range(used))
            self._map = torch.from_numpy(mean_map(depths, layout.size(self._split, 0)))[None, None]
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
        counted = {}
        if self._split in ("test", "published") and self._checkpoint is not None:
            when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            entry = {"when": when, "directory": str(self._directory), "data": layout.description, **self._figures}
            counted = {"test_judgements": count_test(self._checkpoint, entry)}
            log.info(_count_in_words(counted["test_judgements"]))
        evaluation.write(
            self._directory,
            split=self._split,
            labels=[layout.label(self._split, frame) for frame in range(count)],
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
        title = f"{layout.description}, {self._split}: {count} images, {layout.truth} truth"
        print(f"judged: {describe_judged(layout, self._split, judged)}")
        Console().print(metrics_table(rows, title, {"this checkpoint": evaluation.intervals(scenes)}))
        for logger in trainer.loggers:
            for protocol, figures in self._figures.items():
                logger.log_metrics({f"{self._split}/{protocol}/{metric}": value for metric, value in figures.items()})


def _count_in_words(count: int | None) -> str:
    if count is None:
        return "test: this judgement cannot be counted; the record beside the checkpoint cannot be read or written"
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


def wandb_logger(directory: str | os.PathLike[str], project: str, **options: Any) -> Logger | None:
    """Make a W&B logger that cannot stop a run: online if an account is set up and its server answers, else offline.

    Args:
        directory: The run's directory; W&B's files go into its folder ``wandb``.
        project: The W&B project.
        options: Further arguments of ``wandb.init``.

    Returns:
        The logger; None, with a line that says so, where wandb is not installed.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        import wandb
    except ImportError:
        log.info("W&B: not installed, so nothing is sent; history.csv and metrics.json are written all the same")
        return None
    mode = os.environ.get("WANDB_MODE")
    if mode is None:
        address = wandb.Settings().base_url
        configured = _has_account(address)
        mode = "online" if configured and _answers(address) else "offline"
        if mode == "offline":
            why = "its server does not answer" if configured else "no account is set up"
            log.info(f"W&B: offline, {why}; to send this run later: wandb sync {directory}/wandb/offline-run-*")
    if wandb.run is not None:  # of an earlier job of a sweep that failed before it began
        wandb.finish(exit_code=1)
    try:
        logger = WandbLogger(
            save_dir=str(directory), project=project, offline=mode == "offline", mode=mode, settings=_SILENT, **options
        )
        logger._wandb_init.pop("anonymous", None)  # Lightning always passes it, and wandb warns of it
        _ = logger.experiment  # starts the run now, so that what is wrong with it shows before any work
    except Exception as error:
        log.warning(f"W&B: cannot start ({' '.join(str(error).split())}); the run goes on without it")
        return None
    return logger


def _has_account(address: str) -> bool:
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    try:
        known = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return known.authenticators(urlsplit(address).hostname or "") is not None


def _answers(address: str, seconds: float = 3.0) -> bool:
    parts = urlsplit(address)
    try:
        with socket.create_connection(
            (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)), seconds
        ):
            return True
    except OSError:
        return False
