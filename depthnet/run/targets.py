"""Builds what a config names, and only that: an allow list of ``_target_``, and arguments checked by type hints.

Configs are stored beside checkpoints and passed on, so what one names is checked before it is imported. A directory of
configs that Hydra composes from is code, as it may set Hydra's own callbacks and logging: use only your own.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from depthnet.core.types import DepthRange, InputError
from depthnet.run.arguments import accepts, check_arguments, nearest, written
from depthnet.run.overrides import MULTIRUN

GROUPS: dict[str, tuple[str, ...]] = {
    "data": ("depthnet.data.datamodule.DepthDataModule.from_root", "depthnet.data.datamodule.DepthDataModule.rooms"),
    "augment": ("depthnet.data.transforms.Augment",),
    "model": (
        "depthnet.models.basic.BasicNet",
        "depthnet.models.depth_net.DepthNet",
        "depthnet.models.keras.PublishedNet",
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
        "depthnet.training.checkpoint_io.Last",
        "lightning.pytorch.callbacks.",
    ),
    "logger": (
        "depthnet.training.loggers.wandb_logger",
        "depthnet.training.loggers.tensorboard_logger",
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

_REPLACED = {
    f"lightning.pytorch.callbacks.{name}": "it averages constants too, so best.ckpt is not what was validated; write "
    "callbacks=ema (depthnet.training.callbacks.ema.WeightEMA); a run "
    "stored with it is resumed by its whole command line with "
    "resume=auto and resume_allow=[config,code]"
    for name in ("EMAWeightAveraging", "WeightAveraging")
}
"""Classes that would be allowed, and why they are not."""

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
        if why := _REPLACED.get(str(target)):
            raise InputError(f"{place or 'config'}: _target_ {target}: {why}")
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
    for group, allowed in GROUPS.items():
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
            if not _is_one_of(part["_target_"], allowed):
                raise InputError(f"{place}._target_={part['_target_']}: it is no {_one(group)}")
            if bool(part.get("_partial_")) != (group in _LATER):
                raise InputError(f"{place}._partial_={written(part.get('_partial_'))}: leave it as conf/{group} has it")
        given = [key for key in _OF_THE_RUN if group == "trainer" and key in node]
        if given:
            raise InputError(f"trainer.{given[0]}={written(node[given[0]])}: the run sets it itself; leave it out")
        check_arguments(node, group)


def _one(group: str) -> str:
    return "callback" if group == "callbacks" else group


def _without_target(place: str, part: Any) -> str:
    group, _, name = place.partition(".")
    if not name:
        return f"{place}: has no _target_, so nothing is built of it; choose one of conf/{group}: {group}=NAME"
    if not isinstance(part, dict):
        return f"{place}={written(part)}: it is no {_one(group)}; to leave one out write ~{place}"
    whole = _options_with(place, "_target_")
    advice = (
        f"add {group}={whole[0]}, which has it" if whole else f"add +{place}._target_=lightning.pytorch.{group}.NAME"
    )
    return f"{place}: has {', '.join(map(str, part))} but no _target_, so nothing is built of it; {advice}, or ~{place}"


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


class SweepStart(Callback):
    """Hydra's hook at the start of a sweep, named in conf/train.yaml.

    Attributes:
        directory: Of the sweep that this process has started; None where there is none.
    """

    directory: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the sweep's directory, and set Optuna's direction by the watched metric: it would minimize delta1."""
        if "direction" in config.hydra.sweeper:
            config.hydra.sweeper.direction = "${optuna_direction:${watch}}"
        SweepStart.directory = Path(config.hydra.sweep.dir)


