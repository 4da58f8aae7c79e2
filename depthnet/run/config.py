"""A run: the directory it lives in, the choices it starts from, and how it says that something is wrong."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from depthnet.core.atomic_io import locked, remove_leftovers, require_writable, write_text
from depthnet.core.device import auto_precision, find_gpu
from depthnet.core.types import HIGHER_IS_BETTER, LAST, InputError
from depthnet.run.arguments import check_value, nearest, written
from depthnet.run.naming import job_name, start_name
from depthnet.run.provenance import KINDS, SETTLED, config_changes, noted_overrides
from depthnet.run.signals import Signals, Stopped, requeue

log = logging.getLogger("depthnet")

CONFIG = "config.yaml"
METRICS = "metrics.json"
_CONFIG_BYTES = 1_000_000

_NOISE = (
    r".*treespec, LeafSpec.*is deprecated",  # Lightning's own call of torch
    r"You're resuming from a checkpoint that ended before the epoch ended",  # as the data module does
    r".*does not have many workers",  # one worker is what two cores have room for
    r"Checkpoint directory .* exists and is not empty",  # so it is in a run that is resumed
    r"The `srun` command is available",  # one process does without
    r"Detected call of `lr_scheduler.step",  # the loss scale of 16-mixed is found by steps that are not taken
    r".*smaller than the logging interval",  # short runs log their last step all the same
    r"It is recommended to use `self.log\('(train|val)/",  # those figures are of all processes already
)

_PRECISIONS = ("None", "32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16", "64-true", "64")

CHOICES: dict[str, Any] = {
    "mode": Literal["fit", "test"],
    "seed": int,
    "ckpt": str | None,
    "resume": str | None,
    "resume_allow": list[str],
    "split": Literal["val", "test", "published"],
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


def run_directory(
    data: str,
    model: str,
    encoder: str | None,
    mode: str,
    resume: str | None,
    ckpt: str | None = None,
    overrides: Sequence[str] = (),
) -> str:
    """Return the directory of a run: the one that is resumed, or a new one named after data, model and time.

    The model is the checkpoint's that the run starts from, unless the command line names another.

    Raises:
        InputError: If the run to resume is not there, or resume=auto or several processes have no directory named.
    """
    if resume == "auto":
        raise InputError("resume=auto goes on in a directory that every start names: add hydra.run.dir=DIR")
    if resume is not None:
        resumable(resume)
        return str(resume)
    if (count := started_processes()) > 1:
        raise InputError(
            f"{count} processes were started, and each would name another directory: add hydra.run.dir=DIR"
        )
    name = mode if mode != "fit" else encoder if model == "unet_attn" and encoder else model
    if mode == "fit" and ckpt and not any(word.startswith("model=") for word in overrides):
        name = f"from_{start_name(ckpt)}"
    stem = Path("runs", f"{data}_{name}", time.strftime("%Y-%m-%d_%H-%M-%S"))
    number, path = 1, stem
    while path.exists():
        number += 1
        path = stem.with_name(f"{stem.name}_{number}")
    return str(path)


def resumable(directory: str | os.PathLike[str]) -> Path:
    """Return the path of a run's stored config.

    Raises:
        InputError: If ``directory`` holds no run.
    """
    path = Path(directory) / CONFIG
    if not path.is_file():
        raise InputError(f"resume={directory}: no run there (looked for {CONFIG}); name the directory of a run")
    return path


def resolvers() -> dict[str, Callable[..., Any]]:
    """Return the functions that conf/ calls by name."""
    return {
        "auto_precision": auto_precision,
        "default_data": default_data,
        "direction": best_direction,
        "gpu_or_cpu": gpu_or_cpu,
        "job_name": job_name,
        "optuna_direction": lambda watch: f"{best_direction(watch)}imize",
        "run_dir": run_directory,
    }


def register_resolvers() -> None:
    """Make the functions of :func:`resolvers` known to OmegaConf."""
    for name, resolver in resolvers().items():
        # what is cached goes by the interpolation's text, which is the same for each job of a sweep
        OmegaConf.register_new_resolver(name, resolver, use_cache=name != "job_name")


def quiet_libraries() -> None:
    """Keep Lightning's greetings and needless advice out of a run's output; let any file's name be printed."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a frame's name may be no valid text
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # the report of trainer.profiler
    logging.getLogger("lightning").handlers.clear()  # or it would come twice
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)


