"""What a layout is: the one seam between files (or rays) and everything that learns from them."""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from depthnet.image import image_size, read_depth, read_image
from depthnet.types import DepthRange, InputError

__all__ = [
    "SPLITS",
    "DepthFiles",
    "FileLayout",
    "FileRow",
    "Layout",
    "Pair",
    "Truth",
    "consecutive_runs",
    "find_truth",
    "hold_out_scenes",
    "hold_out_val",
    "make_rows",
    "name_scenes",
    "read_rows",
]

SPLITS = ("train", "val", "test")

Truth = Literal["raw", "filled"]
Pair = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]


class Layout(ABC):
    """Pairs of one data set, by split and number, whatever form they lie in.

    A frame is named by its split and its place in it, counted from 0. Nothing is decoded until :meth:`read`.

    Attributes:
        name: The layout's name, as ``data.layout`` takes it.
        description: What this data is and where it lies, for the first line of a run and its tables.
        depth_range: Depths that count as valid in this data [m].
        truth: "filled" when depth has no holes, "raw" when it has the sensor's.
        scene_rule: How :meth:`scene` tells scenes apart, in words; reports print it.
    """

    name: str
    description: str
    depth_range: DepthRange
    truth: Truth
    scene_rule: str

    @abstractmethod
    def count(self, split: str) -> int:
        """Return the number of frames in a split; 0 where the data set has no such split."""

    @abstractmethod
    def read(self, split: str, frame: int) -> Pair:
        """Read one pair at its full size.

        Returns:
            The image, RGB ``uint8`` of shape ``(H, W, 3)``, and depth [m], ``float32`` of shape ``(H, W)``, 0: missing.

        Raises:
            InputError: If a file is missing, torn, of another bit depth, or the two differ in size; it names both.
        """

    @abstractmethod
    def size(self, split: str, frame: int) -> tuple[int, int]:
        """Return (height, width) of a frame's truth without decoding it."""

    @abstractmethod
    def scene(self, split: str, frame: int) -> str:
        """Return the name of the frame's scene; frames of one scene are not independent."""

    @abstractmethod
    def label(self, split: str, frame: int) -> str:
        """Return a name of the frame that is unique in its split, such as ``train/rgb_00018``."""

    @abstractmethod
    def where(self, split: str, frame: int) -> str:
        """Return the place to look when something is wrong with a frame, such as ``nyu2_train.csv:12``."""


def find_truth(layout: Layout, stated: str, samples: int = 32) -> Truth:
    """Decide whether a layout's depth is raw (has holes) or filled (has none).

    Args:
        layout: The data.
        stated: "raw" or "filled" as the user says, or "auto": filled when no sampled frame has a hole.
        samples: Frames looked at for "auto", evenly spaced over the first split among val, test and train that has any.

    Raises:
        InputError: If ``stated`` is another word.
    """
    if stated == "raw" or stated == "filled":
        return stated  # type: ignore[return-value]  # narrowed to the two literals
    if stated != "auto":
        raise InputError(f"data.truth={stated}: it is raw, filled or auto")
    for split in ("val", "test", "train"):
        count = layout.count(split)
        if count:
            frames = np.unique(np.linspace(0, count - 1, min(samples, count)).astype(int))
            holes = any((layout.read(split, int(frame))[1] <= 0).any() for frame in frames)
            return "raw" if holes else "filled"
    return "filled"


def consecutive_runs(numbers: Sequence[int | None]) -> list[int]:
    """Number the runs of consecutive frame numbers: a video's neighbours show one scene.

    Args:
        numbers: A frame number for each frame, None where a name holds none.

    Returns:
        The run of each frame, counted from 0 in the order of the numbers; a frame without a number is a run alone.

    Example:
        >>> consecutive_runs([18, 19, 250, 20, None])
        [0, 0, 1, 0, 2]
    """
    order = sorted(range(len(numbers)), key=lambda i: (numbers[i] is None, numbers[i] or 0))
    runs = [0] * len(numbers)
    run, last = -1, None
    for i in order:
        number = numbers[i]
        if number is None or last is None or number not in (last, last + 1):
            run += 1
        runs[i] = run
        last = number
    return runs


class FileRow(NamedTuple):
    """One pair of files, as a list names it."""

    image: str
    depth: str
    scene: str
    where: str


@dataclass(frozen=True)
class DepthFiles:
    """How a split's depth files are to be read: bits per level, and what a level stands for [m]."""

    bits: int
    metres_per_level: float


