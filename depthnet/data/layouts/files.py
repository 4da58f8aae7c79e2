"""Layouts whose pairs are files named row by row in lists: all that they share."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import posixpath
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple, TypeVar

from depthnet.core.camera import Intrinsics
from depthnet.core.images import depth_bits, image_size, read_depth, read_image
from depthnet.core.types import InputError
from depthnet.data.layouts.layout import SPLITS, Finding, Pair, Source, SourceLayout, find_ground_truth
from depthnet.data.layouts.official import NYU_CAMERA, NYU_DEPTH_RANGE, is_nyu_focal, nyu_camera
from depthnet.data.layouts.scenes import frame_number, has_labelled_numbers, name_scenes

Row = TypeVar("Row")


class FileRow(NamedTuple):
    """One pair of files, as a list names it; paths are relative to the split's root."""

    image: str
    depth: str
    where: str
    scene: str = ""
    bits: int = 16  # of a level of the depth file; 32 for floats
    meters_per_level: float = 1e-3
    intrinsics: Intrinsics | None = None
    focal: float | None = None  # as a list states it [px]

    @property
    def label(self) -> str:
        """The image's path without its suffix."""
        return str(PurePosixPath(self.image).with_suffix(""))


class FileLayout(SourceLayout):
    """A layout of image and depth files; a subclass only finds the rows.

    Rows without a scene get one by their names, and whole scenes are held out where there are no val rows. Rows that
    name no pair of files are left out, with a finding.

    Args:
        source: What the user stated.
        roots: The folder that each split's paths are relative to.
        rows: The pairs of each split.
        findings: What was wrong with the lists themselves.
        notes: What was left out or assumed without being wrong.

    Attributes:
        depth_range: The depths that count where the user states none [m]; NYU's, unless a subclass states another.
    """

    depth_range = NYU_DEPTH_RANGE
    findings: list[Finding]
    numbered: list[str]
    _rows: dict[str, list[FileRow]]

    def __init__(
        self,
        source: Source,
        roots: Mapping[str, Path],
        rows: Mapping[str, list[FileRow]],
        findings: Sequence[Finding] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.description = f"{'NYU' if self.nyu else 'pairs'}, {self.name} layout, {source.root}"
        self.depth_range = source.depth_range or self.depth_range
        self.val = source.val
        self.notes, self.findings = list(notes), list(findings)
        self._roots = dict(roots)
        self._sizes: dict[tuple[str, int], tuple[int, int]] = {}  # of the frames that were asked for
        self._status: list[tuple[str, str, int, int]] = []  # split, path, bytes, time of change: for identity()
        if not any(rows.values()):
            first = f" ({findings[0].where}: {findings[0].message})" if findings else ""
            raise InputError(f"{source.root}: no pairs there{first}")
        scenes, self.scene_rule = name_scenes({split: [row.image for row in rows[split]] for split in rows}, self.nyu)
        if rows.get("train") and all(row.scene for row in rows["train"]):
            self.scene_rule = "the scene column"
        named = {
            split: [row._replace(scene=row.scene or scene) for row, scene in zip(some, scenes[split], strict=True)]
            for split, some in rows.items()
        }
        train, val = named.get("train", []), named.get("val", [])
        named["train"], named["val"] = self._hold_out_val(train, val, [row.image for row in (*train, *val)])
        self._rows = {split: self._existing(split, some) for split, some in named.items()}
        self._find_doubles()
        self._find_shifted()
        self.numbered = []
        if self.nyu:
            for group in (["train", "val"], ["test"]):  # val may be held out of train
                if has_labelled_numbers([row.image for split in group for row in self._rows.get(split, ())]):
                    self.numbered += group
            others = any(not is_nyu_focal(row.focal) for some in self._rows.values() for row in some)
            self.camera = "the lists' focal lengths" if others else NYU_CAMERA
        self.ground_truth = find_ground_truth(self, source.ground_truth)

    def read(self, split: str, frame: int) -> Pair:
        """Read one pair at its full size; see :meth:`Layout.read`."""
        row = self._rows[split][frame]
        image_path, depth_path = self.files(split, frame)
        with explained(row.where):
            image = read_image(image_path)
            depth = read_depth(depth_path, row.meters_per_level, row.bits)
            if image.shape[:2] != depth.shape:
                (h, w), (dh, dw) = image.shape[:2], depth.shape
                message = f"{row.image} has {w}x{h} pixels and {row.depth} {dw}x{dh}; they must agree"
                raise InputError(message, "sizes_differ")
        return image, depth

    def size(self, split: str, frame: int) -> tuple[int, int]:
        """Return (height, width) of a frame's depth file from its header."""
        if (split, frame) not in self._sizes:
            with explained(self.where(split, frame)):
                self._sizes[split, frame] = image_size(self.files(split, frame)[1])
        return self._sizes[split, frame]

    def identity(self) -> str:
        """Return a digest of the rows, and of each file's path, size and time of change."""
        order = {
            split: [(row.image, (row.bits, row.meters_per_level)) for row in rows] for split, rows in self._rows.items()
        }
        forms = sorted({form for rows in order.values() for _, form in rows})
        return hashlib.sha256(json.dumps([self.name, forms, order, self._status]).encode()).hexdigest()

    def files(self, split: str, frame: int) -> tuple[Path, ...]:
        """Return the paths of image and depth."""
        row, root = self._rows[split][frame], self._roots[split]
        return root / row.image, root / row.depth

    def meters_per_level(self, split: str, frame: int) -> float | None:
        """Return what one level of the depth file stands for [m]; None for a file of floats."""
        row = self._rows[split][frame]
        return None if row.bits == 32 else row.meters_per_level

    def intrinsics(self, split: str, frame: int) -> Intrinsics | None:
        """Return the camera that the row states; for NYU that of its focal length, else NYU's own."""
        row, size = self._rows[split][frame], self.size(split, frame)
        if row.intrinsics or not self.nyu:
            return row.intrinsics
        with explained(row.where):
            return nyu_camera(size, row.focal)

    def _existing(self, split: str, rows: list[FileRow]) -> list[FileRow]:
        """Return the rows whose two files lie in the root; note the state of every file."""
        root, kept = self._roots[split], []
        for row in rows:
            names = row.image, row.depth
            try:
                states = [os.stat(os.path.join(root, name)) for name in names]  # noqa: PTH116, PTH118  100,000 of them
            except (OSError, ValueError):
                states = []
            if states and all(stat.S_ISREG(state.st_mode) for state in states):
                kept.append(row)
                self._status += [(split, n, s.st_size, s.st_mtime_ns) for n, s in zip(names, states, strict=True)]
            else:
                name = next((name for name in names if not os.path.isfile(root / name)), row.depth)  # noqa: PTH113
                message = f"{name} is missing in {root}; restore the file or take out the row"
                self.findings.append(Finding("missing", row.where, message, (split,)))
        return kept

    def _find_doubles(self) -> None:
        seen: dict[Path, tuple[str, FileRow]] = {}
        for split, row in ((split, row) for split, some in self._rows.items() for row in some):
            files = {name: self._roots[split] / name for name in (row.image, row.depth)}
            for name in [name for name in files if files[name] in seen][:1]:
                other, first = seen[files[name]]
                message = f"{name} stands in {first.where} already; take one of the rows out"
                self.findings.append(Finding("duplicate_row", row.where, message, tuple(dict.fromkeys((other, split)))))
            for file in files.values():
                seen.setdefault(file, (split, row))

    def _find_shifted(self) -> None:
        """Find rows whose two names hold different frame numbers, where nearly all rows agree."""
        for split, some in self._rows.items():
            odd = [row for row in some if frame_number(row.image) != frame_number(row.depth)]
            for row in odd if len(odd) <= len(some) / 2 else ():
                message = f"{row.image} stands beside {row.depth}, another frame's depth; correct the list"
                self.findings.append(Finding("shifted", row.where, message, (split,)))


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Put the place to look before an error."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}", error.finding) from None