def first_process() -> bool:
    """Return whether this is the first of a run's processes, by what Lightning, torchrun or srun has set for each."""
    told = next((os.environ[name] for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in os.environ), "0")
    return told == "0" and ("RANK" in os.environ or os.environ.get("NODE_RANK", "0") == "0")


def started_processes() -> int:
    """Return how many processes were started as one run, by torchrun, srun or, for its children, Lightning."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS") or 1)


@contextlib.contextmanager
def owned(directory: Path, wait: bool = False) -> Iterator[Signals]:
    """Keep a directory to one run, cleared of what a killed one left half written, and listen to signals.

    Of several processes, the first one does so; the others report errors only.

    Args:
        directory: Of the run.
        wait: For the end of another that is at work there: the same job of a sweep.

    Raises:
        InputError: If another run is at work there, or nothing can be written there.
    """
    require_writable(directory)
    with Signals() as signals, contextlib.ExitStack() as stack:
        if first_process():
            stack.enter_context(locked(directory, wait))
            for folder in ("", LAST.parent, "panels", "nonfinite"):
                remove_leftovers(directory / folder)
        else:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
            stack.callback(logging.disable, logging.root.manager.disable)
            logging.disable(logging.WARNING)
        try:
            yield signals
        except Stopped:
            if not first_process():  # Lightning's launcher would kill the first one, which may still end its loggers
                raise SystemExit(0) from None
            if signals.requeues:
                print(requeue(), flush=True)
            raise


def is_new(directory: Path) -> bool:
    """Return whether a directory holds nothing but the empty log that Hydra makes."""
    return all(path.suffix == ".log" and not path.stat().st_size for path in directory.iterdir())


_OF_A_START = (".lock", "multirun.yaml", CONFIG, "run.json")


def remove_start(directory: Path, since: float = 0.0) -> None:
    """Remove the directory of a run or sweep that a user's mistake has ended before it trained or evaluated anything.

    Folders above it, inside the working directory, go too where nothing else is in them.

    Args:
        directory: The run's or sweep's.
        since: Seconds since the epoch; a file that was there before keeps the directory.
    """
    there = {path.name: path for path in directory.rglob("*") if not path.is_dir()}
    if any(path.stat().st_mtime < since for path in there.values()):
        return
    steps = there.pop("steps.csv", None)
    if steps and steps.read_bytes().count(b"\n") > 1:
        return
    if any(name not in _OF_A_START and not name.endswith(".log") for name in there):
        return
    shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):
        for parent in directory.resolve().relative_to(Path.cwd()).parents[:-1]:
            parent.rmdir()


def config_of(cfg: DictConfig, directory: Path, overrides: Sequence[str]) -> DictConfig:
    """Return the config to run: the one composed, or the stored one of a run that goes on.

    Args:
        cfg: As composed.
        directory: The run's directory.
        overrides: What the command line changed.

    Raises:
        InputError: If the directory holds a run that is not resumed, a resumed run is to be changed, or its config
            cannot be read.
    """
    path = directory / CONFIG
    allow = cfg.resume_allow
    unknown = [word for word in allow if word not in KINDS] if OmegaConf.is_list(allow) else [allow]
    if unknown:
        raise InputError(f"resume_allow={unknown[0]}: write a list of {', '.join(KINDS)}, such as [data]")
    there = path.exists()
    if cfg.resume not in (None, "auto") and Path(cfg.resume).resolve() != directory.resolve():
        raise InputError(f"resume={cfg.resume} goes on in that directory; leave out hydra.run.dir and -m")
    if cfg.resume is None or (cfg.resume == "auto" and not there):
        if there and not first_process():  # the first one has just stored it, or has started this process
            return _stored(directory, cfg)
        if there:
            raise InputError(f"{directory} holds a run already; go on with resume={directory}, or name another")
        if cfg.mode == "fit" and has_last(directory):
            raise InputError(f"{directory} holds checkpoints, but no {CONFIG}; put it back, or name another directory")
        return cfg
    changes = [word for word in overrides if not word.startswith(("resume=", "resume_allow="))]
    if cfg.resume != "auto" and changes:
        raise InputError(f"resume= goes on with the run's stored config; leave out {' '.join(changes)}")
    stored = _stored(directory, cfg)
    if cfg.resume == "auto":
        for key in SETTLED:
            if OmegaConf.select(cfg, key) == "auto":
                OmegaConf.update(cfg, key, OmegaConf.select(stored, key))
        if cfg.ckpt and cfg.ckpt == stored.ckpt:
            _take_record(cfg, stored, noted_overrides(directory), overrides)
        changed, otherwise = _compared(stored, cfg, directory, allow)
        if otherwise:
            return cfg
        for key, value in changed.items():
            OmegaConf.update(stored, key, value, force_add=True)
    return stored


def _take_record(cfg: DictConfig, stored: DictConfig, then: Sequence[str], now: Sequence[str]) -> None:
    """Give a config, in place, what the stored one had from the checkpoint that both start from.

    That is what the command line set neither at the first start nor now; what it set stays as composed, so that a word
    that is other than then is seen. The checkpoint itself need not be there any more.

    Args:
        cfg: As composed now.
        stored: The run's.
        then: The overrides of the first start.
        now: Those of this one.
    """
    first, this = ({key: value for key, _, value in (word.partition("=") for word in words)} for words in (then, now))
    if first.get("model") != this.get("model"):
        return
    said = {part for key in {*first, *this} for part in [".".join(key.lstrip("+~").split(".")[:2])]}
    for key in {*cfg.model, *stored.model}:
        if f"model.{key}" in said:
            continue
        if key in stored.model:
            OmegaConf.update(cfg, f"model.{key}", OmegaConf.select(stored, f"model.{key}"), force_add=True)
        else:
            with open_dict(cfg):
                del cfg.model[key]
    if "data.image_size" not in said:
        cfg.data.image_size = stored.data.image_size
    if OmegaConf.select(cfg, "data.depth_range") is None:
        OmegaConf.update(cfg, "data.depth_range", OmegaConf.select(stored, "data.depth_range"), force_add=True)


def altered(cfg: DictConfig, directory: Path) -> bool:
    """Return whether a run goes on with a config by which it learns otherwise than by the stored one."""
    return _compared(_stored(directory, cfg), cfg, directory, KINDS)[1]


def _compared(
    stored: DictConfig, cfg: DictConfig, directory: Path, allow: Collection[str]
) -> tuple[dict[str, Any], bool]:
    then, now = (cast(Any, OmegaConf.to_container(config, resolve=True)) for config in (stored, cfg))
    return config_changes(directory, then, now, allow)


def has_last(directory: Path) -> bool:
    """Return whether a run has saved its place, in whichever generation."""
    return any((directory / LAST.parent).glob(f"{LAST.stem}*{LAST.suffix}"))


def _stored(directory: Path, cfg: DictConfig) -> DictConfig:
    """A run's stored config, with what belongs to this start alone."""
    path = resumable(directory)
    try:
        if path.stat().st_size > _CONFIG_BYTES:
            raise ValueError(f"larger than {_CONFIG_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("it has an alias, and ours have none")
        stored = cast(DictConfig, OmegaConf.create(text))
        stored.directory = str(directory)
        stored.resume, stored.resume_allow = cfg.resume, cfg.resume_allow
    except (OSError, ValueError, AttributeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"{path}: cannot be read as a run's config ({' '.join(str(error).split())})") from None
    return stored


def stored_text(cfg: DictConfig, directory: Path) -> str:
    """Return a config as ``config.yaml`` holds it: resolved, but free of the directory, so that a run can be moved."""
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    plain |= {"resume": None, "resume_allow": []}  # of one start, not of the run
    return OmegaConf.to_yaml(OmegaConf.create(_movable(plain, str(directory))))


def _movable(value: Any, place: str) -> Any:
    if isinstance(value, dict):
        return {key: _movable(item, place) for key, item in value.items()}
    if isinstance(value, list):
        return [_movable(item, place) for item in value]
    if isinstance(value, str) and (value == place or value.startswith(f"{place}{os.sep}")):
        return "${directory}" + value[len(place) :]
    return value


def store(directory: Path, text: str) -> None:
    """Write ``config.yaml`` into a run's directory; where it is changed, it and its figures stay under other names."""
    path = directory / CONFIG
    former = path.read_text(encoding="utf-8") if path.exists() else text
    if former != text:
        write_text(directory / "config.previous.yaml", former)
        if (directory / METRICS).exists():  # the run has to end anew
            (directory / METRICS).replace(directory / "metrics.previous.json")
    if former != text or not path.exists():
        write_text(path, text)


def check_choices(config: Mapping[str, Any], groups: Collection[str] | None = None) -> None:
    """Check the keys of train.yaml that are no group.

    Args:
        config: The run's.
        groups: All its other keys; None for any.

    Raises:
        InputError: For the first key that is not known, or impossible value.
    """
    for key in config if groups is not None else ():
        if key not in CHOICES and key not in (groups or ()):
            raise InputError(f"{key}={written(config[key])}: there is no such key; {nearest(key, CHOICES)}")
    for key, hint in CHOICES.items():
        value = config.get(key, hint)
        if value is hint:  # a config that was stored before there was such a key
            continue
        check_value(hint, OmegaConf.to_container(value) if OmegaConf.is_config(value) else value, key)
    if not 0 <= config["seed"] < 2**32:
        raise InputError(f"seed={config['seed']}: it is a whole number from 0 to {2**32 - 1}")
    if config["mode"] == "test" and config["ckpt"] is None:
        raise InputError("mode=test judges a checkpoint: name it with ckpt=PATH")
    if config["mode"] == "test" and config["resume"] not in (None, "auto"):
        raise InputError("mode=test and resume= exclude each other: give ckpt=DIR/checkpoints/best.ckpt")
    best_direction(config["watch"])
    precision = (config.get("trainer") or {}).get("precision")
    if str(precision) not in _PRECISIONS:
        raise InputError(
            f"trainer.precision={precision}: it is 32-true, bf16-mixed, 16-mixed or 64-true; instead of bf16-true or "
            "16-true, which round the weights and the ground truth too, take bf16-mixed"
        )


def error_line(error: BaseException, also: tuple[type[BaseException], ...] = ()) -> str | None:
    """Return what a user did wrong as one line, or None if the error is a fault of the program.

    Args:
        error: What was raised. The errors that led to it are searched too, because libraries wrap ours.
        also: Further kinds of error that come of what the user gave.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for link in chain:
        if isinstance(link, InputError):
            # a loader's worker sends its traceback as the message; the last line is what was said
            return str(link).strip().splitlines()[-1].removeprefix("depthnet.core.types.InputError: ")
    for link in chain:
        if isinstance(link, also):
            cause = link.__cause__
            place = str(link).partition("full_key: ")[2]
            if cause is None or isinstance(cause, also):
                return " ".join(str(link).split())
            if isinstance(cause, TypeError | ValueError) or type(cause).__name__ == "MisconfigurationException":
                return " ".join(f"{place}{': ' if place else ''}{cause}".split())
    return None


def log_failure(error: BaseException, also: tuple[type[BaseException], ...] = ()) -> str | None:
    """Log why a run failed, with the traceback unless the user can mend it, and return what :func:`error_line` does."""
    line = error_line(error, also)
    log.error("the run failed" if line is None else f"error: {line}", exc_info=error if line is None else None)
    return line
