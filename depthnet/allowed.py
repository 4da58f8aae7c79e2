"""What a config may name to be built: an allow list in code, because a config may come from anywhere.

Hydra acts on its own node of a config (callbacks, logging, environment, plug-ins) before any code of ours runs, so
:func:`check_hydra` is asked while the config is composed; see :mod:`depthnet.guard`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from depthnet.types import InputError

__all__ = [
    "ALLOWED",
    "ALLOWED_CLASSES",
    "ENVIRONMENT",
    "MULTIRUN",
    "OPTIONS",
    "PLUGINS",
    "check_hydra",
    "check_options",
    "check_targets",
]

ALLOWED = frozenset(
    {
        "depthnet.callbacks.Checkpoint",
        "depthnet.callbacks.History",
        "depthnet.callbacks.Progress",
        "depthnet.dashboard.Dashboard",
        "depthnet.data.datamodule.DepthDataModule.from_root",
        "depthnet.data.datamodule.DepthDataModule.rooms",
        "depthnet.data.transforms.Augment",
        "depthnet.data.transforms.CutDepth",
        "depthnet.data.transforms.DepthZoom",
        "depthnet.ema.WeightEMA",
        "depthnet.finite.FiniteSteps",
        "depthnet.loggers.tensorboard_logger",
        "depthnet.loggers.wandb_logger",
        "depthnet.losses.DepthLoss",
        "depthnet.models.basic.BasicNet",
        "depthnet.models.depth_net.DepthNet",
        "depthnet.models.published.PublishedNet",
        "depthnet.optim.build_optimizer",
        "depthnet.optim.constant",
        "depthnet.optim.cosine",
        "depthnet.optim.linear",
        "depthnet.optim.one_cycle",
        "depthnet.saving.Last",
        "lightning.Trainer",
        "lightning.pytorch.loggers.CSVLogger",
        "lightning.pytorch.loggers.TensorBoardLogger",  # the others send to an address that a config could choose
    }
)
"""Each name in full: a module of ours also holds what it imports, such as a writer of files."""

ALLOWED_CLASSES = ("albumentations.", "lightning.pytorch.callbacks.")
"""Packages whose classes may all be named, by one capitalised name; their functions read and write files."""

_REPLACED = {
    f"lightning.pytorch.callbacks.{name}": "it averages constants too, so best.ckpt is not what was validated; write "
    "callbacks=ema (depthnet.ema.WeightEMA); a run stored with it is resumed by its whole command line with "
    "resume=auto and resume_allow=[config,code]"
    for name in ("EMAWeightAveraging", "WeightAveraging")
}
"""Classes that would be allowed, and why not."""

PLUGINS = frozenset(
    {
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
        "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
        "optuna.samplers.CmaEsSampler",
        "optuna.samplers.GridSampler",
        "optuna.samplers.MOTPESampler",
        "optuna.samplers.NSGAIISampler",
        "optuna.samplers.RandomSampler",
        "optuna.samplers.TPESampler",
    }
)
"""Launchers, sweepers and samplers, each in full: their modules import ``os`` and ``pickle``."""

_LAUNCHER_KEYS = {
    "_target_", "n_jobs", "backend", "prefer", "require", "verbose", "timeout", "pre_dispatch", "batch_size",
    "temp_folder", "max_nbytes", "mmap_mode", "submitit_folder", "name", "timeout_min", "nodes", "tasks_per_node",
    "cpus_per_task", "gpus_per_node", "mem_gb", "stderr_to_stdout", "partition", "qos", "account", "comment",
    "constraint", "exclude", "gres", "cpus_per_gpu", "gpus_per_task", "mem_per_gpu", "mem_per_cpu", "signal_delay_s",
    "max_num_timeout", "array_parallelism",
}  # fmt: skip
"""What may be set of a launcher; submitit's others become lines of a batch script."""

_SWEEPER_NEVER = ("storage", "custom_search_space")
"""Of Optuna's sweeper: a database of which pickles are read, and a function to call."""

ENVIRONMENT = frozenset({"NYU_ROOT"})
"""What a config may read of the environment: it ends in files that are passed on, and so would a secret."""

MULTIRUN = frozenset({"-m", "--multirun"})
"""The option that makes a command line a sweep."""