class FileLayout(Layout):
    """A layout whose pairs are named, row by row, in list files; a subclass only says how the rows are found.

    Args:
        root: The folder that all paths are relative to.
        rows: The pairs of each split.
        depth_files: How the depth files of each split are read.
        depth_range: Depths that count as valid [m].
        scene_rule: How the rows' scenes were told apart, in words.

    Raises:
        InputError: If files are missing or a path leaves the root; it names the first row and counts the rest.
    """

    def __init__(
        self,
        root: Path,
        rows: dict[str, list[FileRow]],
        depth_files: dict[str, DepthFiles],
        depth_range: DepthRange,
        scene_rule: str,
    ) -> None:
        self.root = root
        self.description = f"NYU, {self.name} layout, {root}"
        self.depth_range = depth_range
        self.scene_rule = scene_rule
        self._rows = rows
        self._depth_files = depth_files
        self._check()

    def count(self, split: str) -> int:
        """Return the number of frames in a split; 0 where the data set has no such split."""
        return len(self._rows.get(split, ()))

    def read(self, split: str, frame: int) -> Pair:
        """Read one pair at its full size; see :meth:`Layout.read`."""
        row, files = self._rows[split][frame], self._depth_files[split]
        try:
            image = read_image(self.root / row.image)
            depth = read_depth(self.root / row.depth, files.metres_per_level, files.bits)
        except InputError as error:
            raise InputError(f"{row.where}: {error}") from None
        if image.shape[:2] != depth.shape:
            (h, w), (dh, dw) = image.shape[:2], depth.shape
            raise InputError(f"{row.where}: {row.image} has {w}x{h} pixels and {row.depth} {dw}x{dh}; they must agree")
        return image, depth

    def size(self, split: str, frame: int) -> tuple[int, int]:
        """Return (height, width) of a frame's depth file from its header."""
        row = self._rows[split][frame]
        try:
            return image_size(self.root / row.depth)
        except InputError as error:
            raise InputError(f"{row.where}: {error}") from None

    def scene(self, split: str, frame: int) -> str:
        """Return the name of the frame's scene."""
        return self._rows[split][frame].scene

    def label(self, split: str, frame: int) -> str:
        """Return the image's path in the root without its suffix."""
        return str(PurePosixPath(self._rows[split][frame].image).with_suffix(""))

    def where(self, split: str, frame: int) -> str:
        """Return the list file and row that name the frame."""
        return self._rows[split][frame].where

    def _check(self) -> None:
        missing = []
        for rows in self._rows.values():
            for row in rows:
                for name in (row.image, row.depth):
                    if name.startswith("/") or ".." in PurePosixPath(name).parts:
                        raise InputError(f"{row.where}: {name} leaves the data root {self.root}; mend the list")
                    if not os.path.exists(os.path.join(self.root, name)):  # noqa: PTH110, PTH118  100,000 calls
                        missing.append(f"{row.where}: {name} is missing")
        if missing:
            more = f", and {len(missing) - 1} more files are" if len(missing) > 1 else ""
            raise InputError(f"{missing[0]}{more} in {self.root}; restore the files or take out the rows")


def read_rows(path: Path, separator: str | None, columns: int) -> list[tuple[str, list[str]]]:
    """Read a list file: the fields of each row that is not empty, with the place it stands.

    Args:
        path: A UTF-8 text file.
        separator: What parts the fields; None for white space.
        columns: The least number of fields a row must have.

    Returns:
        ("file.txt:12", fields) for each row.

    Raises:
        InputError: If the file cannot be read, is empty, or a row has too few fields.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a UTF-8 text file") from None
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = [field.strip() for field in line.split(separator)]
        if not any(fields):
            continue
        if len(fields) < columns:
            raise InputError(f"{path.name}:{number}: {len(fields)} field(s) where {columns} are needed: {line[:80]!r}")
        found.append((f"{path.name}:{number}", fields))
    if not found:
        raise InputError(f"{path}: the list is empty")
    return found


def name_scenes(images: Sequence[str]) -> tuple[list[str], str]:
    """Tell scenes apart by what the names show: the folder when there are several, else runs of frame numbers.

    Args:
        images: Image paths of one split.

    Returns:
        A scene name for each image, and the rule in words.

    Example:
        >>> name_scenes(["a/rgb_00002.jpg", "a/rgb_00003.jpg", "a/rgb_00009.jpg"])
        (['run 00002', 'run 00002', 'run 00009'], 'runs of consecutive frame numbers')
    """
    folders = [str(PurePosixPath(image).parent) for image in images]
    if len(set(folders)) > 1:
        return [PurePosixPath(folder).name for folder in folders], "folders"
    digits = [re.findall(r"\d+", PurePosixPath(image).stem) for image in images]
    numbers = [int(found[-1]) if found else None for found in digits]
    runs = consecutive_runs(numbers)
    names: dict[int, str] = {}
    for image, number, run in sorted(zip(images, numbers, runs, strict=True), key=lambda item: (item[1] or 0, item[0])):
        names.setdefault(run, f"run {number:05d}" if number is not None else f"frame {PurePosixPath(image).stem}")
    return [names[run] for run in runs], "runs of consecutive frame numbers"


def make_rows(found: Sequence[tuple[str, Sequence[str]]], clean: Callable[[str], str]) -> tuple[list[FileRow], str]:
    """Turn a list's fields into rows with scenes.

    Args:
        found: As :func:`read_rows` gives it; the first two fields are image and depth.
        clean: Makes a path as the list has it one that is relative to the root.

    Returns:
        The rows, and the rule by which scenes were told apart, in words.
    """
    images = [clean(fields[0]) for _, fields in found]
    scenes, rule = name_scenes(images)
    rows = [
        FileRow(image, clean(fields[1]), scene, where)
        for image, scene, (where, fields) in zip(images, scenes, found, strict=True)
    ]
    return rows, rule


def hold_out_val(rows: Sequence[FileRow]) -> tuple[list[FileRow], list[FileRow]]:
    """Part training rows into those to train on and, whole scenes of them, those to validate on.

    Raises:
        InputError: As :func:`hold_out_scenes`.
    """
    held_out = hold_out_scenes([row.scene for row in rows])
    return [row for row in rows if row.scene not in held_out], [row for row in rows if row.scene in held_out]


def hold_out_scenes(scenes: Sequence[str], share: float = 0.05) -> set[str]:
    """Choose whole scenes for validation, the same ones every time and whatever the order.

    Args:
        scenes: The scene of each training frame.
        share: The least share of the frames to hold out.

    Returns:
        The scenes held out; never all of them.

    Raises:
        InputError: If there is only one scene, which cannot be both trained on and validated on.
    """
    counts = Counter(scenes)
    if len(counts) < 2:
        raise InputError("all training frames are of one scene, so none can be held out; give a list of val frames")
    chosen: set[str] = set()
    held = 0
    for scene in sorted(counts, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        if held >= share * len(scenes) or len(chosen) == len(counts) - 1:
            break
        chosen.add(scene)
        held += counts[scene]
    return chosen
