"""The command line of train.py: what Hydra would refuse with a traceback, or take for something else, is one line."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from depthnet.core.types import InputError
from depthnet.run.arguments import accepts, nearest
from depthnet.run.overrides import MULTIRUN
from depthnet.run.targets import USER_ERRORS, check_targets


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
    """Check what a command line sweeps over, before any of its jobs runs.

    Args:
        arguments: The command line, without the program's name.
        conf: The directory of the config's files.

    Raises:
        InputError: For a word that is no KEY=VALUE, a sweep without ``-m``, two of them, a direction that ``watch``
            decides, or a group chosen by what is none of its files.
    """
    for before, word in itertools.pairwise(["", *arguments]):
        if word[:1] not in ("", "-", "~") and "=" not in word and (before[:1] != "-" or before in MULTIRUN):
            meant = [f"; did you mean {path.parent.name}={word}?" for path in conf.glob(f"*/{word}.yaml")]
            raise InputError(f"{word}: write KEY=VALUE{''.join(meant[:1])}")
    words = [word for word in arguments if "=" in word and word[0] not in "-~"]
    more = any(word.startswith(("-cd", "--config", "hydra.searchpath")) for word in arguments)  # files from elsewhere
    for override in OverridesParser.create().parse_overrides(words):
        group = override.key_or_group
        if group == "hydra.sweeper.direction":
            raise InputError(f"{override.input_line}: which way is better follows from watch=; leave it out")
        if group == "sweep" and not MULTIRUN & set(arguments):
            raise InputError(f"{override.input_line} is for many runs: add -m")
        if group == "sweep" and override.is_sweep_override():  # Hydra would make jobs of it, one for each
            raise InputError(f"{override.input_line}: one at a time; a sweep of your own is a file of conf/sweep")
        options = sorted(path.stem for path in conf.glob(f"{group}/*.yaml"))
        if not options or more:
            continue
        if isinstance(override.value(), ChoiceSweep):
            for name in override.sweep_string_iterator():
                if name not in options:
                    raise InputError(f"{group}={name}: {nearest(name, options)}")
        elif not override.is_sweep_override() and isinstance(override.value() or 0, int | float):
            raise InputError(f"{override.input_line}: {group} is one of {', '.join(options)}")


@contextlib.contextmanager
def plain_errors(arguments: Sequence[str]) -> Iterator[None]:
    """Turn what Hydra itself raises in a block into one line, with advice.

    Args:
        arguments: The command line, without the program's name.

    Raises:
        InputError: For an option or a key that is not there, a plug-in that is not installed, or options that exclude
            each other.
    """
    try:
        yield
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group.startswith("hydra"):
            raise InputError(
                f"{group}/{name} is not there; pip install '.[sweep]' brings hydra/sweeper=optuna and "
                "hydra/launcher=joblib, submitit_local and submitit_slurm"
            ) from None
        raise InputError(f"{group}={name}: {nearest(name, error.options or ())}") from None
    except ConfigCompositionException as error:
        wrong = re.match(r"Could not override '([^']+)'", str(error))
        there = getattr(error.__cause__, "parent_node", None)
        if wrong is None or not isinstance(there, DictConfig):
            raise
        word = next((word for word in arguments if word.partition("=")[0] == wrong[1]), wrong[1])
        raise InputError(f"{word}: {_advice(cast(Any, error.__cause__).full_key, word, there)}") from None
    except (InputError, *USER_ERRORS):
        raise
    except AssertionError:  # of Optuna's sweeper, without a word
        globs = [word for word in arguments if "=glob(" in word]
        if not globs:
            raise
        raise InputError(f"{globs[0]}: Optuna takes no glob; write choice(...) with the names") from None
    except (ValueError, NotImplementedError) as error:  # of Hydra's and Optuna's own checks; a job raises nothing
        raise InputError(" ".join(str(error).split())) from None


def _advice(key: str, word: str, there: DictConfig) -> str:
    """Return what to do about an override of a key that ``there`` does not have."""
    place, _, name = key.rpartition(".")
    if "_target_" in there:
        check_targets({"_target_": there["_target_"]}, place)
        if accepts(there["_target_"], name):
            return f"conf/ does not set it; to add it write +{word}"
    known = [str(known) for known in there if known != "hydra" and not str(known).startswith("_")]
    return f"there is no such key; {nearest(name, known)}" if known else "there is no such key"