OPTIONS = (
    frozenset(("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "--resolve", "-p", "--package"))
    | {"-cd", "--config-dir"}  # a folder of further files: they are checked as ours are
    | MULTIRUN
)
"""Options of Hydra that may be given. Not among them: what loads a pickle (``--experimental-rerun``) or imports a
package (``--config-path``); and none may be shortened."""

_SHOWN = frozenset({"-c", "--cfg"})
_CLASS = re.compile(r"[A-Z]\w*", re.ASCII)
_LOG_CLASSES = ("logging.StreamHandler", "logging.FileHandler")
_LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"


def check_targets(config: Any, place: str = "") -> None:
    """Refuse a config that names anything outside the allow list, wherever it stands in it.

    Args:
        config: Mappings, sequences and plain values, resolved, just as they will be built.
        place: Where in the config this is, for the message.

    Raises:
        InputError: For the first ``_target_`` that is not allowed, or text that would be resolved once more.

    Example:
        >>> check_targets({"loss": {"_target_": "depthnet.losses.DepthLoss"}})
    """
    for where, key, value in _leaves(config, place):
        if key == "_target_" and isinstance(value, str) and value in _REPLACED:
            raise InputError(f"{where or 'config'}: _target_ {value}: {_REPLACED[value]}")
        if key == "_target_" and not _allowed(value):
            raise InputError(
                f"{where or 'config'}: _target_ {value} is not on the list of what a config may build; the list "
                "stands in depthnet/allowed.py"
            )
        if isinstance(value, str) and "${" in value:
            raise InputError(f"{where}: {value!r} would be resolved a second time; leave out its ${{")


def check_hydra(node: Any) -> None:
    """Refuse settings of Hydra itself that run something: all but directories, names, a sweep and its launcher.

    Args:
        node: A composed config's ``hydra``, its ``launcher`` resolved and the rest not.

    Raises:
        InputError: For the first that is not allowed.
    """
    job = node.get("job") or {}
    for place, setting in (
        ("searchpath", node.get("searchpath")),
        ("callbacks", node.get("callbacks")),
        ("job.env_set", job.get("env_set")),
        ("job.env_copy", job.get("env_copy")),
    ):
        if setting:
            raise InputError(f"hydra.{place}: a config may not set it; leave it out")
    for part in ("launcher", "sweeper"):
        for where, key, value in _leaves(node.get(part), f"hydra.{part}"):
            if key == "_target_" and not (isinstance(value, str) and value in PLUGINS):
                raise InputError(f"{where}: _target_ {value} is no launcher, sweeper or sampler")
            never = key not in _LAUNCHER_KEYS if part == "launcher" else key in _SWEEPER_NEVER or "._args_" in where
            if never and value is not None:
                raise InputError(f"{where}: a config may not set it; leave it out")
            if part == "launcher" and isinstance(value, str) and not value.isprintable():
                raise InputError(f"{where}: {value!r} is not of one line, and could become one of a batch script")
    for part in ("hydra_logging", "job_logging"):
        for where, key, value in _leaves(node.get(part), f"hydra.{part}"):
            wrong = (
                key == "()"
                or (key == "class" and value not in _LOG_CLASSES)
                or (key == "filename" and value != _LOG_FILE)
                or (isinstance(value, str) and "://" in value and value not in ("ext://sys.stdout", "ext://sys.stderr"))
                or (isinstance(value, str) and "${" in value and value != _LOG_FILE)
            )
            if wrong:
                raise InputError(f"{where}: a config may not set {key} to {value!r}; leave it out")


def check_options(arguments: Sequence[str]) -> None:
    """Refuse options of Hydra's command line that load code.

    Raises:
        InputError: For one that is not in :data:`OPTIONS`, lacks its value, or does not go with another.
    """
    given = {word.partition("=")[0] for word in arguments if word.startswith("-")}
    values = dict(itertools.pairwise([*arguments, ""]))
    values |= {word.partition("=")[0]: word.partition("=")[2] for word in arguments if "=" in word}
    if unknown := sorted(given - OPTIONS):
        raise InputError(f"{unknown[0]}: no option of train.py; -m makes a sweep, --cfg job shows the config")
    if given & MULTIRUN and given & _SHOWN:
        raise InputError("-m and --cfg exclude each other: show the config of one job, without lists of values")
    for option in sorted(given & _SHOWN):
        if values[option] not in ("job", "hydra", "all"):
            raise InputError(f"{option} {values[option]}".rstrip() + ": shows job, hydra or all")
    for option in sorted(given & {"-p", "--package", "--resolve"}):
        if not given & (_SHOWN | {"-h", "--help"}):
            raise InputError(f"{option}: goes with --cfg job")
    for option in sorted(given & {"-p", "--package", "-cd", "--config-dir"}):
        if not values[option] or values[option].startswith("-"):
            raise InputError(f"{option}: needs a value")


def _leaves(config: Any, place: str, key: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """Yield (where it stands, last key, value) of each mapping's entries and each plain value, however deep.

    A mapping or list under the key ``_target_`` comes too, as a value; ``where`` is then that of the mapping.
    """
    if isinstance(config, Mapping):
        for name, value in config.items():
            if name == "_target_":
                yield place, name, value
            else:
                yield from _leaves(value, f"{place}.{name}" if place else str(name), name)
    elif isinstance(config, Sequence) and not isinstance(config, str | bytes):
        for number, value in enumerate(config):
            yield from _leaves(value, f"{place}[{number}]", key)
    else:
        yield place, key, config


def _allowed(target: Any) -> bool:
    if not isinstance(target, str):
        return False
    package, _, name = target.rpartition(".")
    return target in ALLOWED or (f"{package}." in ALLOWED_CLASSES and bool(_CLASS.fullmatch(name)))
