"""Composes configs of which nothing can act: stands between Hydra and what a file or a command line tells it.

Hydra 1.3 instantiates callbacks, configures logging by any factory, sets environment variables and imports packages
named in a config, all before the function that it calls. Its loader of configs is the one place that all of them pass,
those of a sweep's jobs too, so the loader is what :func:`install` replaces. A launcher that starts other processes
hands it to them, and the resolvers with it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import hydra._internal.hydra  # private; the version is bounded, and the tests fail where it has moved
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, RangeSweep
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from depthnet.allowed import ENVIRONMENT, check_hydra, check_options, check_targets
from depthnet.types import InputError

__all__ = ["USER_ERRORS", "GuardedLoader", "build", "forbid_environment", "install", "sweep_directory"]

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
                plug-in that is not installed, a sweep without ``-m``, or two of them.
        """
        forbid_environment()
        try:
            config = super().load_configuration(config_name, overrides, run_mode, *args, **options)
        except MissingConfigException as error:
            name = str(error.missing_cfg_file)
            if not name.startswith("hydra/"):
                raise
            raise InputError(
                f"{name} is not there; pip install 'depthnet[sweep]' brings hydra/sweeper=optuna and "
                "hydra/launcher=joblib, submitit_local and submitit_slurm"
            ) from None
        if "direction" in config.hydra.sweeper:  # Optuna would look for the lowest delta1
            config.hydra.sweeper.direction = "${optuna_direction:${watch},${mode}}"
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
        InputError: If it names anything outside the list.
    """
    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    check_targets(plain, place)
    return instantiate(OmegaConf.create({place: plain})[place], _convert_="all", **objects)


def _environment(name: str, *default: Any) -> Any:
    if name not in ENVIRONMENT:
        known = ", ".join(sorted(ENVIRONMENT))
        raise InputError(f"a config may not read the environment variable {name} (only {known}); write its value out")
    if name not in os.environ and not default:
        raise InputError(f"the environment variable {name} is not set")
    return os.environ.get(name, *default)
