"""Words of a command line that a mode would ignore are refused, each by its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from depthnet.core.types import InputError

MULTIRUN = frozenset({"-m", "--multirun"})
"""The option that makes a command line a sweep."""

_LEARNING = (
    "loss",
    "optimizer",
    "scheduler",
    "augment",
    "callbacks",
    "data.augment",
    "data.batch_size",
    "data.extra_rooms",
    "data.extra_rooms_share",
    "callbacks.average",
    "callbacks.best",
    "callbacks.dashboard",
    "callbacks.early_stopping",
    "callbacks.finite",
    "callbacks.history",
    "callbacks.last",
)
_FITTING = (
    "max_epochs",
    "min_epochs",
    "max_steps",
    "min_steps",
    "max_time",
    "limit_train_batches",
    "limit_val_batches",
    "overfit_batches",
    "val_check_interval",
    "check_val_every_n_epoch",
    "num_sanity_val_steps",
    "log_every_n_steps",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "reload_dataloaders_every_n_epochs",
)
"""Arguments of Lightning's Trainer that concern a fit alone."""

_TRAINS_NOTHING = _LEARNING + tuple(f"trainer.{name}" for name in _FITTING)


def check_words(overrides: Sequence[str], config: Mapping[str, Any], sweeps: bool = False) -> None:
    """Check that a run uses every word of its command line.

    Args:
        overrides: The words, such as ``["model=basic", "trainer.max_steps=5", "~callbacks.last"]``.
        config: The config composed of them; ``mode``, ``split`` and ``resume`` are read.
        sweeps: Whether the run is a job of a sweep.

    Raises:
        InputError: For the first word that would be ignored.

    Example:
        >>> check_words(["loss=l1"], {"mode": "test", "split": "val", "resume": None})
        Traceback (most recent call last):
        depthnet.core.types.InputError: loss=l1: mode=test trains nothing; leave it out
    """
    mode, split = config["mode"], config["split"]
    if mode != "test" and split != "val":
        advice = f"to evaluate a checkpoint on {split} add mode=test ckpt=PATH"
        raise InputError(f"split={split}: a fit is evaluated on val; {advice}")
    ignored = {
        "directory": "a run's directory is named by hydra.run.dir=DIR",
        "model.image_size": "the size of the images is data.image_size",
    }
    if not config["resume"]:
        ignored["resume_allow"] = "is for a run that is resumed, resume=DIR or resume=auto"
    if mode == "test":
        ignored |= {"model": "mode=test evaluates the checkpoint's own network"}
        ignored |= dict.fromkeys(_TRAINS_NOTHING, "mode=test trains nothing")
        ignored |= {} if sweeps else {"watch": "mode=test chooses nothing"}
    for word in overrides:
        key = word.lstrip("+~").partition("=")[0].partition("@")[0]
        for name, why in ignored.items():
            if key == name or (key.startswith(f"{name}.") and name != "callbacks"):  # some of these serve a test
                raise InputError(f"{word}: {why}; leave it out")


def named_keys(words: Iterable[str]) -> set[str]:
    """Return the keys that words of a command line set, to two levels.

    Example:
        >>> sorted(named_keys(["model=tiny", "+model.head=log", "data.depth_range.min=0.1"]))
        ['data.depth_range', 'model', 'model.head']
    """
    return {".".join(word.lstrip("+~").partition("=")[0].split(".")[:2]) for word in words}
