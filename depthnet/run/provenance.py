"""The data, code and config that a run was started with, and what has changed when it is resumed.

``run.json`` in a run's directory holds digests of the data and of the package's files, versions, every time the run was
resumed, its command line, the config composed of it, and how long it has trained. A run that is resumed with other data
or other code would be neither the old one nor a new one; code that does not train may change under it.
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
from depthnet.core.types import InputError
from depthnet.run.files import RECORD, flatten, read_record, reading, update_record

log = logging.getLogger("depthnet")

TRAINING = (
    "depthnet/core/",
    "depthnet/data/",
    "depthnet/models/",
    "depthnet/training/",
    *(f"depthnet/evaluation/{name}.py" for name in ("evaluator", "metrics", "protocols")),
)
"""Files and folders of the package by whose code a run learns and its best checkpoint is chosen;
versions of libraries, which have no slash in the record, count as such too."""

FREE = (
    "report",
    "logger",
    "callbacks.progress",
    "callbacks.dashboard",
    "data.root",
    "data.test_root",
    "data.lists",
    "data.num_workers",
    "data.cache",
    "data.cache_dir",
    "trainer.profiler",
)
"""Keys of the config by which a run does not learn otherwise; data that was moved is still known by its digest."""

RESOLVED_ONCE = ("model.pretrained", "model.camera", "data.batch_size")
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
    """Record the data and code that a run is started with, or compare them with those of its first start.

    Args:
        directory: The run's directory; its ``run.json`` is written.
        data: What is learned from, as plain values.
        versions: Of the packages that metrics may depend on.
        allow: The kinds of change that do not stop the run.

    Raises:
        InputError: If data or the code of training has changed, with the differences; other code is logged.
    """
    then = read_record(directory)
    now: dict[str, Any] = json.loads(json.dumps({"data": data, "code": {**_digests(), **versions}}))
    if "data" not in then:
        update_record(directory, **now, resumed=[])
        return
    with reading(Path(directory, RECORD)):
        data_lines, code = [*_differences(then["data"], now["data"]).values()], _differences(then["code"], now["code"])
        found = {"when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "data": data_lines, "code": [*code.values()]}
        resumed = [*then["resumed"], found]
    training = {key: line for key, line in code.items() if "/" not in key or key.startswith(TRAINING)}
    refuse_changes(directory, "data", data_lines, allow)
    refuse_changes(directory, "code", [*training.values()], allow)
    if other := [line for key, line in code.items() if key not in training]:
        log.info("%s: code that does not train has changed since the run was started: %s", directory, _shorten(other))
    update_record(directory, **now, resumed=resumed)


def kept_words(overrides: Sequence[str]) -> list[str]:
    """Return the words of a command line that concern the run and not one start alone."""
    return [word for word in overrides if not word.startswith(("resume=", "resume_allow=", "sweep="))]


def config_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the keys by which two resolved configs learn otherwise, each with both values."""
    one, other = (
        {key: value for key, value in flatten(config) if not f"{key}.".startswith(_FREE_PREFIXES)}
        for config in (then, now)
    )
    return [*_differences(one, other).values()]


def refuse_changes(
    directory: str | os.PathLike[str], kind: str, differences: Sequence[str], allow: Collection[str]
) -> None:
    """Raise InputError for a kind of difference, unless there is none or it is allowed."""
    if differences and kind not in allow:
        raise InputError(
            f"{directory}: its {kind} has changed since the run was started: {_shorten(differences)}; "
            f"start anew in another directory, or resume all the same with resume_allow=[{kind}]"
        )


def _shorten(differences: Sequence[str]) -> str:
    more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    return f"{', '.join(differences[:_SHOWN])}{more}"


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys whose values differ, each with a line that states both; of a digest the key alone."""
    found = {}
    for key in sorted({**then, **now}):
        old, new = then.get(key), now.get(key)
        if old != new:
            found[key] = key if len(str(old or new)) == _HEX else f"{key}={new} (was {old})"
    return found


def _digests() -> dict[str, str]:
    folder = Path(depthnet.__file__).parent
    return {
        path.relative_to(folder.parent).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.py"))
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
