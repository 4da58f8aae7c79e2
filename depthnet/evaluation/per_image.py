"""A finished run as its files tell of it, image by image: metrics.json, per_image.csv, and config.yaml.

``per_image_edges.csv`` and ``per_image_robustness.csv``, where a run has them, hold in the same form what
``depthnet report`` and ``depthnet robustness`` measured beside its figures.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from depthnet.core.atomic_io import write_text
from depthnet.core.types import InputError

_BEFORE_FIGURES = ["protocol", "frame", "label", "scene"]

_DIGESTS = {
    "43f9fba71492": "9878dffa18c3", "cd764744053c": "9ecf1b97e1ac",  # nyu_eigen, and flipped
    "fb6c4c4adad7": "12cd24b250f3", "8cb0e2e7ec77": "8909e9bc2ded",  # nyu_eigen_filled, and flipped
    "7eab7b60e431": "3a610fe62e5b", "22b9228c6e41": "8d0ae5736a2d",  # nyu_center, and flipped
    "c6aacbad1e9d": "914cd9dfce0e", "fe9e4e9ce493": "bcb4a01b20a1",  # nyu_densedepth, and flipped
    "d5c5bac4ba6e": "0b32ad8a6d43", "c0a0f44ae2bb": "b73573e98da7",  # uncropped, and flipped
    "8b37af7a28ee": "b8a5407db17b", "f5324053db76": "8c71a406f4af",  # median_scaled, and flipped
    "851093bcb1eb": "ecaa256aaab3", "8cac2bb5e865": "60b1f1c3c2d7",  # scale_shift, and flipped
    "0a04c76709e7": "5a5614a4f926", "0e4a8158da5e": "deead8215207",  # disparity_scale_shift, and flipped
    "a8ce0655fdbe": "57fb60ec5aab", "5ef8f4ea58c3": "20167e71e343",  # published_keras, and flipped
}  # fmt: skip
"""Protocols' digests as older runs store them, over the prose as well, and those of today, for depths to 10 m."""

SAME = 0.005
"""What batches, threads and precision may change of delta1."""


class Image(NamedTuple):
    """What one protocol found of one image; a figure is NaN where the image has nothing to measure it by."""

    scene: str
    figures: dict[str, float]


class Run(NamedTuple):
    """A finished run as its files tell of it.

    Attributes:
        path: Its directory.
        split: Which split was judged.
        expected: How many images the split has; more than were evaluated where a run was limited.
        data: What the data is and how it was prepared.
        digests: Each protocol's digest.
        images: Each image by protocol and label.
        config: What it was run with, the keys joined by dots; None where it has no ``config.yaml``.
    """

    path: Path
    split: str
    expected: int
    data: Mapping[str, Any]
    digests: Mapping[str, str]
    images: Mapping[str, Mapping[str, Image]]
    config: Mapping[str, Any] | None


def read_run(path: Path, more: bool = True) -> Run:
    """Read a run's files.

    Args:
        path: The run's directory, or the ``metrics.json`` in it.
        more: Also what :func:`write_more` wrote.

    Raises:
        InputError: If a file is missing or not an evaluation's, or the two are of different evaluations.
    """
    directory = (path.parent if path.name == "metrics.json" else path).resolve()
    if not directory.is_dir():
        raise InputError(f"{path}: no directory of a run; name one that holds metrics.json and per_image.csv")
    try:
        content = json.loads((directory / "metrics.json").read_text(encoding="utf-8", errors="surrogateescape"))
        images = _read_images(directory / "per_image.csv")
        data = {key: content["data"].get(key) for key in ("description", "truth", "frames", "digest", "image_size")}
        split, expected = content["split"], int(content["expected"])
        digests = {name: _DIGESTS.get(digest, digest) for name, digest in content["digests"].items()}
        run = Run(directory, split, expected, data, digests, images, _config(directory / "config.yaml"))
        for name in run.digests:
            rows = [image.figures for image in images[name].values()]
            for metric in rows[0]:
                found = exact_mean(row[metric] for row in rows if not math.isnan(row[metric]))
                stored = content["protocols"][name][metric]  # JSON has null for NaN
                if found != stored and not (stored is None and math.isnan(found)):
                    raise ValueError(f"per_image.csv and metrics.json disagree on {name}")
        for file in sorted(directory.glob("per_image_*.csv")) if more else ():
            _add_more(images, file)
    except FileNotFoundError as error:
        raise InputError(f"{directory}: has no {Path(error.filename).name}; compare runs that were judged") from None
    except Exception as error:  # JSON, CSV and YAML each have their own
        reason = " ".join(str(error).split())
        raise InputError(f"{directory}: its files are not those of one evaluation ({reason}); judge it again") from None
    return run


