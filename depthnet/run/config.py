"""A run's config: the keys of train.yaml, the functions that conf/ calls, and the file that keeps it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import DictConfig, OmegaConf

from depthnet.core.atomic_io import write_text
from depthnet.core.device import auto_precision, find_gpu
from depthnet.core.types import HIGHER_IS_BETTER, InputError
from depthnet.run.arguments import check_value, nearest, written
from depthnet.run.files import CONFIG, METRICS, read_config
from depthnet.run.naming import job_name
from depthnet.run.paths import run_directory

_PRECISIONS = ("None", "32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16", "64-true", "64")

CHOICES: dict[str, Any] = {
    "mode": Literal["fit", "test"],
    "seed": int,
    "ckpt": str | None,
    "resume": str | None,
    "resume_allow": list[Literal["data", "code", "config"]],
    "split": Literal["val", "test", "keras_frames"],
    "protocols": str | list[str],
    "watch": str,
    "report": bool,
    "compile": bool,
    "directory": str,
}
"""The keys of train.yaml that are no group, and what each may be."""


def default_data() -> str:
    """Return the data of a run that names none: nyu where NYU_ROOT is set or data/nyu exists, else rooms."""
    return "nyu" if os.environ.get("NYU_ROOT") or Path("data/nyu").is_dir() else "rooms"


def gpu_or_cpu(with_gpu: Any, without: Any) -> Any:
    """Return the first value where there is a GPU that torch can use, else the second."""
    return without if find_gpu().reason else with_gpu


def best_direction(watch: str) -> str:
    """Return "max" or "min", whichever is better for a watched key such as ``val/delta1``.

    Raises:
        InputError: If it is not ``val/`` and a metric's name.
    """
    split, _, metric = str(watch).partition("/")
    if split == "val" and metric in HIGHER_IS_BETTER:
        return "max" if HIGHER_IS_BETTER[metric] else "min"
    raise InputError(f"watch={watch}: it is one of {', '.join(f'val/{name}' for name in HIGHER_IS_BETTER)}")


def worst_figure(watch: str) -> float:
    """Return a finite figure that is worse than any run's, for a watched key.

    Example:
        >>> worst_figure("val/delta1")
        0.0
    """
    return 0.0 if HIGHER_IS_BETTER.get(str(watch).partition("/")[2], True) else sys.float_info.max


def register_resolvers() -> None:
    """Make the functions that conf/ calls by name known to OmegaConf."""
    resolvers: dict[str, Callable[..., Any]] = {
        "auto_precision": auto_precision,
        "default_data": default_data,
        "direction": best_direction,
        "gpu_or_cpu": gpu_or_cpu,
        "job_name": job_name,
        "optuna_direction": lambda watch: f"{best_direction(watch)}imize",
        "run_dir": run_directory,
    }
    for name, resolver in resolvers.items():
        # what is cached goes by the interpolation's text, which is the same for each job of a sweep
        OmegaConf.register_new_resolver(name, resolver, use_cache=name != "job_name", replace=True)


def check_choices(config: Mapping[str, Any]) -> None:
    """Check a run's keys: those that train.yaml has beside its groups by their values, all by their names.

    Raises:
        InputError: For the first key that is not known, or impossible value.
    """
    from depthnet.run.targets import GROUPS  # and with it Hydra

    for key in config:
        if key in CHOICES:
            value = config[key]
            check_value(CHOICES[key], OmegaConf.to_container(value) if OmegaConf.is_config(value) else value, key)
        elif key not in GROUPS:
            raise InputError(f"{key}={written(config[key])}: there is no such key; {nearest(key, CHOICES)}")
    if not 0 <= config["seed"] < 2**32:
        raise InputError(f"seed={config['seed']}: it is a whole number from 0 to {2**32 - 1}")
    if config["mode"] == "test" and config["ckpt"] is None:
        raise InputError("mode=test evaluates a checkpoint: name it with ckpt=PATH")
    if config["mode"] == "test" and config["resume"] not in (None, "auto"):
        raise InputError("mode=test and resume= exclude each other: give ckpt=DIR/checkpoints/best.ckpt")
    best_direction(config["watch"])
    precision = (config.get("trainer") or {}).get("precision")
    if str(precision) not in _PRECISIONS:
        raise InputError(
            f"trainer.precision={precision}: it is 32-true, bf16-mixed, 16-mixed or 64-true; instead of bf16-true or "
            "16-true, which round the weights and the ground truth too, take bf16-mixed"
        )


def stored_config(directory: Path) -> DictConfig:
    """Return the config that a run's directory holds, for this place of it.

    Raises:
        InputError: If it cannot be read as a run's config.
    """
    stored = OmegaConf.create(read_config(directory))
    stored.directory = str(directory)
    return stored


def plain_config(cfg: DictConfig, directory: Path) -> dict[str, Any]:
    """Return a config as plain values: resolved, but free of the directory, so that a run can be moved."""
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    plain |= {"resume": None, "resume_allow": []}  # of one start, not of the run
    return {key: _movable(value, str(directory)) for key, value in plain.items()}


def _movable(value: Any, place: str) -> Any:
    if isinstance(value, dict):
        return {key: _movable(item, place) for key, item in value.items()}
    if isinstance(value, list):
        return [_movable(item, place) for item in value]
    if isinstance(value, str) and (value == place or value.startswith(f"{place}{os.sep}")):
        return "${directory}" + value[len(place) :]
    return value


def store_config(directory: Path, text: str) -> None:
    """Write ``config.yaml`` into a run's directory; where it is changed, it and its figures stay under other names."""
    path = directory / CONFIG
    former = path.read_text(encoding="utf-8") if path.exists() else None
    if former not in (None, text):
        write_text(directory / "config.previous.yaml", str(former))
        if (directory / METRICS).exists():  # the run has to end anew
            (directory / METRICS).replace(directory / "metrics.previous.json")
    if former != text:
        write_text(path, text)
