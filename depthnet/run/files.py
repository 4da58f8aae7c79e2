"""What a run's directory holds: the names of its files, and their one reader and writer.

Readers return plain data; a missing or torn file raises one line.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import OmegaConf

from depthnet.core.atomic_io import write_json, write_text
from depthnet.core.tables import to_csv
from depthnet.core.types import InputError

CONFIG = "config.yaml"
"""The resolved config; ``${directory}`` in it stands for the directory, so that a run can be moved."""

METRICS = "metrics.json"
"""The figures of the best checkpoint under each protocol, and what they are of."""

IMAGES = "per_image.csv"
"""The same, a row for each image."""

HISTORY = "history.csv"
"""A row for each epoch."""

RECORD = "run.json"
"""What the run was started with, and how long it has trained."""

JOB = "job.json"
"""Of a sweep's job: what it overrides, the figure it is ranked by, and why it failed."""

SAME = 0.005
"""What batches, threads and precision may change of delta1."""

_CONFIG_BYTES = 1_000_000
_RENAMED = {"truth": "ground_truth"}  # keys of the data in older runs
_DIGESTS = {
    "43f9fba71492": "9878dffa18c3",
    "cd764744053c": "9ecf1b97e1ac",  # nyu_eigen, and flipped
    "fb6c4c4adad7": "12cd24b250f3",
    "8cb0e2e7ec77": "8909e9bc2ded",  # nyu_eigen_filled, and flipped
    "7eab7b60e431": "3a610fe62e5b",
    "22b9228c6e41": "8d0ae5736a2d",  # nyu_center, and flipped
    "c6aacbad1e9d": "914cd9dfce0e",
    "fe9e4e9ce493": "bcb4a01b20a1",  # nyu_densedepth, and flipped
    "d5c5bac4ba6e": "0b32ad8a6d43",
    "c0a0f44ae2bb": "b73573e98da7",  # uncropped, and flipped
    "8b37af7a28ee": "b8a5407db17b",
    "f5324053db76": "8c71a406f4af",  # median_scaled, and flipped
    "851093bcb1eb": "ecaa256aaab3",
    "8cac2bb5e865": "60b1f1c3c2d7",  # scale_shift, and flipped
    "0a04c76709e7": "5a5614a4f926",
    "0e4a8158da5e": "deead8215207",  # disparity_scale_shift, and flipped
    "a8ce0655fdbe": "57fb60ec5aab",
    "5ef8f4ea58c3": "20167e71e343",  # published_keras, and flipped
}
"""Protocols' digests as older runs store them, over the prose as well, and those of today, for depths to 10 m."""


class Image(NamedTuple):
    """What one protocol found of one image; a figure is NaN where the image has nothing to measure it by."""

    label: str
    scene: str
    figures: dict[str, float]


@dataclass(frozen=True)
class Run:
    """An evaluated run as its files describe it.

    Attributes:
        directory: Where they are.
        config: What it was run with.
        metrics: ``metrics.json``, as :func:`read_metrics` returns it.
        rows: By protocol, each evaluated image by its frame's number.
        history: A row for each epoch; none where the run only evaluated.
    """

    directory: Path
    config: dict[str, Any]
    metrics: dict[str, Any]
    rows: dict[str, dict[int, Image]]
    history: list[dict[str, float]]

    @property
    def protocol(self) -> str:
        """The first protocol that the run was evaluated under, of those that compare meters if there is one."""
        return next((name for name in self.rows if not name.startswith("published_keras")), next(iter(self.rows)))

    def mean_map(self, protocol: str) -> dict[str, float]:
        """Return the metrics of the mean training depth; empty where there is none."""
        return dict(self.metrics.get("mean_map", {}).get(protocol, {}))


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn any error while a run's file is read into one line.

    Raises:
        InputError: If it is missing, torn, or not what a run writes.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path.parent}: no run that was evaluated there (looked for {path.name})") from None
    except Exception as error:  # JSON, YAML and CSV each have their own
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{path}: cannot be read, torn or not a run's ({reason})") from None


def read_run(directory: str | os.PathLike[str], measured: bool = False) -> Run:
    """Read an evaluated run.

    Args:
        directory: The run's.
        measured: Also what :func:`store_measured` wrote.

    Raises:
        InputError: If a file is missing or torn, or they are of different evaluations.
    """
    directory = Path(directory)
    config, metrics = read_config(directory), read_metrics(directory)
    rows = _read_images(directory / IMAGES)
    with reading(directory / IMAGES):
        for protocol, means in metrics["protocols"].items():
            for metric, stored in means.items():
                found = exact_mean(image.figures[metric] for image in rows[protocol].values())
                if found != stored and not (math.isnan(found) and math.isnan(stored)):
                    raise ValueError(f"it and {METRICS} disagree on {protocol}; evaluate the run again")
    for path in sorted(directory.glob("per_image_*.csv")) if measured else ():
        for protocol, images in _read_images(path).items():
            with reading(path):
                if why := _misfit(rows[protocol], {frame: image.figures for frame, image in images.items()}):
                    raise ValueError(why)
                for frame, image in rows[protocol].items():
                    image.figures.update(images[frame].figures | image.figures)
    path, history = directory / HISTORY, []
    if path.exists():
        with reading(path):
            history = [{name: float(value) for name, value in row.items() if value} for row in _read_csv(path)]
    return Run(directory, config, metrics, {protocol: rows[protocol] for protocol in metrics["protocols"]}, history)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds a mapping.

    Raises:
        InputError: As :func:`reading`.
    """
    with reading(path):
        value = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
        if not isinstance(value, dict):
            raise ValueError(f"it holds a {type(value).__name__}")
        return value


def read_record(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a run's ``run.json``; empty where there is none.

    Raises:
        InputError: If it is torn.
    """
    path = Path(directory, RECORD)
    return read_json(path) if path.exists() else {}


