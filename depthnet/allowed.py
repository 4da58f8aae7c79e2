"""What a config may name to be built: an allow list in code, because a config may come from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from depthnet.types import InputError

__all__ = ["ALLOWED", "check_targets"]

ALLOWED = (
    "albumentations.",
    "depthnet.callbacks.",
    "depthnet.data.datamodule.DepthDataModule.",
    "depthnet.data.transforms.",
    "depthnet.losses.DepthLoss",
    "depthnet.models.basic.BasicNet",
    "depthnet.models.depth_net.DepthNet",
    "depthnet.optim.",
    "depthnet.types.",
    "lightning.Trainer",
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
)
"""Full names, or beginnings of names that end in a dot; what follows such a dot is one name, without a further dot."""


def check_targets(config: Any, place: str = "") -> None:
    """Refuse a config that names anything outside the allow list, wherever it stands in it.

    Args:
        config: Mappings, sequences and plain values.
        place: Where in the config this is, for the message.

    Raises:
        InputError: For the first ``_target_`` that is not allowed.

    Example:
        >>> check_targets({"loss": {"_target_": "depthnet.losses.DepthLoss"}})
    """
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == "_target_" and not _allowed(value):
                raise InputError(
                    f"{place or 'config'}: _target_ {value} is not on the list of what a config may build; the list "
                    "stands in depthnet/allowed.py"
                )
            check_targets(value, f"{place}.{key}" if place else str(key))
    elif isinstance(config, Sequence) and not isinstance(config, str | bytes):
        for number, value in enumerate(config):
            check_targets(value, f"{place}[{number}]")


def _allowed(target: Any) -> bool:
    if not isinstance(target, str):
        return False
    for entry in ALLOWED:
        rest = target.removeprefix(entry) if target.startswith(entry) else None
        if rest == "" or (entry.endswith(".") and rest and rest.isidentifier()):
            return True
    return False
