"""How a run is called in W&B: its name, tags and group, from the choices that it was made by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from depthnet.changes import FREE

__all__ = ["run_group", "run_name", "run_tags", "short_keys", "short_number"]

_NAMED = ("experiment", "data", "model", "loss", "augment")
_TAGGED = (*_NAMED, "optimizer", "scheduler")
_UNTOLD = tuple(f"{key}." for key in (*FREE, "directory", "mode", "resume", "resume_allow", "seed"))
_NAME = 128  # characters
_TAG = 64  # which is W&B's limit


def run_group(mode: Any, sweep: str) -> str | None:
    """Return the name of a sweep's directory; None for a single run.

    Args:
        mode: Hydra's, RUN or MULTIRUN.
        sweep: The sweep's directory.

    Example:
        >>> run_group("MULTIRUN", "multirun/2026-01-31_12-00-00")
        '2026-01-31_12-00-00'
    """
    return Path(sweep).name if str(getattr(mode, "name", mode)) == "MULTIRUN" else None


def start_name(ckpt: str) -> str:
    """Return a name for a run's start: the checkpoint's, or that of the run whose best or last one it is.

    Example:
        >>> start_name("nyu_small"), start_name("runs/nyu_tiny/2026-01-31/checkpoints/best.ckpt")
        ('nyu_small', '2026-01-31')
    """
    path = Path(ckpt)
    return path.parent.parent.name if path.stem in ("best", "last") and path.parent.parent.name else path.stem


def run_name(
    mode: str,
    choices: Mapping[str, Any],
    encoder: str | None,
    seed: int,
    overrides: Iterable[str],
    ckpt: str | None = None,
) -> str:
    """Return the choices that most say what a run is, and the values that its command line changed.

    Args:
        mode: "fit", or "test", where the network is the checkpoint's.
        choices: The option of each group of ``conf/``.
        encoder: The config's ``model.encoder``, if it has one; it stands for ``model=unet_attn``.
        seed: The run's seed.
        overrides: The command line; what a sampler drew comes first, then what is short, should the name be too long.
        ckpt: What the run starts from; unless ``overrides`` name a model, the network is its.

    Example:
        >>> chosen = {"data": "rooms", "model": "tiny", "loss": "l1", "augment": "none", "experiment": None}
        >>> run_name("fit", chosen, None, 3, ["data=rooms", "seed=3", "optimizer.lr=0.01", "logger.project=p"])
        'rooms tiny l1 none seed=3 lr=0.01'
    """
    overrides = list(overrides)
    if mode == "fit" and ckpt and not any(word.startswith("model=") for word in overrides):
        choices = {**choices, "model": f"from_{start_name(ckpt)}"}
    told = [str(choices[group]) for group in (("data",) if mode == "test" else _NAMED) if choices.get(group)]
    named = bool(encoder) and "unet_attn" in told
    if named:
        told[told.index("unet_attn")] = str(encoder)
    told += [] if mode == "test" else [f"seed={seed}"]
    changed: dict[str, str] = {}  # value by key
    for word in overrides:
        key, _, value = word.partition("=")
        bare = key.lstrip("+").partition("@")[0]
        known = bare.lstrip("~")
        if known not in choices and not f"{known}.".startswith(_UNTOLD) and not (named and known == "model.encoder"):
            changed[bare] = value
    words = []
    for key, value in zip(short_keys(list(changed)), changed.values(), strict=True):
        word = f"{key}={short_number(value)}" if value else key
        words.append((value == short_number(value), len(word), word))
    name = " ".join(told + [word for *_, word in sorted(words)])
    return name if len(name) <= _NAME else f"{name[: _NAME - 3]}..."


def short_keys(keys: Sequence[str]) -> list[str]:
    """Return the last word of each key, where no other key ends with it.

    Example:
        >>> short_keys(["optimizer.lr", "model.context", "data.context"])
        ['lr', 'model.context', 'data.context']
    """
    last = [key.rpartition(".")[2] for key in keys]
    return [word if last.count(word) == 1 else key for key, word in zip(keys, last, strict=True)]


def short_number(value: str) -> str:
    """Return a number that a sampler drew to three digits, and anything else as it is.

    Example:
        >>> short_number("0.000727295966282297"), short_number("0.0125"), short_number("l1")
        ('0.000727', '0.0125', 'l1')
    """
    try:
        return f"{float(value):.3g}" if len(value) > 6 else value
    except ValueError:
        return value


def run_tags(mode: str, choices: Mapping[str, Any], encoder: str | None, seed: int, split: str) -> list[str]:
    """Return a run's choices as tags, such as ``data=rooms``.

    Args:
        mode: "fit", or "test", where the network is the checkpoint's.
        choices: The option of each group of ``conf/``.
        encoder: The config's ``model.encoder``, if it has one.
        seed: The run's seed.
        split: The split that is judged in a test.

    Example:
        >>> run_tags("test", {"data": "nyu", "model": "tiny"}, None, 0, "test")
        ['data=nyu', 'split=test']
    """
    told: dict[str, Any] = {"data": choices.get("data"), "split": split}
    if mode != "test":
        told = {group: choices.get(group) for group in _TAGGED} | {"encoder": encoder, "seed": seed}
    return [f"{key}={value}"[:_TAG] for key, value in told.items() if value is not None]
