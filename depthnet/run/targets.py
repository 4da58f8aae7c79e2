"""Builds what a config names, and only that: an allow list of ``_target_``, and arguments checked by type hints.

Configs are stored beside checkpoints and passed on, so what one names is checked before it is imported. A directory of
configs that Hydra composes from is code, as it may set Hydra's own callbacks and logging: use only your own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from depthnet.core.types import DepthRange, InputError, reason_of
from depthnet.run.arguments import check_arguments, written

GROUPS: dict[str, tuple[str, ...]] = {
    "data": ("depthnet.data.datamodule.DepthDataModule.from_root", "depthnet.data.datamodule.DepthDataModule.rooms"),
    "augment": ("depthnet.data.transforms.Augment",),
    "model": (
        "depthnet.models.basic.BasicNet",
        "depthnet.models.depth_net.DepthNet",
        "depthnet.models.keras.KerasNet",
    ),
    "loss": ("depthnet.training.losses.DepthLoss",),
    "optimizer": ("depthnet.training.optimizers.build_optimizer",),
    "scheduler": (
        "depthnet.training.schedules.constant",
        "depthnet.training.schedules.cosine",
        "depthnet.training.schedules.linear",
        "depthnet.training.schedules.one_cycle",
    ),
    "trainer": ("lightning.Trainer",),
    "callbacks": (
        "depthnet.training.callbacks.best_checkpoint.BestCheckpoint",
        "depthnet.training.callbacks.history.History",
        "depthnet.training.callbacks.progress.Progress",
        "depthnet.training.callbacks.dashboard.Dashboard",
        "depthnet.training.callbacks.ema.WeightEMA",
        "depthnet.training.callbacks.finite.FiniteSteps",
        "depthnet.training.callbacks.resume_checkpoint.ResumeCheckpoint",
        "lightning.pytorch.callbacks.",
    ),
    "logger": (
        "depthnet.training.loggers.wandb_logger",
        "lightning.pytorch.loggers.CSVLogger",
        "lightning.pytorch.loggers.TensorBoardLogger",  # the others send to an address that a config could choose
    ),
}
"""What may stand as ``_target_`` of each group of conf/, in full: a module of ours also holds what it imports, such as
a writer of files. A package that ends with a dot allows all its classes, but not its functions."""

ALLOWED = (
    *(name for names in GROUPS.values() for name in names),
    "depthnet.data.transforms.CutDepth",
    "depthnet.data.transforms.DepthZoom",
    "albumentations.",
)
"""What may stand as ``_target_`` anywhere."""

_AVERAGES = ("lightning.pytorch.callbacks.EMAWeightAveraging", "lightning.pytorch.callbacks.WeightAveraging")
"""They would be allowed, but average constants too."""

_ENVIRONMENT = ("NYU_ROOT",)  # what a config may read: it is stored in files that are passed on, and so would a secret
_CLASS = re.compile(r"[A-Z]\w*", re.ASCII)
_SEVERAL = ("callbacks", "logger")  # groups of named nodes; logger may also be a single one
_LATER = ("optimizer", "scheduler")  # called once there is a network
_OF_THE_RUN = ("callbacks", "logger", "plugins", "default_root_dir")  # what the run itself gives to the trainer

USER_ERRORS = (HydraException, OmegaConfBaseException)
"""What comes of a config or a command line that is wrong."""


def check_targets(config: Any, place: str = "") -> None:
    """Refuse a config that names anything outside the allow list, wherever it stands in it.

    Args:
        config: Mappings, sequences and plain values, resolved, just as they will be built.
        place: Where in the config this is, for the message.

    Raises:
        InputError: For the first ``_target_`` that is not allowed, or text that would be resolved once more.

    Example:
        >>> check_targets({"loss": {"_target_": "depthnet.training.losses.DepthLoss"}})
    """
    if isinstance(config, Mapping):
        target = config.get("_target_", ALLOWED[0])
        if target in _AVERAGES:
            raise InputError(
                f"{place or 'config'}: _target_ {target}: it averages constants too, so best.ckpt is not what was "
                "validated; write callbacks=ema (depthnet.training.callbacks.ema.WeightEMA)"
            )
        if not _is_one_of(target, ALLOWED):
            raise InputError(
                f"{place or 'config'}: _target_ {target} is not on the list of what a config may build; the list "
                "stands in depthnet/run/targets.py"
            )
        for key, value in config.items():
            check_targets(value, f"{place}.{key}" if place else str(key))
    elif isinstance(config, Sequence) and not isinstance(config, str | bytes):
        for number, value in enumerate(config):
            check_targets(value, f"{place}[{number}]")
    elif isinstance(config, str) and "${" in config:
        raise InputError(f"{place}: {config!r} would be resolved a second time; leave out its ${{")


def _is_one_of(target: Any, names: Sequence[str]) -> bool:
    if not isinstance(target, str):
        return False
    package, _, name = target.rpartition(".")
    return bool(name) and (target in names or (f"{package}." in names and bool(_CLASS.fullmatch(name))))


def build(config: Any, place: str, **objects: Any) -> Any:
    """Build what a config names, if all of it is on the allow list.

    What is checked and what is built is one and the same plain copy: a config itself could resolve to something else
    the second time.

    Args:
        config: A node of a config, or plain data.
        place: Where it stands, for the message.
        objects: Further arguments, built already.

    Raises:
        InputError: If it names anything outside the list, or gives a constructor what its type hints do not allow.
    """
    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    check_targets(plain, place)
    check_arguments(plain, place, objects)
    try:
        return instantiate(OmegaConf.create({place: plain})[place], _convert_="all", **objects)
    except InstantiationException as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            missing = reason_of(error.__cause__)
            raise InputError(
                f"{place}: needs a package that is not installed ({missing}); see pyproject.toml"
            ) from None
        raise


def check_groups(config: DictConfig, decided: Sequence[str] = ()) -> None:
    """Check all that a run builds, before it writes or builds anything.

    Args:
        config: The run's.
        decided: Keys, such as ``data.batch_size``, that may still be ``auto``.

    Raises:
        InputError: As :func:`build`, or if a group is missing, builds something of another kind, or sets what the run
            sets itself.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    if isinstance(plain.get("data"), dict) and plain["data"].get("depth_range", "") is None:
        DepthRange.of(None)  # refuses it first, as model and loss take it from there
    for group, allowed in GROUPS.items():
        node = plain.get(group)
        if not isinstance(node, dict):
            raise InputError(f"{group}={written(node)}: choose one of conf/{group}, such as {group}=NAME")
        node = {key: value for key, value in node.items() if value != "auto" or f"{group}.{key}" not in decided}
        check_targets(node, group)
        if group == "data" and node.get("augment") == plain.get("augment"):
            node.pop("augment", None)  # it has a name of its own
        several = group in _SEVERAL and "_target_" not in node
        parts = {f"{group}.{key}": part for key, part in node.items() if part is not None} if several else {group: node}
        for place, part in parts.items():
            if not isinstance(part, dict) or "_target_" not in part:
                raise InputError(
                    f"{place}={written(part)}: has no _target_, so nothing is built of it; choose one of conf/{group}, "
                    f"such as {group}=NAME, or leave it out: ~{place}"
                )
            if not _is_one_of(part["_target_"], allowed):
                raise InputError(
                    f"{place}._target_={part['_target_']}: it is no {'callback' if group == 'callbacks' else group}"
                )
            if bool(part.get("_partial_")) != (group in _LATER):
                raise InputError(f"{place}._partial_={written(part.get('_partial_'))}: leave it as conf/{group} has it")
        for key in _OF_THE_RUN if group == "trainer" else ():
            if key in node:
                raise InputError(f"trainer.{key}={written(node[key])}: the run sets it itself; leave it out")
        check_arguments(node, group)


def restrict_environment() -> None:
    """Let ``${oc.env:NAME}`` read ``NYU_ROOT`` and nothing else."""
    OmegaConf.register_new_resolver("oc.env", _environment, replace=True)


def _environment(name: str, *default: Any) -> Any:
    if name not in _ENVIRONMENT:
        known = ", ".join(_ENVIRONMENT)
        raise InputError(f"a config may not read the environment variable {name} (only {known}); write its value out")
    if name not in os.environ and not default:
        raise InputError(f"the environment variable {name} is not set")
    return os.environ.get(name, *default)
