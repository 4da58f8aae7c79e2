"""The files of Lightning's checkpoints: written whole, and read as plain data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO

from depthnet.core.types import LAST, InputError
from depthnet.models.checkpoint import load_plain, not_finite, remove_plain, save_plain

_WEIGHTS = ("state_dict", "current_model_state", "optimizer_states")


class DurableCheckpointIO(CheckpointIO):
    """Writes checkpoints through the durable writer and reads them as plain data.

    Lightning's own moves a file over from TMPDIR, which leaves a torn checkpoint when it is killed and destroys the
    good one on a full disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint whole, with its digest beside it; of the last one, the generation before it stays.

        Raises:
            InputError: If it cannot be written, or its weights are not finite; what was there is untouched.
        """
        broken = not_finite({name: checkpoint.get(name) for name in _WEIGHTS})
        if broken:
            raise InputError(
                f"{path}: not written, because {len(broken)} of its tensors are not finite, {broken[0]} the first; "
                "training has diverged: lower optimizer.lr, and resume from a checkpoint before this"
            )
        save_plain(path, checkpoint, keep=Path(path).name == LAST.name)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; only plain data is loaded, whatever ``weights_only``."""
        return load_plain(path)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint and its digest."""
        remove_plain(path)
