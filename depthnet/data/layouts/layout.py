"""What a layout is: the one seam between files (or rays) and everything that trains on them."""

from __future__ import annotations

import tomllib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from depthnet.core.camera import Intrinsics
from depthnet.core.types import DepthRange, InputError
from depthnet.data.layouts.scenes import part_val

SPLITS = ("train", "val", "test")

Row = TypeVar("Row")
GroundTruth = Literal["raw", "filled"]
Pair = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]

_TABLES = tomllib.loads(Path(__file__).with_name("findings.toml").read_text(encoding="utf-8"))

FINDINGS: dict[str, str] = _TABLES["findings"]
"""Everything that can be wrong with data, by the name under which ``data.allow`` lets it pass."""

UNREADABLE = frozenset(_TABLES["unreadable"])
"""Those that leave no pair to train on, so that they cannot be allowed."""


class Finding(NamedTuple):
    """Something wrong with the data.

    Attributes:
        name: One of :data:`FINDINGS`.
        where: The place to look, such as ``nyu2_train.csv:12``.
        message: What is wrong there.
        splits: The splits that it invalidates.
    """

    name: str
    where: str
    message: str
    splits: tuple[str, ...]


class Layout(ABC):
    """Pairs of one data set, by split and number, in any form.

    A frame is named by its split and its place in it, counted from 0. Nothing is decoded until :meth:`read`.

    Attributes:
        name: The layout's name, as ``data.layout`` takes it.
        description: What this data is and where it lies, for the first line of a run and its tables.
        depth_range: Depths that count as valid in this data [m].
        ground_truth: "filled" when depth has no holes, "raw" when it has the sensor's.
        scene_rule: How scenes are recognized, in words; reports print it.
        nyu: Whether this is NYU Depth V2, whose test split has official frames.
        numbered: The splits whose frames have the numbers of NYU's labelled set; those of a video are its own.
        val: How val frames were chosen, as :class:`Source` has it.
        findings: What was found wrong when the layout was opened, without decoding anything.
        notes: What was left out or assumed, in words, without being wrong.
        object_names: The names of the object classes, where the data has them; class 0 is "unlabelled".
        camera: Where the camera is known from, such as "NYU's" or "K.txt"; empty where it is not.
    """

    name: str
    description: str
    depth_range: DepthRange
    ground_truth: GroundTruth
    scene_rule: str
    nyu: bool = False
    numbered: Collection[str] = ()
    val: str = "scenes"
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = ()
    object_names: Sequence[str] = ()
    camera: str = ""
    _rows: Mapping[str, Sequence[Any]] = {}  # by split, for each frame: its scene, label and where

    def count(self, split: str) -> int:
        """Return the number of frames in a split; 0 where the data set has no such split."""
        return len(self._rows.get(split, ()))

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
        """Return (height, width) of a frame's ground truth without decoding it."""

    def scene(self, split: str, frame: int) -> str:
        """Return the name of the frame's scene; frames of one scene are not independent."""
        return str(self._rows[split][frame].scene)

    def label(self, split: str, frame: int) -> str:
        """Return a name of the frame that is unique in its split, such as ``train/rgb_00018``."""
        return str(self._rows[split][frame].label)

    def where(self, split: str, frame: int) -> str:
        """Return the place to look when something is wrong with a frame, such as ``nyu2_train.csv:12``."""
        return str(self._rows[split][frame].where)

    def identity(self) -> str:
        """Return a digest of all that decides what :meth:`read` gives, without decoding: paths, sizes, times, unit."""
        return ""

    def files(self, split: str, frame: int) -> tuple[Path, ...]:
        """Return the files that hold this pair alone: image and depth; none where frames share a file or have none."""
        return ()

    def meters_per_level(self, split: str, frame: int) -> float | None:
        """Return what one level of the stored depth stands for [m]; None where depth is stored as floats."""
        return None

    def intrinsics(self, split: str, frame: int) -> Intrinsics | None:
        """Return the camera of a frame's image, in pixels of what :meth:`read` gives; None where it is not known.

        Raises:
            InputError: If what is stated of it cannot be, or is of another image size.
        """
        return None

    def scene_type(self, split: str, frame: int) -> str:
        """Return what kind of room a frame shows, such as "kitchen"; empty where the data does not state it."""
        return ""

    def objects(self, split: str, frame: int) -> npt.NDArray[np.uint16] | None:
        """Return the object class of each pixel, shape ``(H, W)``; None where the data has none."""
        return None


