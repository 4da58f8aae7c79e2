"""``best.ckpt``: the weights of the best validation."""

from __future__ import annotations

from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint for runs that may be moved: it knows its best score again in another directory.

    A figure that is not finite is never the best; Lightning would keep the first one in any case.
    """

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Return whether a figure is among the best."""
        return current is not None and bool(current.isfinite()) and super().check_monitor_top_k(trainer, current)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state of the run that is resumed, with its paths moved to this directory."""
        old, new = str(state_dict["dirpath"]), str(self.dirpath)
        paths = {key: value.replace(old, new, 1) for key, value in state_dict.items() if isinstance(value, str)}
        best = {path.replace(old, new, 1): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best})
        self.current_score = state_dict["current_score"]  # Lightning forgets it
