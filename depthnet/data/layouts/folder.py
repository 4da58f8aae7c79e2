"""The ``folder`` layout: one's own pairs.

Either ``images/`` and ``depths/`` with files of the same names, in folders that are scenes (below ``train``, ``val``
and ``test`` where there are such folders); or ``pairs.csv``, with a header and the columns ``image`` and ``depth``
(paths below the root, or absolute ones that lie there; slashes either way) and, as far as there is something to say,
``split``, ``scene``, ``unit``, ``fx``, ``fy``, ``cx``, ``cy``. Depth is PNG of 8 or 16 bits, or ``.npy`` of floats. The
unit and the depth range have to be stated: nobody can guess them.

The camera of an image is the one that its row states, else ``data.focal`` or ``data.fov_x``, else that of an
intrinsics file (such as ``K.txt``) in the image's folder or one above it up to the root, else that of its EXIF.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from depthnet.core.camera import (
    Intrinsics,
    check_camera,
    exif_intrinsics,
    find_intrinsics_file,
    from_focal,
    from_fov,
    intrinsics_of_file,
)
from depthnet.core.images import CONVERT, check_header, is_array
from depthnet.core.types import InputError
from depthnet.data.layouts.files import (
    DepthFiles,
    FileLayout,
    FileRow,
    common_bits,
    hold_out_val,
    name_rows,
    path_inside,
    read_text,
)
from depthnet.data.layouts.layout import SPLITS, Finding, Source, read_unit

_IMAGES = (".jpg", ".jpeg", ".png")
_DEPTHS = (".png", ".npy")
_UNREAD = re.compile(
    r"\.(avif|bmp|dng|exr|gif|h5|hdf5|hei[cf]|jp2|jpe?g|jxl|mat|np[yz]|pfm|p[gp]m|raw|tiff?|webp)", re.IGNORECASE
)  # in one of the two folders at least
_CAMERA = ("fx", "fy", "cx", "cy")
_COLUMNS = ("image", "depth", "split", "scene", "unit", *_CAMERA)


class _Entry(NamedTuple):
    """A pair as the CSV file or the folders name it; empty strings for what they do not say."""

    image: str
    depth: str
    where: str
    split: str = "train"
    scene: str = ""
    unit: str = ""
    camera: Intrinsics | None = None


class FolderLayout(FileLayout):
    """One's own pairs, by folders or by a CSV file; without val frames, whole scenes are held out.

    Args:
        source: Its ``lists`` is the CSV file, if it is not ``root/pairs.csv``; its ``unit`` is what a level of depth
            stands for, where the CSV file does not say; its ``focal`` or ``fov_x`` is the camera's, likewise.

    Raises:
        InputError: If there are no pairs, the CSV file is torn, or no unit or depth range is stated.
    """

    name = "folder"
    known_by = "pairs.csv or images/ and depths/"
    takes = frozenset({"lists", "unit", "focal", "fov_x"})

    def __init__(self, source: Source) -> None:
        findings: list[Finding] = []
        notes: list[str] = []
        path = _csv_file(source)
        if source.lists is not None and not path.is_file():
            raise InputError(f"data.lists={path}: no such file; it is a CSV file of pairs")
        entries = _read_csv(path, source.root, findings, notes) if path.is_file() else _walk(source.root, findings)
        if not entries:
            first = f" ({findings[0].where}: {findings[0].message})" if findings else ""
            raise InputError(f"{path if path.is_file() else source.root}: no pairs there{first}")
        if source.unit is None and not all(entry.unit for entry in entries):
            raise InputError(
                f"{source.root}: say what a level of depth stands for, mm, cm, m or metres per level: data.unit=mm of "
                "train.py, --unit mm of the tools"
            )
        pictures = [FileRow(entry.image, entry.depth, "", "") for entry in entries if not is_array(entry.depth)]
        bits = common_bits(source.root, pictures, otherwise=16)
        rows: dict[str, list[FileRow]] = {split: [] for split in SPLITS}
        for entry in entries:
            metres = read_unit("unit", entry.unit or source.unit or "")
            files = DepthFiles(32 if is_array(entry.depth) else bits, metres)
            rows[entry.split].append(FileRow(entry.image, entry.depth, entry.scene, entry.where, files, entry.camera))
        named = all(row.scene for row in rows["train"])
        rows, rule = name_rows(rows)
        rule = "the scene column" if named else rule
        notes += hold_out_val(rows, source.val, rule)
        self._focal, self._fov_x = source.focal, source.fov_x
        if self._stated and entries and all(entry.camera for entry in entries):
            raise InputError(f"{self._stated}: every row of {path} states its camera; leave it out")
        self._cameras: dict[tuple[str, int], Intrinsics | None] = {}  # of the frames that were asked for
        self._camera_files: dict[PurePosixPath, Path | None] = {}  # by folder of images
        super().__init__(source, dict.fromkeys(SPLITS, source.root), rows, rule, findings, notes)
        self.camera = self._first_camera()

    @staticmethod
    def holds(source: Source) -> bool:
        """Tell whether a CSV file of pairs or the two folders lie there."""
        return _csv_file(source).is_file() or all((source.root / name).is_dir() for name in ("images", "depths"))

    def intrinsics(self, split: str, frame: int) -> Intrinsics | None:
        """Return the camera of a frame's image; see :meth:`Layout.intrinsics`."""
        if (split, frame) not in self._cameras:
            self._cameras[split, frame] = self._camera(split, frame)[0]
        return self._cameras[split, frame]

    @property
    def _stated(self) -> str:
        if self._focal is not None:
            return f"data.focal={self._focal:g}"
        return "" if self._fov_x is None else f"data.fov_x={self._fov_x:g}"

    def _camera(self, split: str, frame: int) -> tuple[Intrinsics | None, str]:
        """Return the camera of a frame's image, and where it is known from."""
        row = self._rows[split][frame]
        size = self.size(split, frame)
        if row.intrinsics is not None:
            check_camera(row.intrinsics, size, row.where, cropped=True)
            return row.intrinsics, "pairs.csv"
        try:
            if self._focal is not None:
                return from_focal(self._focal, size), "data.focal"
            if self._fov_x is not None:
                return from_fov(self._fov_x, size), "data.fov_x"
            file = self._camera_file(split, PurePosixPath(row.image).parent)
            if file is not None:
                return intrinsics_of_file(file, size), file.name
            return exif_intrinsics(self.files(split, frame)[0], size)
        except InputError as error:
            raise InputError(f"{row.where}: {error}", error.finding) from None

    def _first_camera(self) -> str:
        """Return where the camera of the first frame whose files can be opened is known from."""
        for split in SPLITS:
            if self.count(split):
                try:
                    check_header(self.files(split, 0)[0])
                    self.size(split, 0)
                except InputError:  # the data's check reports it
                    continue
                return self._camera(split, 0)[1]
        return ""

    def _camera_file(self, split: str, folder: PurePosixPath) -> Path | None:
        """Return the intrinsics file that is nearest to images of a folder, inside the root."""
        if folder not in self._camera_files:
            found = find_intrinsics_file(self._roots[split] / folder)
            at_root = folder == folder.parent
            self._camera_files[folder] = found if found or at_root else self._camera_file(split, folder.parent)
        return self._camera_files[folder]


