"""Composes configs of which nothing can act: stands between Hydra and what a file or a command line tells it.

Hydra 1.3 instantiates callbacks, configures logging by any factory, sets environment variables and imports packages
named in a config, all before the function that it calls. Its loader of configs is the one place that all of them pass,
those of a sweep's jobs too, so the loader is what :func:`install` replaces. A launcher that starts other processes
hands it to them, and the resolvers with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import hydra._internal.hydra  # private; the version is bounded, and the tests fail where it has moved
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, RangeSweep
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from depthnet.allowed import ENVIRONMENT, check_hydra, check_options, check_targets
from depthnet.arguments import accepts, check_arguments, nearest, written
from depthnet.types import DepthRange, InputError

__all__ = ["GROUPS", "USER_ERRORS", "GuardedLoader", "build", "check_groups", "forbid_environment", "install"]
__all__ += ["sweep_directory"]

_CALLBACKS = ("depthnet.callbacks.", "depthnet.dashboard.", "depthnet.ema.", "depthnet.finite.", "depthnet.saving.")
GROUPS: dict[str, tuple[str, ...]] = {
    "data": ("depthnet.data.datamodule.",),
    "augment": ("depthnet.data.transforms.Augment",),
    "model": ("depthnet.models.",),
    "loss": ("depthnet.losses.",),
    "optimizer": ("depthnet.optim.build_optimizer",),
    "scheduler": (
        "depthnet.optim.constant",
        "depthnet.optim.cosine",
        "depthnet.optim.linear",
        "depthnet.optim.one_cycle",
    ),
    "trainer": ("lightning.Trainer",),
    "callbacks": (*_CALLBACKS, "lightning.pytorch.callbacks."),
    "logger": ("depthnet.loggers.", "lightning.pytorch.loggers."),
}
"""What is built of each group of conf/: the beginnings of the names that may stand there as ``_target_``."""

_SEVERAL = ("callbacks", "logger")  # groups of named nodes; logger may also be a single one
_LATER = ("optimizer", "scheduler")  # called once there is a network
_OF_THE_RUN = ("callbacks", "logger", "plugins", "default_root_dir")  # what the run itself gives to the trainer

USER_ERRORS = (HydraException, OmegaConfBaseException)
"""What comes of a config or a command line that is wrong."""


class GuardedLoader(ConfigLoaderImpl):
    """Hydra's loader of configs, which refuses one that Hydra would act on.

    Attributes:
        sweep: The config of the sweep that this process has started; None where there is none.
    """

    sweep: ClassVar[DictConfig | None] = None

    def load_configuration(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, *args: Any, **options: Any
    ) -> DictConfig:
        """Compose a config, that of a run, of a sweep, or of a sweep's job.

        Raises:
            InputError: If its ``hydra`` node holds what a config may not set, it reads the environment, or it names a
                plug-in that is not installed, a key or an option that is not there, a sweep without ``-m``, or two.
        """
        forbid_environment()
        self._check_choices(overrides)
        try:
            config = super().load_configuration(config_name, overrides, run_mode, *args, **options)
        except MissingConfigException as error:
            name = str(error.missing_cfg_file)
            group, _, option = name.rpartition("/")
            if group and not name.startswith("hydra/"):
                raise InputError(f"{group}={option}: {nearest(option, error.options or ())}") from None
            if not group:
                raise
            raise InputError(
                f"{name} is not there; pip install 'depthnet[sweep]' brings hydra/sweeper=optuna and "
                "hydra/launcher=joblib, submitit_local and submitit_slurm"
            ) from None
        except ConfigCompositionException as error:
            if wrong := re.match(r"Could not override '([^']+)'", str(error)):
                raise InputError(self._unknown(config_name, overrides, run_mode, wrong[1])) from None
            raise
        self._check_callbacks(config)
        if "direction" in config.hydra.sweeper:  # Optuna would look for the lowest delta1
            config.hydra.sweeper.direction = "${optuna_direction:${watch}}"
        launcher = OmegaConf.to_container(config.hydra.launcher, resolve=True)
        check_hydra(cast(Any, OmegaConf.to_container(config.hydra)) | {"launcher": launcher})
        if run_mode == config.hydra.mode == RunMode.MULTIRUN:
            for word in overrides:
                if word.startswith("sweep=") and {",", "("} & set(word):  # Hydra would make jobs of it, one for each
                    raise InputError(f"{word}: one at a time; a sweep of your own is a file of conf/sweep")
            GuardedLoader.sweep = config
            if "direction" in config.hydra.sweeper:
                self._try_choices(config, overrides)
        elif config.hydra.mode == RunMode.RUN and (name := config.hydra.runtime.choices.get("sweep")):
            raise InputError(f"sweep={name} is for many runs: add -m")
        return config

    def _check_choices(self, overrides: list[str]) -> None:
        """Refuse a group of conf/ that is chosen by null, a number or a boolean, or left out."""
        for override in OverridesParser.create().parse_overrides(overrides):
            group, value = override.key_or_group, override.value()
            if "." in group or override.is_sweep_override():
                continue
            known = self.repository.get_group_options(group)
            if known and (override.is_delete() or not isinstance(value, str | list)):
                raise InputError(f"{override.input_line}: {group} is one of {', '.join(known)}")

    def _check_callbacks(self, config: DictConfig) -> None:
        """Refuse a callback of which a file sets values, but whose own file was not chosen."""
        entries = config.get("callbacks")
        for name, part in entries.items() if OmegaConf.is_dict(entries) else ():
            if OmegaConf.is_dict(part) and "_target_" not in part:
                options = self.repository.get_group_options("callbacks")
                files = [self.repository.load_config(f"callbacks/{option}") for option in options]
                whole = [
                    option
                    for option, file in zip(options, files, strict=True)
                    if file and OmegaConf.select(cast(DictConfig, file.config), f"{name}._target_")
                ]
                raise InputError(_without_target(f"callbacks.{name}", part, whole))

    def _unknown(self, config_name: str | None, overrides: list[str], run_mode: RunMode, key: str) -> str:
        """What to do about an override whose key the config does not have."""
        word = next(word for word in overrides if word.split("=")[0] == key)
        others = [other for other in overrides if other.split("=")[0] != key]
        parent, _, name = key.rpartition(".")
        try:
            config = ConfigLoaderImpl.load_configuration(self, config_name, others, run_mode)
            there: Any = OmegaConf.select(config, parent) if parent else config
        except (HydraException, OmegaConfBaseException):
            there = None  # another word is wrong, too
        if not OmegaConf.is_dict(there):
            return f"{word}: there is no such key"
        if "_target_" in there:
            check_targets({"_target_": there["_target_"]}, parent)
            if accepts(there["_target_"], name):
                return f"{word}: conf/ does not set it; to add it write +{word}"
        options = self.repository.get_group_options(parent) if parent else []
        having = [f"{parent}={option}" for option in options if self._has(parent, option, name)]
        if having:
            return f"{word}: this {parent} has no {name}; add {' or '.join(having)}, which has"
        known = [str(known) for known in there if known != "hydra" and not str(known).startswith("_")]
        return f"{word}: there is no such key; {nearest(name, known)}"

    def _has(self, group: str, option: str, name: str) -> bool:
        """Whether a file of conf/, or one that it builds on, sets a key."""
        file = self.repository.load_config(f"{group}/{option}")
        if file is None:
            return False
        bases = [getattr(entry, "path", "_self_") for entry in file.defaults_list or ()]
        return name in cast(DictConfig, file.config) or any(
            self._has(group, base, name) for base in bases if base != "_self_"
        )

    def _try_choices(self, config: DictConfig, overrides: list[str]) -> None:
        """Compose a job with each value that Optuna may choose, the other parameters at their first.

        Hydra's own sweeper composes all jobs before the first one runs; Optuna would come upon a mistyped value when
        it draws it.
        """
        params = OmegaConf.to_container(config.hydra.sweeper.params or OmegaConf.create(), resolve=True)
        words = [f"{key}={value}" for key, value in cast(dict[str, Any], params).items()] + overrides
        chosen: dict[str, list[str]] = {}
        for override in OverridesParser.create().parse_overrides(words):
            if override.is_hydra_override():
                continue
            if isinstance(override.value(), Glob):
                raise InputError(f"{override.input_line}: Optuna takes no glob; write choice(...) with the names")
            if override.is_choice_sweep():
                values = list(override.sweep_string_iterator())
            elif override.is_interval_sweep() or override.is_range_sweep():
                values = [str(cast(IntervalSweep | RangeSweep, override.value()).start)]
            else:
                values = [override.get_value_element_as_str()]
            chosen[override.get_key_element()] = values
        first = {key: values[0] for key, values in chosen.items()}
        others = [first | {key: value} for key, values in chosen.items() for value in values[1:]]
        for job in [first, *others]:
            self.load_sweep_config(config, [f"{key}={value}" for key, value in job.items()])

    def _process_config_searchpath(self, *args: Any) -> None:
        """Leave the search path as it is: to name a package there imports it."""


def install(arguments: Sequence[str]) -> None:
    """Guard all that Hydra does in this process.

    Args:
        arguments: The command line, without the program's name.

    Raises:
        InputError: If one of its options loads code.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands errors on instead of printing them
    check_options(arguments)
    GuardedLoader.sweep = None
    hydra._internal.hydra.ConfigLoaderImpl = GuardedLoader  # type: ignore[attr-defined]
    forbid_environment()


