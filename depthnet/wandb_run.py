"""A run in W&B that may be stopped and go on: nothing is logged twice, and its summary holds the best figures."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning_utilities.core.rank_zero import rank_zero_only

from depthnet.run import best_direction
from depthnet.types import InputError

__all__ = ["WandbRun"]

_READ = 120.0  # seconds that an earlier start's file may take, also on a busy machine
_STEP = "trainer/global_step"  # Lightning's name for the step of a row


class WandbRun(WandbLogger):
    """Lightning's W&B logger, for one run of ours whatever number of starts it takes.

    A run that was killed takes some steps again; what W&B's own files in the directory hold of them is not logged a
    second time. Averages over an epoch (``train/loss``) and figures of a validation (``val/delta1``) are drawn over the
    epoch; the summary of the figures is the best finite one of all starts.

    Args:
        directory: The run's directory; W&B's files are in its folder ``wandb``.
        log_per_image: Whether :meth:`log_per_image` records its table.
        options: Of ``WandbLogger`` and ``wandb.init``; ``log_model=True`` keeps the best checkpoint as an artifact.
    """

    def __init__(self, directory: str | os.PathLike[str], log_per_image: bool = False, **options: Any) -> None:
        # an artifact's file stays where it is instead of being copied to W&B's folder in the user's home
        super().__init__(save_dir=str(directory), add_file_policy="immutable", **options)
        self.per_image = log_per_image
        self._last, self._best = _earlier(Path(directory))
        self._drawn: set[str] = set()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record what no earlier start has recorded of this step."""
        new = {key: value for key, value in metrics.items() if step is None or step > self._last.get(key, -1)}
        if not new.keys() - {"epoch"}:
            return
        for key, value in new.items():
            if key.startswith(("train/", "val/")) and key.count("/") == 1 and key not in self._drawn:
                self._drawn.add(key)
                self.experiment.define_metric(key, step_metric="epoch")
            _improve(self._best, key, value)
        super().log_metrics(new | {key: metrics[key] for key in ("epoch",) if key in metrics}, step)
        # W&B's own summary="max" knows this start only, and one NaN spoils it
        best = {key: self._best[key] for key in new if key in self._best}
        if best:
            self.experiment.summary.update(best)


def _earlier(directory: Path) -> tuple[dict[str, int], dict[str, float]]:
    """The last step of each key that earlier starts recorded, and the best of each figure, by W&B's own files."""
    last: dict[str, int] = {}
    best: dict[str, float] = {}
    for path in sorted((directory / "wandb").glob("*run-*/run-*.wandb")):
        command = [sys.executable, "-P", "-m", "wandb", "leet", "inspect", "--json", str(path)]
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):  # at worst something is there twice
            found = subprocess.run(command, capture_output=True, text=True, timeout=_READ, check=False)
            for line in found.stdout.splitlines():
                row = json.loads(line).get("history", {}).get("item", {})
                for name in row:
                    key = name.partition(".")[0]  # a picture is several entries: panels/val.count, ...
                    last[key] = max(last.get(key, -1), int(row.get(_STEP, -1)))
                    _improve(best, key, row[name])
    return last, best


def _improve(best: dict[str, float], key: str, value: Any) -> None:
    try:
        better = max if best_direction(key) == "max" else min
    except InputError:
        return  # no figure
    if isinstance(value, int | float) and math.isfinite(value):
        best[key] = better(best.get(key, value), value)