def _read_images(path: Path) -> dict[str, dict[str, Image]]:
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    before = len(_BEFORE_FIGURES)
    if header[:before] != _BEFORE_FIGURES:
        raise ValueError(f"per_image.csv does not begin with {', '.join(_BEFORE_FIGURES)}")
    images: dict[str, dict[str, Image]] = {}
    for protocol, _, label, scene, *figures in rows:
        under = images.setdefault(protocol, {})
        if label in under:
            raise ValueError(f"per_image.csv has two rows of {label} under {protocol}")
        under[label] = Image(scene, dict(zip(header[before:], map(float, figures), strict=True)))
    return images


def _add_more(images: dict[str, dict[str, Image]], path: Path) -> None:
    for name, rows in _read_images(path).items():
        if rows.keys() != images[name].keys():
            raise ValueError(f"{path.name} is of other images")
        judged = ([image.figures["delta1"] for image in some[name].values()] for some in (images, {name: rows}))
        here, there = (exact_mean(value for value in values if not math.isnan(value)) for values in judged)
        if abs(here - there) > SAME:
            raise ValueError(f"{path.name} is of another checkpoint; remove it")
        for label, image in rows.items():
            figures = images[name][label].figures
            figures |= {key: value for key, value in image.figures.items() if key not in figures}


def write_more(
    directory: str | os.PathLike[str],
    tool: str,
    protocol: str,
    names: Sequence[str],
    rows: Mapping[int, tuple[str, str, Sequence[float]]],
) -> None:
    """Write figures that a judgement does not measure beside those that it does.

    Args:
        directory: The run's directory.
        tool: The file is ``per_image_<tool>.csv``.
        protocol: Under which they were measured.
        names: Of the figures; the first is ``delta1``, by which a reader knows that they are of the same checkpoint.
        rows: Each image's label, scene and figures, by its frame.

    Raises:
        InputError: If the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*_BEFORE_FIGURES, *names))
    for frame, (label, scene, figures) in rows.items():
        writer.writerow((protocol, frame, label, scene, *map(repr, figures)))
    write_text(Path(directory) / f"per_image_{tool}.csv", text.getvalue())


def count_in_words(images: int, expected: int) -> str:
    """Return how many images figures are of, and of how many where those are not all.

    Example:
        >>> count_in_words(96, 96), count_in_words(16, 96)
        ('96 images', '16 of 96 images')
    """
    return f"{images} images" if images == expected else f"{images} of {expected} images"


def exact_mean(values: Iterable[float]) -> float:
    """Return the mean, exactly rounded, as an evaluation has it; NaN of nothing."""
    column = list(values)
    return math.fsum(column) / len(column) if column else math.nan


def _config(path: Path) -> dict[str, Any] | None:
    return dict(flat(yaml.safe_load(path.read_text("utf-8", "surrogateescape")))) if path.exists() else None


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested keys, joined by dots, and their values; a list of plain values is a value."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        yield key, value
        return
    for name, item in value.items():
        yield from flat(item, f"{key}.{name}" if key else str(name))