def check_command(arguments: Sequence[str], conf: Path) -> None:
    """Check the groups that a command line chooses, before Hydra composes anything.

    Args:
        arguments: The command line, without the program's name.
        conf: The directory of the config's files.

    Raises:
        InputError: For a group that is left out or chosen by what is none of its files, a sweep without ``-m``, or two.
    """
    elsewhere = any(word.startswith(("-cd", "--config", "hydra.searchpath")) for word in arguments)
    words = [word for word in arguments if word[0] == "~" or ("=" in word and word[0] != "-")]
    for override in OverridesParser.create().parse_overrides(words):
        group, line = override.key_or_group, override.input_line
        options = _options(conf, group)
        if group == "sweep" and not MULTIRUN & set(arguments):
            raise InputError(f"{line} is for many runs: add -m")
        if group == "sweep" and override.is_sweep_override():  # Hydra would make jobs of it, one for each
            raise InputError(f"{line}: one at a time; a sweep of your own is a file of conf/sweep")
        several = override.is_choice_sweep()
        if not options or isinstance(override.value(), Glob) or (override.is_sweep_override() and not several):
            continue
        for text in override.sweep_string_iterator() if several else [override.get_value_element_as_str()]:
            name = str(text).strip("'\"").lower()
            unnamed = override.is_delete() or not re.search(r"[^\W\d]", name) or name in ("null", "true", "false")
            if name in options or name[:1] == "[" or (not unnamed and (elsewhere or "/" in name)):
                continue
            advice = f"{group} is one of {', '.join(options)}" if unnamed else nearest(name, options)
            raise InputError(f"{f'{group}={text}' if several else line}: {advice}")


@contextlib.contextmanager
def plain_errors(arguments: Sequence[str], conf: Path) -> Iterator[None]:
    """Turn what Hydra itself raises in a block into one line, with advice.

    Args:
        arguments: The command line, without the program's name.
        conf: The directory of the config's files.

    Raises:
        InputError: For a key that is not there, a plug-in that is not installed, or options that exclude each other.
    """
    try:
        yield
    except MissingConfigException as error:
        name = str(error.missing_cfg_file)
        if not name.startswith("hydra/"):
            raise
        raise InputError(
            f"{name} is not there; pip install 'depthnet[sweep]' brings hydra/sweeper=optuna and "
            "hydra/launcher=joblib, submitit_local and submitit_slurm"
        ) from None
    except ConfigCompositionException as error:
        wrong = re.match(r"Could not override '([^']+)'", str(error))
        there = getattr(error.__cause__, "parent_node", None)
        if wrong is None or not isinstance(there, DictConfig):
            raise
        word = next((word for word in arguments if word.partition("=")[0] == wrong[1]), wrong[1])
        with initialize_config_dir(str(conf), version_base="1.3"):
            advice = _advice(str(cast(Any, error.__cause__).full_key), word, there)
        raise InputError(f"{word}: {advice}") from None
    except (InputError, *USER_ERRORS):
        raise
    except AssertionError:
        word = next((word for word in arguments if "=glob(" in word), None)
        if word is None:
            raise
        raise InputError(f"{word}: Optuna takes no glob; write choice(...) with the names") from None
    except (ValueError, NotImplementedError) as error:  # of Hydra's and Optuna's own checks; a job raises nothing
        raise InputError(" ".join(str(error).split())) from None


def _advice(key: str, word: str, there: DictConfig) -> str:
    """What to do about an override of a key that ``there`` does not have."""
    parent, _, name = key.rpartition(".")
    if "_target_" in there:
        check_targets({"_target_": there["_target_"]}, parent)
        if accepts(there["_target_"], name):
            return f"conf/ does not set it; to add it write +{word}"
    if having := [f"{parent}={option}" for option in _options_with(parent, name)]:
        return f"this {parent} has no {name}; add {' or '.join(having)}, which has"
    known = [str(known) for known in there if known != "hydra" and not str(known).startswith("_")]
    return f"there is no such key; {nearest(name, known)}" if known else "there is no such key"


def _options(conf: Path, group: str) -> list[str]:
    return sorted(path.stem for path in conf.glob(f"{group}/*.yaml"))


def _options_with(parent: str, name: str) -> list[str]:
    """The options of a group with which a node, the group or a part of it, has a key; none outside of Hydra."""
    group, known = parent.partition(".")[0], GlobalHydra.instance()
    options = known.config_loader().get_group_options(group) if group and known.is_initialized() else []
    configs = {option: compose("train", [f"{group}={option}"]) for option in options}
    return [option for option, config in configs.items() if name in (OmegaConf.select(config, parent) or ())]