@dataclass(frozen=True)
class Source:
    """Where data lies and how it is to be understood, as the user states it; ``data.<name>`` in the config.

    Attributes:
        root: The folder, or the file of the ``labelled`` layout.
        ground_truth: "raw", "filled" or "auto".
        depth_range: Depths that count as valid [m]; not stated: 1 mm to 10 m for NYU, an error for one's own pairs.
        val: "scenes": val frames as the data names them, else whole scenes held out; "random_frames": single frames.
        test_root: Where the test split's files lie, for ``lists``; found below ``root`` if not stated.
        lists: The folder of the list files for ``lists``, the CSV file for ``folder``; ``root`` if not stated.
        unit: What a level of depth stands for, for ``folder``: "mm", "cm", "m" or a number of meters such as "10/255".
        focal: The focal length of the camera, for ``folder`` [px of the stored image].
        fov_x: Its horizontal field of view, for ``folder`` [degrees]; instead of ``focal``.

    Raises:
        InputError: If a value is none of those named.
    """

    root: Path
    ground_truth: str = "auto"
    depth_range: DepthRange | None = None
    val: str = "scenes"
    test_root: Path | None = None
    lists: Path | None = None
    unit: str | float | None = None
    focal: float | None = None
    fov_x: float | None = None

    def __post_init__(self) -> None:
        if self.ground_truth not in ("raw", "filled", "auto"):
            raise InputError(f"data.ground_truth={self.ground_truth}: it is raw, filled or auto")
        if self.val not in ("scenes", "random_frames"):
            raise InputError(f"data.val={self.val}: it is scenes or random_frames")
        if self.unit is not None:
            read_unit("data.unit", self.unit)
        if self.focal is not None and self.fov_x is not None:
            raise InputError(f"data.focal={self.focal} and data.fov_x={self.fov_x}: give one of them")

    @classmethod
    def of(cls, root: Any, **options: Any) -> Source:
        """Make one of plain values: paths as strings, a mapping for the depth range; None stands for not stated."""
        given = {name: value for name, value in options.items() if value is not None}
        for name, read in (("depth_range", DepthRange.of), ("test_root", _path), ("lists", _path)):
            if name in given:
                given[name] = read(given[name])
        return cls(_path(root), **given)


def _path(value: Any) -> Path:
    return Path(value).expanduser()


class SourceLayout(Layout):
    """A layout that is opened from a :class:`Source`; what ``data.layout`` chooses among.

    Attributes:
        known_by: The file or files it is known by, in words.
        takes: The fields of a source that mean something to it, beside those that all take.
    """

    known_by: ClassVar[str]
    takes: ClassVar[frozenset[str]] = frozenset()
    notes: list[str]

    @abstractmethod
    def __init__(self, source: Source) -> None: ...

    @staticmethod
    @abstractmethod
    def holds(source: Source) -> bool:
        """Return whether the source is of this layout, by the names of its files."""

    def _hold_out_val(self, train: list[Row], val: list[Row], names: Sequence[str]) -> tuple[list[Row], list[Row]]:
        """Return the rows to train on and those to validate on; as they are, and a note, where none can be held out."""
        try:
            scenes = [row.scene for row in train]  # type: ignore[attr-defined]
            return part_val(train, val, scenes, names, self.val, self.scene_rule)
        except InputError as error:  # who only looks at the data does not need val frames
            self.notes.append(f"no val frames: {error}")
            return train, val


def read_unit(name: str, unit: str | float) -> float:
    """Return what one level of depth stands for [m].

    Raises:
        InputError: If it is no unit; the message begins with ``name``.

    Example:
        >>> read_unit("data.unit", "mm"), round(read_unit("data.unit", "10/255"), 5)
        (0.001, 0.03922)
    """
    try:
        level = float({"mm": 1e-3, "cm": 1e-2, "m": 1.0}.get(str(unit).strip()) or Fraction(str(unit).strip()))
    except (ValueError, ZeroDivisionError, OverflowError):
        level = 0.0
    if not level > 0:
        raise InputError(f"{name}={unit}: it is mm, cm, m, or meters per level as a number above 0, such as 10/255")
    return level


def sample_frames(layout: Layout, split: str, most: int = 100) -> list[int]:
    """Return up to ``most`` frames of a split, evenly spaced over it."""
    count = layout.count(split)
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)).tolist() if count else []


def first_frames(layout: Layout, splits: Sequence[str] = SPLITS, most: int = 100) -> list[tuple[str, int]]:
    """Return up to ``most`` frames, evenly spaced over the first of the splits that has any."""
    split = next(filter(layout.count, splits), splits[0])
    return [(split, frame) for frame in sample_frames(layout, split, most)]


def describe_camera(layout: Layout) -> str:
    """Return in words which camera is known, of up to 100 frames of the first split that has any."""
    frames = first_frames(layout)
    found: Counter[str] = Counter()
    for split, frame in frames:
        with suppress(InputError):  # the data's check reports it
            if camera := layout.intrinsics(split, frame):
                height, width = layout.size(split, frame)
                found[f"fx {camera.fx:.1f} px at {width}x{height}"] += 1
    if not found:
        return "unknown"
    words = found.most_common(1)[0][0] + (f" ({layout.camera})" if layout.camera else "")
    words += f", {len(found) - 1} others" if len(found) > 1 else ""
    unknown = 1 - found.total() / len(frames)
    return words + (f", unknown for {unknown:.0%} of the frames" if unknown else "")


def find_ground_truth(layout: Layout, stated: str, samples: int = 32) -> GroundTruth:
    """Decide whether a layout's depth is raw (has holes) or filled (has none).

    Args:
        layout: The data.
        stated: "raw" or "filled" as the user states, or "auto": filled when no sampled frame has a hole.
        samples: Frames looked at for "auto", evenly spaced over the first split among val, test and train that has any;
            one that cannot be read is skipped.
    """
    if stated != "auto":
        return "raw" if stated == "raw" else "filled"
    for split, frame in first_frames(layout, ("val", "test", "train"), samples):
        with suppress(InputError):
            if (layout.read(split, frame)[1] <= 0).any():
                return "raw"
    return "filled"
