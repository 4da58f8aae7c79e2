"""Layouts whose pairs are files named row by row in lists: all that they share."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import re
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from depthnet.core.camera import Intrinsics, from_focal
from depthnet.core.images import depth_bits, image_size, read_depth, read_image
from depthnet.core.types import DepthRange, InputError
from depthnet.data.layouts.layout import Finding, Pair, Source, SourceLayout, find_truth
from depthnet.data.layouts.official import NYU_INTRINSICS
from depthnet.data.layouts.scenes import frame_number, name_scenes, part_val


class DepthFiles(NamedTuple):
    """How depth files are read: bits per level (32: floats), and what a level stands for [m]."""

    bits: int
    metres_per_level: float


MAX_LIST_BYTES = 64 << 20
"""A larger list is refused; all 407,000 raw frames of NYU take 40 MB."""

NYU_CAMERA = "NYU's"
"""Where the camera of NYU's images is known from, in words."""

_NYU_SIZE = (480, 640)
_ROUNDED = 0.05  # lists state NYU's focal length as 518.8579 or 518.9 [px]

MILLIMETRES = DepthFiles(bits=16, metres_per_level=1e-3)


class FileRow(NamedTuple):
    """One pair of files, as a list names it; paths are relative to the split's root."""

    image: str
    depth: str
    scene: str
    where: str
    depth_files: DepthFiles = MILLIMETRES
    intrinsics: Intrinsics | None = None
    focal: float | None = None  # as a list states it [px]