def path_inside(root: Path, name: str) -> str:
    """Return a path that a list names as it lies below ``root``: also one written for Windows, or an absolute one.

    Raises:
        InputError: If it is not below it.

    Example:
        >>> [path_inside(Path("/data"), name) for name in (r"a\\b.png", "/data/a/b.png", "a/c/../b.png")]
        ['a/b.png', 'a/b.png', 'a/b.png']
    """
    path = PurePosixPath(posixpath.normpath(name.replace("\\", "/")))
    for base in (os.path.abspath(root), os.path.realpath(root)):  # noqa: PTH100  as it was written, and links resolved
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        raise InputError(f"{name} leaves the data root {root}; write paths below it", "leaves_root")
    return str(path)


def common_bits(root: Path, rows: Sequence[FileRow], otherwise: int) -> int:
    """Return the bits that most depth files have, of some that can be read; those of all others must be the same."""
    found: Counter[int] = Counter()
    for row in rows[:: max(1, len(rows) // 32)]:
        with suppress(InputError):
            found[depth_bits(root / row.depth)] += 1
    return found.most_common(1)[0][0] if found else otherwise


def split_rows(path: Path, delimiters: str = "") -> list[tuple[str, list[str]]]:
    """Read a list file: the place of each row that is not empty, such as "file.txt:12", and its fields.

    Args:
        path: A UTF-8 text file.
        delimiters: What may part the fields; the first of them that the first row holds does. Empty: white space.

    Raises:
        InputError: If the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        mark = next((mark for mark in delimiters if lines and mark in lines[0]), delimiters[:1])
        parted = [next(csv.reader([line], delimiter=mark), []) if mark else line.split() for line in lines]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path}: not a UTF-8 text file of rows") from None
    places = ((f"{path.name}:{number}", [field.strip() for field in row]) for number, row in enumerate(parted, start=1))
    return [(where, fields) for where, fields in places if any(fields)]


def parse_rows(
    rows: Sequence[tuple[str, list[str]]],
    parse: Callable[[str, list[str]], Row],
    findings: list[Finding],
    splits: tuple[str, ...] = SPLITS,
) -> list[Row]:
    """Return what ``parse`` makes of each row's place and fields; a row that it refuses becomes a finding."""
    parsed: list[Row] = []
    for where, fields in rows:
        try:
            parsed.append(parse(where, fields))
        except ValueError as error:
            name = "leaves_root" if isinstance(error, InputError) and error.finding == "leaves_root" else "row"
            findings.append(Finding(name, where, f"{error}; correct or take out the row", splits))
    return parsed
