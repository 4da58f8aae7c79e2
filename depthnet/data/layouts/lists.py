"""The ``lists`` layout: text files with ``rgb depth focal`` a row, as BTS and its successors have NYU Depth V2.

Depth is 16-bit PNG in millimeters. Lists, training files and test files may lie in three places: BTS keeps the lists
with its code, training files below ``sync`` and the official test frames below ``official_splits/test``.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from depthnet.core.types import InputError
from depthnet.data.layouts.files import FileLayout, FileRow, parse_rows, path_inside, split_rows
from depthnet.data.layouts.layout import SPLITS, Finding, Source

_NAMES = ("nyudepthv2_{}_files_with_gt.txt", "nyudepthv2_{}_files_with_gt_dense.txt", "nyu_{}.txt", "{}_list.txt")
_TRAIN_FOLDERS = ("", "sync")
_TEST_FOLDERS = ("", "official_splits/test")


class ListsLayout(FileLayout):
    """NYU by list files. Where there is no val list, whole scenes of the training list are held out.

    Args:
        source: Its ``lists`` is the folder of the list files, ``root`` and ``test_root`` what their paths are relative
            to; a leading slash in a path means that folder.

    Raises:
        InputError: If a list cannot be read, there are two for one split, or ``test_root`` is not needed.
    """

    name = "lists"
    nyu = True
    known_by = "nyudepthv2_train_files_with_gt.txt"
    takes = frozenset({"test_root", "lists"})

    def __init__(self, source: Source) -> None:
        if source.test_root is not None and not _list_file(source, "test"):
            raise InputError(f"data.test_root={source.test_root}: no list of test frames to use it for; leave it out")
        rows: dict[str, list[FileRow]] = {}
        findings: list[Finding] = []
        notes: list[str] = []
        for split in SPLITS:
            path = _list_file(source, split)
            if path is None:
                continue
            root = (source.test_root if split == "test" else None) or source.root
            found = parse_rows(split_rows(path), functools.partial(_row, root), findings, (split,))
            rows[split] = [row for row in found if row.depth != "None"]
            if len(rows[split]) < len(found):
                notes.append(f"{path.name}: {len(found) - len(rows[split])} rows without depth (None) are left out")
        trained = _folder(source.root, _TRAIN_FOLDERS, [*rows.get("train", ()), *rows.get("val", ())])
        tested = source.test_root or _folder(source.root, _TEST_FOLDERS, rows.get("test", []))
        roots = {split: tested if split == "test" else trained for split in SPLITS}
        super().__init__(source, roots, rows, findings, notes)

    @staticmethod
    def holds(source: Source) -> bool:
        """Return whether there is a list file of any split."""
        return any(_candidates(source, split) for split in SPLITS)


def _row(root: Path, where: str, fields: list[str]) -> FileRow:
    if not 2 <= len(fields) <= 3:
        message = f"{' '.join(fields)[:80]!r} is no image, depth and focal length"
        raise InputError(f"{message}; a name with a separator in it cannot stand in a list")
    image, depth = (_inside(root, name) for name in fields[:2])
    focal = float(fields[2]) if len(fields) == 3 else None
    if focal is not None and not 0 < focal < float("inf"):
        raise InputError(f"its focal length is {fields[2]!r}; it is a number of pixels above 0")
    return FileRow(image, depth, where, focal=focal)


def _inside(root: Path, name: str) -> str:
    try:
        return path_inside(root, name)
    except InputError:
        return path_inside(root, name.lstrip("/"))


def _candidates(source: Source, split: str) -> list[Path]:
    folder = source.lists or source.root
    return [path for path in (folder / name.format(split) for name in _NAMES) if path.is_file()]


def _list_file(source: Source, split: str) -> Path | None:
    found = _candidates(source, split)
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise InputError(f"{found[0].parent}: {names} both list {split}; move one away, or name a folder: data.lists")
    return found[0] if found else None


def _folder(root: Path, below: tuple[str, ...], rows: list[FileRow]) -> Path:
    """Return the one of the folders that holds most of some of the rows' images; the root where none does."""
    some = rows[:: max(1, len(rows) // 50)]
    counts = [sum(os.path.isfile(root / name / row.image) for row in some) for name in below]  # noqa: PTH113  never raises
    return root / below[counts.index(max(counts))]