class FileLayout(SourceLayout):
    """A layout of image and depth files; a subclass only says how the rows are found.

    Rows that name no pair of files are left out, with a finding.

    Args:
        source: What the user stated.
        roots: The folder that each split's paths are relative to.
        rows: The pairs of each split.
        scene_rule: How the rows' scenes were told apart, in words.
        findings: What was wrong with the lists themselves.
        notes: What was left out or assumed without being wrong.
    """

    def __init__(
        self,
        source: Source,
        roots: Mapping[str, Path],
        rows: Mapping[str, list[FileRow]],
        scene_rule: str,
        findings: Sequence[Finding] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.description = f"{'NYU' if self.nyu else 'pairs'}, {self.name} layout, {source.root}"
        if source.depth_range is None and not self.nyu:
            raise InputError(
                f"{source.root}: say which depths your sensor measures, in metres: "
                "data.depth_range='{min: 0.1, max: 20}' of train.py, --depth-range 0.1 20 of the tools"
            )
        self.depth_range = source.depth_range or DepthRange(1e-3, 10.0)
        self.scene_rule = scene_rule
        self.val = source.val
        self.notes = list(notes)
        if self.nyu:
            others = any(_is_others(row.focal) for some in rows.values() for row in some)
            self.camera = "the lists' focal lengths" if others else NYU_CAMERA
        self._roots = dict(roots)
        self._sizes: dict[tuple[str, int], tuple[int, int]] = {}  # of the frames that were asked for
        self._status: list[
            tuple[str, str, int, int]
        ] = []  # split, path, bytes, time of change: what identity() digests
        found = list(findings)
        self._rows = {split: self._existing(split, rows[split], found) for split in rows}
        _find_doubles(self._rows, self._roots, found)
        _find_shifted(self._rows, found)
        self.findings = found
        self.truth = find_truth(self, source.truth)

    def count(self, split: str) -> int:
        """Return the number of frames in a split; 0 where the data set has no such split."""
        return len(self._rows.get(split, ()))

    def read(self, split: str, frame: int) -> Pair:
        """Read one pair at its full size; see :meth:`Layout.read`."""
        row = self._rows[split][frame]
        image_path, depth_path = self.files(split, frame)
        try:
            image = read_image(image_path)
            depth = read_depth(depth_path, row.depth_files.metres_per_level, row.depth_files.bits)
        except InputError as error:
            raise InputError(f"{row.where}: {error}", error.finding) from None
        if image.shape[:2] != depth.shape:
            (h, w), (dh, dw) = image.shape[:2], depth.shape
            message = f"{row.where}: {row.image} has {w}x{h} pixels and {row.depth} {dw}x{dh}; they must agree"
            raise InputError(message, "sizes_differ")
        return image, depth

    def size(self, split: str, frame: int) -> tuple[int, int]:
        """Return (height, width) of a frame's depth file from its header."""
        if (split, frame) not in self._sizes:
            try:
                self._sizes[split, frame] = image_size(self.files(split, frame)[1])
            except InputError as error:
                raise InputError(f"{self.where(split, frame)}: {error}", error.finding) from None
        return self._sizes[split, frame]

    def scene(self, split: str, frame: int) -> str:
        """Return the name of the frame's scene."""
        return self._rows[split][frame].scene

    def label(self, split: str, frame: int) -> str:
        """Return the image's path in the root without its suffix."""
        return str(PurePosixPath(self._rows[split][frame].image).with_suffix(""))

    def where(self, split: str, frame: int) -> str:
        """Return the list file and row that name the frame."""
        return self._rows[split][frame].where

    def identity(self) -> str:
        """Return a digest of the rows, and of each file's path, size and time of change."""
        forms = sorted({row.depth_files for rows in self._rows.values() for row in rows})
        order = {split: [(row.image, row.depth_files) for row in rows] for split, rows in self._rows.items()}
        return hashlib.sha256(json.dumps([self.name, forms, order, self._status]).encode()).hexdigest()

    def files(self, split: str, frame: int) -> tuple[Path, ...]:
        """Return the paths of image and depth."""
        row, root = self._rows[split][frame], self._roots[split]
        return root / row.image, root / row.depth

    def metres_per_level(self, split: str, frame: int) -> float | None:
        """Return what one level of the depth file stands for [m]; None for a file of floats."""
        bits, metres = self._rows[split][frame].depth_files
        return None if bits == 32 else metres

    def intrinsics(self, split: str, frame: int) -> Intrinsics | None:
        """Return the camera that the row states, else NYU's where this is NYU."""
        row = self._rows[split][frame]
        if row.intrinsics is not None or not self.nyu:
            return row.intrinsics
        try:
            return nyu_camera(self.size(split, frame), row.focal)
        except InputError as error:
            raise InputError(f"{row.where}: {str(error).removeprefix(f'{row.where}: ')}", error.finding) from None

    def _existing(self, split: str, rows: list[FileRow], findings: list[Finding]) -> list[FileRow]:
        """Return the rows whose two files lie in the root; note the state of every file."""
        kept = []
        for row in rows:
            wrong = None
            for name in (row.image, row.depth):
                if _leaves(name):
                    message = f"{name} leaves the data root {self._roots[split]}; write paths below it"
                    wrong = Finding("leaves_root", row.where, message, (split,))
                    break
                try:
                    status = os.stat(os.path.join(self._roots[split], name))  # noqa: PTH116, PTH118  100,000 calls
                except (OSError, ValueError):
                    message = f"{name} is missing in {self._roots[split]}; restore the file or take out the row"
                    wrong = Finding("missing", row.where, message, (split,))
                    break
                if not stat.S_ISREG(status.st_mode):
                    wrong = Finding("unreadable", row.where, f"{name} is no file; mend or take out the row", (split,))
                    break
                self._status.append((split, name, status.st_size, status.st_mtime_ns))
            if wrong:
                findings.append(wrong)
            else:
                kept.append(row)
        return kept


def _is_others(focal: float | None) -> bool:
    return focal is not None and abs(focal - NYU_INTRINSICS[0]) > _ROUNDED


def nyu_camera(size: tuple[int, int], focal: float | None = None) -> Intrinsics | None:
    """Return the camera of an image of NYU.

    NYU's own where the image has NYU's aspect, scaled; else one of the focal length that its list states, its principal
    point in the center; None where no list states one. A focal length that is not NYU's is another camera's.

    Raises:
        InputError: If the focal length cannot be one.

    Example:
        >>> nyu_camera((240, 320)).fx, nyu_camera((480, 360)), nyu_camera((480, 640), 600.0).cx
        (259.42895, None, 319.5)
    """
    own = Intrinsics(*NYU_INTRINSICS)
    if size[0] * _NYU_SIZE[1] == size[1] * _NYU_SIZE[0] and not _is_others(focal):
        return own.resized(_NYU_SIZE, size)
    return None if focal is None else from_focal(focal, size)


def path_inside(root: Path, name: str) -> str:
    """Return a path that a list names as it lies below ``root``: also one written for Windows, or an absolute one.

    What lies elsewhere is returned absolute or beginning with ``..``, and is a finding.

    Example:
        >>> [path_inside(Path("/data"), name) for name in (r"a\\b.png", "/data/a/b.png", "a/../../b.png")]
        ['a/b.png', 'a/b.png', '../b.png']
    """
    if "\\" in name and not (root / name).is_file():  # elsewhere than on Windows a name may hold one
        name = name.replace("\\", "/")
    name = posixpath.normpath(name)
    if _leaves(name):
        for base in (os.path.abspath(root), os.path.realpath(root)):  # noqa: PTH100  as it was written, and links resolved
            with contextlib.suppress(ValueError):
                return Path(name).relative_to(base).as_posix()
    return name


def _leaves(name: str) -> bool:
    return name.startswith("/") or ".." in PurePosixPath(name).parts or re.match("[A-Za-z]:/", name) is not None


def _find_doubles(rows: Mapping[str, list[FileRow]], roots: Mapping[str, Path], findings: list[Finding]) -> None:
    seen: dict[tuple[Path, str], tuple[str, FileRow]] = {}
    for split, some in rows.items():
        for row in some:
            for name in (row.image, row.depth):
                other, first = seen.setdefault((roots[split], name), (split, row))
                if first is not row:
                    splits = (split,) if other == split else (other, split)
                    message = f"{name} stands in {first.where} already; take one of the rows out"
                    findings.append(Finding("duplicate_row", row.where, message, splits))
                    break


def _find_shifted(rows: Mapping[str, list[FileRow]], findings: list[Finding]) -> None:
    """Find rows whose two names hold different frame numbers, where nearly all rows agree."""
    for split, some in rows.items():
        odd = [row for row in some if frame_number(row.image) != frame_number(row.depth)]
        for row in odd if len(odd) <= len(some) / 2 else ():
            message = f"{row.image} stands beside {row.depth}, another frame's depth; mend the list"
            findings.append(Finding("shifted", row.where, message, (split,)))


def common_bits(root: Path, rows: Sequence[FileRow], otherwise: int) -> int:
    """Return the bits that most depth files have, of some that can be read; those of all others must be the same."""
    found: Counter[int] = Counter()
    for row in rows[:: max(1, len(rows) // 32)]:
        with contextlib.suppress(InputError):
            if _leaves(row.depth):
                continue
            found[depth_bits(root / row.depth)] += 1
    return found.most_common(1)[0][0] if found else otherwise


def read_text(path: Path) -> str:
    """Read a list or CSV file, of UTF-8 text.

    Raises:
        InputError: If it cannot be read, is no such text, or larger than any list.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LIST_BYTES + 1)
        if len(content) > MAX_LIST_BYTES:
            raise InputError(f"{path}: no list of files has more than {MAX_LIST_BYTES >> 20} MiB; part it or mend it")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a UTF-8 text file") from None


def read_rows(
    path: Path, separator: str | None, columns: int, most: int, split: str, findings: list[Finding]
) -> list[tuple[str, list[str]]]:
    """Read a list file: the fields of each row that is not empty, with the place it stands.

    Args:
        path: A UTF-8 text file.
        separator: What parts the fields; None for white space.
        columns: The least number of fields a row must have; another row is left out, with a finding.
        most: The largest number of fields.
        split: The split that a finding spoils.
        findings: Where a finding is added.

    Returns:
        ("file.txt:12", fields) for each row.

    Raises:
        InputError: If the file cannot be read or is empty.
    """
    found = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields = [field.strip() for field in line.split(separator)]
        if not any(fields):
            continue
        where = f"{path.name}:{number}"
        if not columns <= len(fields) <= most or not all(fields[:columns]):
            message = (
                f"{len(fields)} field(s) where {columns} to {most} are expected: {line[:80]!r}; mend or take out the "
                "row; a name with a separator in it cannot stand in a list"
            )
            findings.append(Finding("row", where, message, (split,)))
            continue
        found.append((where, fields))
    if not found:
        first = f" ({findings[-1].message})" if findings else ""
        raise InputError(f"{path}: the list names no pair{first}")
    return found


def name_rows(rows: Mapping[str, list[FileRow]], labelled: bool = False) -> tuple[dict[str, list[FileRow]], str]:
    """Give each row that has none a scene, by the names of all splits together, as :func:`name_scenes` does.

    Returns:
        The rows, and the rule in words.
    """
    inside = {split: [row.image for row in some if not _leaves(row.image)] for split, some in rows.items()}
    scenes, rule = name_scenes(inside, labelled)
    named = {split: dict(zip(inside[split], scenes[split], strict=True)) for split in rows}
    return {
        split: [row._replace(scene=row.scene or named[split].get(row.image, "")) for row in some]
        for split, some in rows.items()
    }, rule


def hold_out_val(rows: dict[str, list[FileRow]], way: str, rule: str) -> list[str]:
    """Part training rows into those to train on and those to validate on, in place, as :func:`part_val` does.

    Returns:
        Why there are no val rows, where none can be held out: who only looks at the data does not need them.
    """
    train, val = rows.get("train", []), rows.get("val", [])
    names = [row.image for row in (*train, *val)]
    if train or val:
        try:
            rows["train"], rows["val"] = part_val(train, val, [row.scene for row in train], names, way, rule)
        except InputError as error:
            return [f"no val frames: {error}"]
    return []
