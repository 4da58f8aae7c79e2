"""The ``kaggle`` layout, ``nyu2_train.csv`` and ``nyu2_test.csv``: what the published project trained on.

Rows are ``image,depth`` without a header, paths with their ``data/`` prefix. Training depth is 8-bit, 10/255 m a level,
or in better copies 16-bit millimeters; test depth is 16-bit millimeters, the 654 official test frames. All may have one
channel or three equal ones.
Source: the archive of DenseDepth (Alhashim and Wonka, 2018), as Kaggle distributes it.
"""

from __future__ import annotations

from pathlib import Path

from depthnet.core.types import InputError
from depthnet.data.layouts.files import FileLayout, FileRow, common_bits, parse_rows, path_inside, split_rows
from depthnet.data.layouts.layout import SPLITS, Finding, Source


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
        lists = _lists(source)
        folder = next(iter(lists.values())).parent

        def parse(where: str, fields: list[str]) -> FileRow:
            if len(fields) != 2 or not all(fields):
                raise InputError(f"{','.join(fields)[:80]!r} is no image,depth")
            image, depth = (path_inside(folder, name).removeprefix("data/") for name in fields)
            return FileRow(image, depth, where)

        findings: list[Finding] = []
        rows = {split: parse_rows(split_rows(path, ","), parse, findings, (split,)) for split, path in lists.items()}
        notes = []
        if rows.get("train") and common_bits(folder, rows["train"], otherwise=8) == 8:
            rows["train"] = [row._replace(bits=8, meters_per_level=10 / 255) for row in rows["train"]]
            notes.append("training depth is 8-bit: steps of 3.9 cm up to 10 m")
        super().__init__(source, dict.fromkeys(SPLITS, folder), rows, findings, notes)

    @staticmethod
    def holds(source: Source) -> bool:
        """Return whether there is one of the CSV files."""
        return bool(_lists(source))


def _lists(source: Source) -> dict[str, Path]:
    """Return the CSV file of each split, from the first folder that holds any."""
    for folder in (source.root, source.root / "data"):
        paths = {split: folder / f"nyu2_{split}.csv" for split in ("train", "test")}
        found = {split: path for split, path in paths.items() if path.is_file()}
        if found:
            return found
    return {}
