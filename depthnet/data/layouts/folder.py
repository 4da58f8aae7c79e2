"""The ``folder`` layout: one's own pairs.

Either ``images/`` and ``depths/`` with files of the same names, in folders that are scenes (below ``train``, ``val``
and ``test`` where there are such folders); or ``pairs.csv``, with a header and the columns ``image`` and ``depth``
(paths below the root, or absolute ones inside it; slashes either way) and, where there is something to state,
``split``, ``scene``, ``unit``, ``fx``, ``fy``, ``cx``, ``cy``. Depth is PNG of 8 or 16 bits, or ``.npy`` of floats. The
unit and the depth range have to be stated: nobody can guess them.

The camera of an image is the one that its row states, else ``data.focal`` or ``data.fov_x``, else that of an
intrinsics file (such as ``K.txt``) in the image's folder or one above it up to the root, else that of its EXIF.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from depthnet.core.camera import Intrinsics, check_camera, find_camera
from depthnet.core.images import CONVERT, image_size, is_array
from depthnet.core.types import InputError
from depthnet.data.layouts.files import FileLayout, FileRow, common_bits, explained, parse_rows, path_inside, split_rows
from depthnet.data.layouts.layout import SPLITS, Finding, Source, read_unit

_SUFFIXES = {"images": (".jpg", ".jpeg", ".png"), "depths": (".png", ".npy")}
_CAMERA = ("fx", "fy", "cx", "cy")
_COLUMNS = ("image", "depth", "split", "scene", "unit", *_CAMERA)


class FolderLayout(FileLayout):
    """One's own pairs, by folders or by a CSV file; without val frames, whole scenes are held out.

    Args:
        source: Its ``lists`` is the CSV file, if it is not ``root/pairs.csv``; its ``unit`` is what a level of depth
            stands for, where the CSV file does not state it; its ``focal`` or ``fov_x`` is the camera's, likewise.

    Raises:
        InputError: If there are no pairs, the CSV file is torn, or no unit or depth range is stated.
    """

    name = "folder"
    known_by = "pairs.csv or images/ and depths/"
    takes = frozenset({"lists", "unit", "focal", "fov_x"})

    def __init__(self, source: Source) -> None:
        if source.depth_range is None:
            raise InputError(
                f"{source.root}: state which depths your sensor measures, in meters: "
                "data.depth_range='{min: 0.1, max: 20}' of train.py, --depth-range 0.1 20 of the tools"
            )
        findings: list[Finding] = []
        notes: list[str] = []
        path = _csv_file(source)
        if source.lists is not None and not path.is_file():
            raise InputError(f"data.lists={path}: no such file; it is a CSV file of pairs")
        pairs = _read_csv(path, source, findings, notes) if path.is_file() else _pair_files(source, findings)
        bits = common_bits(source.root, [row for _, row in pairs if not is_array(row.depth)], otherwise=16)
        rows: dict[str, list[FileRow]] = {split: [] for split in SPLITS}
        for split, row in pairs:
            rows[split].append(row._replace(bits=32 if is_array(row.depth) else bits))
        for option in ("focal", "fov_x"):
            if getattr(source, option) is not None and all(row.intrinsics for _, row in pairs):
                stated = f"data.{option}={getattr(source, option):g}"
                raise InputError(f"{stated}: every row of {path} states its camera; leave it out")
        self._source = source
        self._cameras: dict[tuple[str, int], tuple[Intrinsics | None, str]] = {}  # of the frames that were asked for
        super().__init__(source, dict.fromkeys(SPLITS, source.root), rows, findings, notes)
        self.camera = self._first_camera()

    @staticmethod
    def holds(source: Source) -> bool:
        """Return whether there is a CSV file of pairs or the two folders."""
        return _csv_file(source).is_file() or all((source.root / name).is_dir() for name in _SUFFIXES)

    def intrinsics(self, split: str, frame: int) -> Intrinsics | None:
        """Return the camera of a frame's image; see :meth:`Layout.intrinsics`."""
        return self._camera(split, frame)[0]

    def _camera(self, split: str, frame: int) -> tuple[Intrinsics | None, str]:
        """Return the camera of a frame's image, and where it is known from."""
        if (split, frame) not in self._cameras:
            row, size, source = self._rows[split][frame], self.size(split, frame), self._source
            if row.intrinsics is not None:
                check_camera(row.intrinsics, size, row.where, cropped=True)
                self._cameras[split, frame] = row.intrinsics, "pairs.csv"
            else:
                image = self.files(split, frame)[0]
                with explained(row.where):
                    self._cameras[split, frame] = find_camera(image, size, source.focal, source.fov_x, source.root)
        return self._cameras[split, frame]

    def _first_camera(self) -> str:
        """Return where the camera of the first frame whose files can be opened is known from."""
        for split in filter(self.count, SPLITS):
            try:
                image_size(self.files(split, 0)[0])
                self.size(split, 0)
            except InputError:  # the data's check reports it
                continue
            return self._camera(split, 0)[1]
        return ""