def sweep_directory() -> Path | None:
    """Return the directory of the sweep that this process has started; None where there is none."""
    return None if GuardedLoader.sweep is None else Path(GuardedLoader.sweep.hydra.sweep.dir)


def forbid_environment() -> None:
    """Let ``${oc.env:NAME}`` read nothing but what :data:`depthnet.allowed.ENVIRONMENT` names."""
    OmegaConf.register_new_resolver("oc.env", _environment, replace=True)


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
    return instantiate(OmegaConf.create({place: plain})[place], _convert_="all", **objects)


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
    for group, beginnings in GROUPS.items():
        if not isinstance(plain.get(group), dict):
            raise InputError(f"{group}={written(plain.get(group))}: choose one of conf/{group}, such as {group}=NAME")
        node = dict(plain[group])
        check_targets(node, group)
        several = group in _SEVERAL and "_target_" not in node
        if group == "data" and node.get("augment") == plain.get("augment"):
            node.pop("augment", None)  # it has a name of its own
        for key in decided:
            if key.startswith(f"{group}.") and node.get(key.partition(".")[2]) == "auto":
                node.pop(key.partition(".")[2])
        for place, part in ((f"{group}.{key}", value) for key, value in node.items()) if several else ((group, node),):
            if several and part is None:  # left out
                continue
            if not isinstance(part, dict) or "_target_" not in part:
                raise InputError(_without_target(place, part))
            if not part["_target_"].startswith(beginnings):
                raise InputError(f"{place}._target_={part['_target_']}: it is no {_one(group)}")
            if bool(part.get("_partial_")) != (group in _LATER):
                raise InputError(f"{place}._partial_={written(part.get('_partial_'))}: leave it as conf/{group} has it")
        given = [key for key in _OF_THE_RUN if group == "trainer" and key in node]
        if given:
            raise InputError(f"trainer.{given[0]}={written(node[given[0]])}: the run sets it itself; leave it out")
        check_arguments(node, group)


def _one(group: str) -> str:
    return "callback" if group == "callbacks" else group


def _without_target(place: str, part: Any, whole: Sequence[str] = ()) -> str:
    group, _, name = place.partition(".")
    if not name:
        return f"{place}: has no _target_, so nothing is built of it; choose one of conf/{group}: {group}=NAME"
    if not hasattr(part, "keys"):
        return f"{place}={written(part)}: it is no {_one(group)}; to leave one out write ~{place}"
    advice = (
        f"add {group}={whole[0]}, which has it" if whole else f"add +{place}._target_=lightning.pytorch.{group}.NAME"
    )
    return f"{place}: has {', '.join(map(str, part))} but no _target_, so nothing is built of it; {advice}, or ~{place}"


def _environment(name: str, *default: Any) -> Any:
    if name not in ENVIRONMENT:
        known = ", ".join(sorted(ENVIRONMENT))
        raise InputError(f"a config may not read the environment variable {name} (only {known}); write its value out")
    if name not in os.environ and not default:
        raise InputError(f"the environment variable {name} is not set")
    return os.environ.get(name, *default)