def _csv_file(source: Source) -> Path:
    return source.lists or source.root / "pairs.csv"


def _walk(root: Path, findings: list[Finding]) -> list[_Entry]:
    """Pair the files of ``images`` and ``depths`` whose paths agree but for the suffix."""
    (images, unread_images), (depths, unread_depths) = (
        _files_below(root / name, suffixes, findings) for name, suffixes in (("images", _IMAGES), ("depths", _DEPTHS))
    )
    entries = []
    for stem in sorted({*images, *depths, *(unread_images.keys() & unread_depths.keys())}):
        split = stem.split("/")[0] if stem.split("/")[0] in SPLITS and "/" in stem else "train"
        if stem in images and stem in depths:
            image, depth = f"images/{images[stem]}", f"depths/{depths[stem]}"
            entries.append(_Entry(image, depth, where=image, split=split))
        elif (stem in images or stem in unread_images) and (stem in depths or stem in unread_depths):
            where = f"depths/{unread_depths[stem]}" if stem in images else f"images/{unread_images[stem]}"
            message = f"a file of a kind that is not read; {CONVERT}"
            findings.append(Finding("unreadable", where, message, (split,)))
        else:
            alone, other = ("images", "depths") if stem in images else ("depths", "images")
            where = f"{alone}/{(images | depths)[stem]}"
            message = f"nothing of that name lies in {other}/; restore the file or take this one out"
            findings.append(Finding("missing", where, message, (split,)))
    return entries


