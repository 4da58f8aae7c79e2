"""What runs in W&B and the directories of a sweep's jobs are called, by the choices that they were made by."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from depthnet.run.provenance import FREE

_NAMED = ("experiment", "data", "model", "loss", "augment")
_TAGGED = (*_NAMED, "optimizer", "scheduler")
_UNNAMED = tuple(f"{key}." for key in (*FREE, "directory", "mode", "resume", "resume_allow", "seed"))
_NAME = 128  # characters
_TAG = 64  # which is W&B's limit
_OF_ONE_START = ("resume", "resume_allow", "sweep", "report", "logger")
"""Overrides, and groups of them, that make no other job of a sweep."""
_JOB = 80  # characters
_IN_A_PATH = re.compile(r"[\w.,+~@=-]+", re.ASCII)


def name_run(cfg: Any, choices: Mapping[str, Any], overrides: Sequence[str], sweep: str | None = None) -> None:
    """Set, in place, the name, group, job type and tags of a config's W&B logger, where they are null.

    Args:
        cfg: The run's config.
        choices: The option of each group of ``conf/``.
        overrides: The command line.
        sweep: The directory of the sweep that the run is a job of, which becomes the group.

    Example:
        >>> cfg = {"mode": "fit", "seed": 3, "ckpt": None, "model": {}, "logger": {"name": None, "tags": ["mine"]}}
        >>> name_run(cfg, {"data": "rooms", "model": "tiny"}, ["data=rooms", "seed=3", "optimizer.lr=0.01"])
        >>> cfg["logger"]
        {'name': 'rooms tiny seed=3 lr=0.01', 'tags': ['mine']}
    """
    logger, fits = cfg["logger"], cfg["mode"] != "test"  # in a test the network is the checkpoint's
    if fits and cfg["ckpt"] and not any(word.startswith("model=") for word in overrides):
        choices = {**choices, "model": f"from_{start_name(cfg['ckpt'])}"}
    tags = {group: choices.get(group) for group in (_TAGGED if fits else ("data",))}
    words = [str(tags[group]) for group in _NAMED if tags.get(group)]
    tags |= {"encoder": cfg["model"].get("encoder"), "seed": cfg["seed"]} if fits else {"split": cfg["split"]}
    changed = {}
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        bare = key.lstrip("~")
        if bare not in choices and not f"{bare}.".startswith(_UNNAMED):
            changed[key] = f"={short_number(value)}" if value else ""
    changes = [key + value for key, value in zip(short_keys(list(changed)), changed.values(), strict=True)]
    words += [f"seed={cfg['seed']}"] * fits + sorted(changes, key=len)  # the short ones, should the name be too long
    name = " ".join(words)
    for key, value in {
        "name": name if len(name) <= _NAME else f"{name[: _NAME - 3]}...",
        "group": sweep and Path(sweep).name,
        "job_type": cfg["mode"],
        "tags": [f"{key}={value}"[:_TAG] for key, value in tags.items() if value is not None],
    }.items():
        if key in logger and logger[key] is None:
            logger[key] = value


def job_overrides(overrides: Sequence[str]) -> list[str]:
    """Return what of a command line sets a sweep's job apart, whenever and however it is started."""
    return [word for word in overrides if re.split(r"[.=]", word.lstrip("+~"))[0] not in _OF_ONE_START]


def job_name(overrides: Sequence[str]) -> str:
    """Return the name of a sweep's job, from what it overrides: the same job has it at every start of the sweep.

    Words that a path cannot hold, and the longest where all would be too long, leave a digest of all words.

    Example:
        >>> job_name(["seed=1", "optimizer.lr=3e-4", "resume=auto"])
        'lr=3e-4,seed=1'
        >>> job_name(["seed=1", "data.root=/data/nyu"])
        'seed=1,5509ffcf'
    """
    words = sorted(job_overrides(overrides))
    keys = short_keys([word.partition("=")[0] for word in words])
    shown = [key + "".join(word.partition("=")[1:]) for key, word in zip(keys, words, strict=True)]
    kept: list[str] = []
    for word in sorted(shown, key=len):
        if _IN_A_PATH.fullmatch(word) and len(",".join([*kept, word])) <= _JOB:
            kept.append(word)
    whole = "\n".join(words).encode(errors="surrogateescape")
    left_out = [sha256(whole).hexdigest()[:8]] if len(kept) < len(words) or not words else []
    return ",".join([*sorted(kept), *left_out])


def start_name(ckpt: str) -> str:
    """Return a name for a run's start: the checkpoint's, or that of the run whose best or last one it is.

    Example:
        >>> start_name("nyu_small"), start_name("runs/nyu_tiny/2026-01-31/checkpoints/best.ckpt")
        ('nyu_small', '2026-01-31')
    """
    path = Path(ckpt)
    return path.parent.parent.name if path.stem in ("best", "last") and path.parent.parent.name else path.stem


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
