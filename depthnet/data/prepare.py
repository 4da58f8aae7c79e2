"""Turn the labelled file of NYU Depth V2 into files: the ``lists`` layout, which every program of the field reads."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from depthnet.core.atomic_io import require_writable, write_text
from depthnet.core.images import write_depth_png, write_image_png
from depthnet.core.types import InputError
from depthnet.data.layouts.labelled import LabelledLayout
from depthnet.data.layouts.layout import SPLITS, Source
from depthnet.data.layouts.official import NYU_INTRINSICS


def prepare(
    mat: str | os.PathLike[str],
    out: str | os.PathLike[str],
    ground_truth: str = "filled",
    advance: Callable[[int, int], object] = lambda done, total: None,
) -> None:
    """Write each frame as ``<recording>/rgb_NNNNN.png`` and ``sync_depth_NNNNN.png``, and the lists of the splits.

    The numbers count from 0. Depth is 16-bit millimeters, so it moves by at most 0.5 mm. The lists come last, and that
    of train last of all: until then ``out`` is no training set. Called again after an interruption, it resumes.

    Args:
        mat: The labelled file, or the folder that holds it.
        out: A folder that is new, empty, or holds this same work unfinished.
        ground_truth: "raw" or "filled": which depth to write.
        advance: Called after each frame with how many are done and how many there are.

    Raises:
        InputError: If the labelled file is wrong, ``out`` holds other files, or a file cannot be written.
    """
    layout = LabelledLayout(Source(Path(mat), ground_truth=ground_truth))
    out = require_writable(out)
    _claim(out, {"layout": "lists", "ground_truth": layout.ground_truth, "source": layout.identity()})
    done, total, lists = 0, sum(map(layout.count, SPLITS)), {}
    for split in ("test", "val", "train"):
        rows = []
        for frame in range(layout.count(split)):
            image_name, depth_name = _names(layout, split, frame)
            if not ((out / image_name).is_file() and (out / depth_name).is_file()):  # each is whole or not there
                image, depth = layout.read(split, frame)
                write_image_png(out / image_name, image)
                write_depth_png(out / depth_name, depth)
            rows.append(f"{image_name} {depth_name} {NYU_INTRINSICS[0]}\n")
            done += 1
            advance(done, total)
        lists[split] = "".join(rows)
    for split, text in lists.items():
        if text:
            write_text(out / f"nyudepthv2_{split}_files_with_gt.txt", text)


def _names(layout: LabelledLayout, split: str, frame: int) -> tuple[str, str]:
    folder, label = layout.recording(split, frame), layout.label(split, frame)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", folder):
        raise InputError(f"{layout.where(split, frame)}: its scene {folder!r} is no name for a folder")
    return f"{folder}/{label}.png", f"{folder}/{label.replace('rgb', 'sync_depth')}.png"


def _claim(out: Path, marker: dict[str, str]) -> None:
    """Make sure that ``out`` holds nothing but this work, and mark it as such."""
    path, text = out / "prepare.json", json.dumps(marker, indent=2) + "\n"
    if path.is_file() and path.read_text(errors="replace") == text:
        for left in out.glob("*/.*.part"):  # of a run that was killed
            left.unlink(missing_ok=True)
    elif any(out.iterdir()):
        raise InputError(f"{out}: holds other files, or another ground truth or source; name a new or empty folder")
    else:
        write_text(path, text)