def _files_below(
    folder: Path, suffixes: tuple[str, ...], findings: list[Finding]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the files by their paths without suffix: those of the suffixes, and those of kinds that are not read."""
    found: dict[str, str] = {}
    unread: dict[str, str] = {}
    seen = set()
    for top, below, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(top)
        if real in seen:  # a link that leads back
            below.clear()
            continue
        seen.add(real)
        below.sort()
        for name in sorted(names):
            path = PurePosixPath(Path(top, name).relative_to(folder).as_posix())
            stem = path.with_suffix("").as_posix()
            if _UNREAD.fullmatch(path.suffix) and not name.startswith("."):
                unread.setdefault(stem, path.as_posix())
            if path.suffix.lower() not in suffixes or name.startswith("."):
                continue
            if stem in found:
                message = f"{found[stem]} has the same name; take one of the two out"
                findings.append(Finding("duplicate_row", f"{folder.name}/{path}", message, SPLITS))
            found.setdefault(stem, path.as_posix())
    return found, unread


def _read_csv(path: Path, root: Path, findings: list[Finding], notes: list[str]) -> list[_Entry]:
    try:
        text = read_text(path)
        delimiter = next((mark for mark in ",;\t" if mark in text.partition("\n")[0]), ",")
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        if not {"image", "depth"} <= set(columns):
            stated = str(columns)[:200]
            raise InputError(f"{path}: its first row names the columns; image and depth are needed, not {stated}")
        lines = [(reader.line_num, line) for line in reader]
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file ({error})") from None
    unknown = [name for name in columns if name not in _COLUMNS]
    if unknown:
        notes.append(f"{path.name}: columns {', '.join(unknown)} are not used; known are {', '.join(_COLUMNS)}")
    entries = []
    for number, line in lines:
        where = f"{path.name}:{number}"
        try:
            entry = _entry(where, {name: (line.get(name) or "").strip() for name in _COLUMNS})
            image, depth = path_inside(root, entry.image), path_inside(root, entry.depth)
            entries.append(entry._replace(image=image, depth=depth))
        except ValueError as error:
            findings.append(Finding("row", where, f"{error}; mend or take out the row", SPLITS))
    return entries


def _entry(where: str, line: dict[str, str]) -> _Entry:
    split = line["split"] or "train"
    if not (line["image"] and line["depth"]):
        raise ValueError("image or depth is not named")
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it is {', '.join(SPLITS)} or empty, for train")
    given = [line[name] for name in _CAMERA]
    camera = None
    if any(given):
        try:
            camera = Intrinsics(*(float(value) for value in given))
        except ValueError:
            raise ValueError(
                f"fx, fy, cx and cy are {', '.join(map(repr, given))}; all four are numbers, or none"
            ) from None
        if not all(map(math.isfinite, camera)) or camera.fx <= 0 or camera.fy == 0:
            raise ValueError(f"fx, fy, cx and cy are {', '.join(map(repr, given))}; no camera has these")
    if line["unit"]:
        read_unit("unit", line["unit"])
    return _Entry(line["image"], line["depth"], where, split, line["scene"], line["unit"], camera)
