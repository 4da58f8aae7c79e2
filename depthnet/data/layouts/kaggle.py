"""The ``kaggle`` layout, ``nyu2_train.csv`` and ``nyu2_test.csv``: what the published project trained on.

Rows are ``image,depth`` without a header, paths with their ``data/`` prefix. Training depth is 8-bit, 10/255 m a level,
or in better copies 16-bit millimetres; test depth is 16-bit millimetres, the 654 official test frames. All may have one
channel or three equal ones.
Source: the archive of DenseDepth (Alhashim and Wonka, 2018), as Kaggle distributes it.
"""

from __future__ import annotations

from pathlib import Path

from depthnet.core.types import InputError
from depthnet.data.layouts.files import (
    DepthFiles,
    FileLayout,
    FileRow,
    common_bits,
    hold_out_val,
    name_rows,
    path_inside,
    read_rows,
)
from depthnet.data.layouts.layout import Finding, Source
from depthnet.data.layouts.scenes import has_labelled_numbers

_EIGHT_BIT = DepthFiles(bits=8, metres_per_level=10 / 255)
_PREFIX = "data/"


class KaggleLayout(FileLayout):
    """NYU by the two CSV files; whole scenes of the training list are held out as val.

    Args:
        source: Its ``root`` is the folder that holds the CSV files, or the folder above its ``data``.

    Raises:
        InputError: If a list cannot be read.
    """

    name = "kaggle"
    nyu = True
    known_by = "nyu2_train.csv"

    def __init__(self, source: Source) -> None:
        folder = _csv_folder(source.root)
        if folder is None:
            raise InputError(f"{source.root}: holds neither nyu2_train.csv nor nyu2_test.csv, nor does its folder data")
        rows: dict[str, list[FileRow]] = {}
        findings: list[Finding] = []
        for split in ("train", "test"):
            path = folder / f"nyu2_{split}.csv"
            if path.is_file():
                found = read_rows(path, ",", 2, 2, split, findings)
                rows[split] = [
                    FileRow(_named(folder, image), _named(folder, depth), "", where) for where, (image, depth) in found
                ]
        notes = []
        if rows.get("train") and common_bits(folder, rows["train"], otherwise=8) == 8:
            rows["train"] = [row._replace(depth_files=_EIGHT_BIT) for row in rows["train"]]
            notes.append("training depth is 8-bit: steps of 3.9 cm up to 10 m")
        rows, rule = name_rows(rows)
        notes += hold_out_val(rows, source.val, rule)
        super().__init__(source, dict.fromkeys(rows, folder), rows, rule, findings, notes)
        self.numbered = ["test"] if has_labelled_numbers([row.image for row in rows.get("test", ())]) else []

    @staticmethod
    def holds(source: Source) -> bool:
        """Tell whether one of the CSV files lies there."""
        return _csv_folder(source.root) is not None


def _named(folder: Path, name: str) -> str:
    return path_inside(folder, name).removeprefix(_PREFIX)


def _csv_folder(root: Path) -> Path | None:
    for folder in (root, root / "data"):
        if (folder / "nyu2_train.csv").is_file() or (folder / "nyu2_test.csv").is_file():
            return folder
    return None
