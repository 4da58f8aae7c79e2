"""What a run was started with, and what of it is different when it goes on: its data, code and config.

``run.json`` in a run's directory holds digests of the data and of the package's files, versions, every time the run was
resumed, its command line, and how long it has trained. A run that goes on with other data or other code would be
neither the old one nor a new one; code that does not train may change under it.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import depthnet
from depthnet.core.atomic_io import write_json
from depthnet.core.types import InputError

log = logging.getLogger("depthnet")

RECORD = "run.json"

KINDS = ("data", "code", "config")
"""What may be named in ``resume_allow``."""

TRAINING = (
    "depthnet/core/",
    "depthnet/data/",
    "depthnet/models/",
    "depthnet/training/",
    *(f"depthnet/evaluation/{name}.py" for name in ("evaluator", "metrics", "protocols")),
)
"""Files and folders of the package by whose code a run learns and its best checkpoint is chosen."""

FREE = ("report", "logger", "callbacks.progress", "callbacks.dashboard", "data.root", "data.test_root",
        "data.lists", "data.num_workers", "data.cache", "data.cache_dir", "trainer.profiler")  # fmt: skip
"""Keys of the config by which a run does not learn otherwise; data that was moved is still known by its digest."""

SETTLED = ("model.pretrained", "model.camera", "data.batch_size")
"""Keys that may be ``auto``, which is decided when a run is first started."""

_FREE_PREFIXES = tuple(f"{name}." for name in FREE)
_SHOWN = 4  # differences in a message
_HEX = 64  # digits of a digest


def check_changes(
    directory: str | os.PathLike[str],
    data: Mapping[str, Any],
    versions: Mapping[str, str | None],
    allow: Collection[str],
) -> None:
    """Note what a run is started with, or compare it with what it was started with.

    Args:
        directory: The run's directory; its ``run.json`` is written.
        data: What is learned from, as plain values.
        versions: Of the packages that figures may depend on.
        allow: The kinds of change that do not stop the run.

    Raises:
        InputError: If data or the code of training has changed, with the differences; other code is logged.
    """
    path = Path(directory) / RECORD
    now: dict[str, Any] = json.loads(json.dumps({"data": data, "code": {**_digests(), **versions}}))
    if not path.is_file():
        write_json(path, now | {"resumed": []})
        return
    try:
        then = json.loads(path.read_text(encoding="utf-8"))
        found = {kind: _differences(then[kind], now[kind]) for kind in ("data", "code")}
        resumed = [*then["resumed"], {"when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **found}]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f"{path}: no record of a run; remove it to go on without comparing data and code") from None
    beside = {key for key in {**then["code"], **now["code"]} if not _trains(key)}
    training, other = ([line for line in found["code"] if (line in beside) is out] for out in (False, True))
    for kind, differences in (("data", found["data"]), ("code", training)):
        _refuse(directory, kind, differences, allow)
    if other:
        log.info("%s: code that does not train has changed since the run was started: %s", directory, _shorten(other))
    write_json(path, then | now | {"resumed": resumed})


def note_overrides(directory: str | os.PathLike[str], overrides: Sequence[str]) -> None:
    """Note the command line that a run has its config from, without what concerns one start alone.

    Args:
        directory: The run's directory.
        overrides: Hydra's, such as ``["model=basic", "seed=1"]``; with ``resume=DIR`` the config is the stored one, and
            what was noted stays.
    """
    if any(word.startswith("resume=") and word != "resume=auto" for word in overrides):
        return
    kept = [word for word in overrides if not word.startswith(("resume=", "resume_allow=", "sweep="))]
    stored = _record(Path(directory))
    if kept != stored.get("overrides"):
        write_json(Path(directory) / RECORD, stored | {"overrides": kept})


def noted_overrides(directory: str | os.PathLike[str]) -> list[str]:
    """Return the command line that :func:`note_overrides` noted; empty where there is none."""
    return list(_record(Path(directory)).get("overrides", []))


def note_url(directory: str | os.PathLike[str], url: str) -> None:
    """Note where a run is shown."""
    write_json(Path(directory) / RECORD, _record(Path(directory)) | {"url": url})


def add_seconds(directory: str | os.PathLike[str], hardware: str, seconds: float) -> None:
    """Add to the time that a run has trained.

    Args:
        directory: The run's directory.
        hardware: What it trains on, in words; the time on each is kept apart.
        seconds: By the wall clock.
    """
    stored = _record(Path(directory))
    spent = dict(stored.get("seconds", {}))
    spent[hardware] = round(spent.get(hardware, 0.0) + seconds, 3)
    write_json(Path(directory) / RECORD, stored | {"seconds": spent})


def _record(directory: Path) -> dict[str, Any]:
    path = directory / RECORD
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8", errors="surrogateescape")))
    except (ValueError, TypeError):
        raise InputError(f"{path}: no record of a run; remove it to go on without comparing data and code") from None


def config_changes(
    directory: str | os.PathLike[str], stored: Mapping[str, Any], given: Mapping[str, Any], allow: Collection[str]
) -> tuple[dict[str, Any], bool]:
    """Compare the config that a run was started with and the one that it is to go on with.

    Args:
        directory: The run's directory, for the message.
        stored: The config that the run was started with, resolved.
        given: The config of the command line, resolved.
        allow: The kinds of change that do not stop the run.

    Returns:
        ``{key: value}`` of what differs and makes nothing be learned otherwise, and whether anything else differs.

    Raises:
        InputError: If something else differs and ``allow`` does not hold "config".
    """
    changed = {name: _at(given, name) for name in FREE if _at(stored, name) != _at(given, name)}
    then, now = (
        {key: value for key, value in _flat(config).items() if not f"{key}.".startswith(_FREE_PREFIXES)}
        for config in (stored, given)
    )
    bound = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    _refuse(directory, "config", [f"{key}={now.get(key)} (was {then.get(key)})" for key in bound], allow)
    return changed, bool(bound)


def _refuse(directory: str | os.PathLike[str], kind: str, differences: list[str], allow: Collection[str]) -> None:
    if differences and kind not in allow:
        raise InputError(
            f"{directory}: its {kind} has changed since the run was started: {_shorten(differences)}; "
            f"start anew in another directory, or go on all the same with resume_allow=[{kind}]"
        )


def _shorten(differences: Sequence[str]) -> str:
    more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    return f"{', '.join(differences[:_SHOWN])}{more}"


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    lines = []
    for key in sorted({**then, **now}):
        old, new = then.get(key), now.get(key)
        if old != new:
            digest = len(str(old or new)) == _HEX
            lines.append(key if digest else f"{key} {new} (was {old})")
    return lines


def _digests() -> dict[str, str]:
    folder = Path(depthnet.__file__).parent
    return {
        path.relative_to(folder.parent).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.py"))
    }


def _trains(key: str) -> bool:
    """Whether a key of the code's record is of a file or folder in :data:`TRAINING`, or a library's version."""
    return "/" not in key or key.startswith(TRAINING)


def _at(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Nested mappings as ``{a.b: value}``; a sequence is a value."""
    if not isinstance(value, Mapping) or not value:
        return {key: value}
    return {
        name: item for k, part in value.items() for name, item in _flat(part, f"{key}.{k}" if key else str(k)).items()
    }


def commit() -> str | None:
    """Return the git commit that this code is at, with ``-dirty`` when tracked files differ; None outside git."""
    source = Path(__file__).resolve()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source.parent), *arguments]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=10)
        return answer.stdout.strip()

    try:
        # installed inside another project's folder, the code is not at that project's commit
        git("ls-files", "--error-unmatch", source.name)
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str | None]:
    """Return the versions that metrics may depend on, without importing more; None for what is not installed."""
    import torch

    found: dict[str, str | None] = {"python": platform.python_version(), "depthnet": depthnet.__version__}
    found["torch"] = torch.__version__  # with its build, such as +cu132
    for name in ("torchvision", "lightning", "timm", "numpy", "pillow", "albumentations", "torchmetrics"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