def update_record(directory: str | os.PathLike[str], **values: Any) -> None:
    """Set entries of a run's ``run.json``."""
    write_json(Path(directory, RECORD), read_record(directory) | values)


def read_config(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a run's config; nothing in it is resolved, such as ``${directory}`` for where it is.

    Raises:
        InputError: As :func:`reading`.
    """
    path = Path(directory, CONFIG)
    with reading(path):
        if path.stat().st_size > _CONFIG_BYTES:
            raise ValueError(f"larger than {_CONFIG_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("it has an alias, and ours have none")
        config: Any = OmegaConf.to_container(OmegaConf.create(text))
        _ = config["data"]["_target_"], config["data"]["image_size"]
        config["data"] = {_RENAMED.get(name, name): value for name, value in config["data"].items()}
        return dict(config)


def read_metrics(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a run's ``metrics.json``; of an older run too.

    Returns:
        With ``split``, ``expected``, ``data``, ``protocols`` (NaN for JSON's null) and today's ``digests``.

    Raises:
        InputError: As :func:`reading`.
    """
    path = Path(directory, METRICS)
    stored = read_json(path)
    with reading(path):
        if not stored["protocols"] or not isinstance(stored["data"], dict):
            raise ValueError("no evaluation")
        stored["protocols"] = {
            protocol: {name: math.nan if value is None else float(value) for name, value in means.items()}
            for protocol, means in stored["protocols"].items()
        }
        digests = {name: _DIGESTS.get(digest, digest) for name, digest in stored.get("digests", {}).items()}
        data = {_RENAMED.get(name, name): value for name, value in stored["data"].items()}
        stored |= {"data": data, "test_evaluations": stored.get("test_evaluations", stored.get("test_judgements"))}
        return {**stored, "split": str(stored["split"]), "expected": int(stored["expected"]), "digests": digests}


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def _read_images(path: Path) -> dict[str, dict[int, Image]]:
    found: dict[str, dict[int, Image]] = {}
    with reading(path):
        for row in _read_csv(path):
            protocol, frame, label, scene = (row.pop(name) for name in ("protocol", "frame", "label", "scene"))
            figures = {name: float(value) for name, value in row.items()}
            found.setdefault(protocol, {})[int(frame)] = Image(label, scene, figures)
    return found


def write_images(
    directory: str | os.PathLike[str],
    images: Mapping[str, Mapping[int, tuple[str, str, Mapping[str, float]]]],
    tool: str = "",
) -> None:
    """Write ``per_image.csv``, or ``per_image_<tool>.csv``, to full precision.

    Args:
        directory: The run's.
        images: By protocol and frame, each image's label, scene and figures.
        tool: What measured them; none for the evaluation.

    Raises:
        InputError: If the file cannot be written.
    """
    lines = (
        {"protocol": protocol, "frame": frame, "label": label, "scene": scene, **figures}
        for protocol, rows in images.items()
        for frame, (label, scene, figures) in rows.items()
    )
    write_text(Path(directory, f"per_image_{tool}.csv" if tool else IMAGES), to_csv(lines))


def store_measured(run: Run, tool: str, figures: Mapping[int, Mapping[str, float]]) -> str:
    """Write figures that an evaluation does not measure beside those that it does, for ``depthnet compare``.

    Args:
        run: The run.
        tool: What measured them, as the file is named.
        figures: Of each image, by its frame; ``delta1`` is among them, by which another checkpoint is known.

    Returns:
        Why nothing was written, where they are not of all images or of another checkpoint; else empty.
    """
    rows = run.rows[run.protocol]
    why = _misfit(rows, figures)
    if not why:
        images = {frame: (image.label, image.scene, figures[frame]) for frame, image in rows.items()}
        write_images(run.directory, {run.protocol: images}, tool)
    return why


def _misfit(rows: Mapping[int, Image], figures: Mapping[int, Mapping[str, float]]) -> str:
    """Why figures are not of the images and the checkpoint that rows are of; empty where they are."""
    if figures.keys() != rows.keys():
        return f"only {len(figures)} of {len(rows)} images"
    found = exact_mean(row["delta1"] for row in figures.values())
    stored = exact_mean(image.figures["delta1"] for image in rows.values())
    if not abs(found - stored) <= SAME:
        return f"the checkpoint gives delta1 {found:.4f}, but was evaluated as {stored:.4f}; evaluate the run again"
    return ""


def exact_mean(values: Iterable[float]) -> float:
    """Return the mean of all values but NaN, exactly rounded, as an evaluation has it; NaN of nothing."""
    column = [value for value in values if not math.isnan(value)]
    return math.fsum(column) / len(column) if column else math.nan


def flatten(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested keys, joined by dots, and their values; a list of plain values is a value.

    Example:
        >>> dict(flatten({"a": {"b": [1, 2], "c": [{"d": 3}]}}))
        {'a.b': [1, 2], 'a.c.0.d': 3}
    """
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        yield key, value
        return
    for name, item in value.items():
        yield from flatten(item, f"{key}.{name}" if key else str(name))