def _csv_file(source: Source) -> Path:
    return source.lists or source.root / "pairs.csv"


def _unit(source: Source, stated: str = "") -> float:
    unit = stated or source.unit
    if unit is None:
        raise InputError(
            f"{source.root}: state what a level of depth stands for, mm, cm, m or meters per level: data.unit=mm of "
            "train.py, --unit mm of the tools"
        )
    return read_unit("unit", unit)


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder but hidden ones; links to folders are followed, but no folder is read twice."""
    tops, visited = [str(folder)], set()
    for top in tops:
        for place, folders, names in os.walk(top):
            if (real := os.path.realpath(place)) in visited:
                folders.clear()
                continue
            visited.add(real)
            tops += filter(os.path.islink, (os.path.join(place, name) for name in folders))  # noqa: PTH118
            yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _pair_files(source: Source, findings: list[Finding]) -> list[tuple[str, FileRow]]:
    """Pair the files of ``images`` and ``depths`` whose paths agree but for the suffix; each with its split."""
    unit, pairs = _unit(source), []
    stems: dict[str, dict[str, list[str]]] = defaultdict(lambda: {folder: [] for folder in _SUFFIXES})
    for folder in _SUFFIXES:
        for path in _files_below(source.root / folder):
            name = PurePosixPath(path.relative_to(source.root).as_posix())
            stems[str(name.relative_to(folder).with_suffix(""))][folder].append(str(name))
    for stem, paths in sorted(stems.items()):
        split = next((split for split in SPLITS if stem.startswith(f"{split}/")), "train")
        images, depths = (
            [path for path in paths[name] if path.lower().endswith(_SUFFIXES[name])] for name in _SUFFIXES
        )
        for other in (*images[1:], *depths[1:]):
            findings.append(Finding("duplicate_row", other, "another file has the same name; take one out", SPLITS))
        if images and depths:
            pairs.append((split, FileRow(images[0], depths[0], where=images[0], meters_per_level=unit)))
        elif all(paths.values()):
            where = paths["depths" if images else "images"][0]
            findings.append(Finding("unreadable", where, f"a file of a kind that is not read; {CONVERT}", (split,)))
        elif images or depths:
            message = "the other folder holds nothing of that name; restore the file or take this one out"
            findings.append(Finding("missing", (images or depths)[0], message, (split,)))
    return pairs


def _read_csv(path: Path, source: Source, findings: list[Finding], notes: list[str]) -> list[tuple[str, FileRow]]:
    """Return the split and the pair of each row."""
    (_, columns), *lines = split_rows(path, ",;\t") or [("", [])]
    if not {"image", "depth"} <= set(columns):
        stated = str(columns)[:200]
        raise InputError(f"{path}: its first row names the columns; image and depth are needed, not {stated}")
    unknown = [name for name in columns if name not in _COLUMNS]
    if unknown:
        notes.append(f"{path.name}: columns {', '.join(unknown)} are not used; known are {', '.join(_COLUMNS)}")

    def parse(where: str, fields: list[str]) -> tuple[str, FileRow]:
        line = dict.fromkeys(_COLUMNS, "") | dict(zip(columns, fields, strict=False))
        split = line["split"] or "train"
        if not (line["image"] and line["depth"]):
            raise InputError("image or depth is not named")
        if split not in SPLITS:
            raise InputError(f"split is {split!r}; it is {', '.join(SPLITS)} or empty, for train")
        given = [line[name] for name in _CAMERA]
        camera = Intrinsics.of(*given) if any(given) else None
        image, depth = (path_inside(source.root, line[name]) for name in ("image", "depth"))
        return split, FileRow(image, depth, where, line["scene"], 16, _unit(source, line["unit"]), camera)

    return parse_rows(lines, parse, findings)
