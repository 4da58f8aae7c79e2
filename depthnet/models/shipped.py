"""Models that ship with the package: ``depthnet/weights/NAME.safetensors``, and its card, ``NAME.md``."""

from __future__ import annotations

from pathlib import Path

import depthnet
from depthnet.core.types import InputError

WEIGHTS = Path(depthnet.__file__).resolve().parent / "weights"
SUFFIX = ".safetensors"

_DEFAULT = "nyu_small"


def shipped_models() -> dict[str, Path]:
    """Return the file of each model in the package, by the model's name."""
    return {path.stem: path for path in sorted(WEIGHTS.glob(f"*{SUFFIX}"))}


def default_model() -> tuple[Path, str]:
    """Return the file of the model that is used where none is named, and a line that describes it.

    Raises:
        InputError: If this copy of the package has none.
    """
    path = shipped_models().get(_DEFAULT)
    if path is None:
        raise InputError("no checkpoint: add --ckpt PATH, such as runs/<run>/checkpoints/best.ckpt")
    about = "trained on NYU Depth V2; its metrics hold for similar indoor photographs"
    return path, f"model: {_DEFAULT}, {about}; see {path.with_suffix('.md')}"
