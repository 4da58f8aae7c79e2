"""The ``kaggle`` layout, ``nyu2_train.csv`` and ``nyu2_test.csv``: what the published project trained on.

Rows are ``image,depth`` without a header, paths with their ``data/`` prefix. Training depth is 8-bit, 10/255 m a level;
test depth is 16-bit millimetres, the 654 official test frames. Both may have one channel or three equal ones.
Source: the archive of DenseDepth (Alhashim and Wonka, 2018), as Kaggle distributes it.
"""

from __future__ import annotations

from pathlib import Path

from depthnet.data.layout import DepthFiles, FileLayout, FileRow, Truth, find_truth, hold_out_val, make_rows, read_rows
from depthnet.types import DepthRange, InputError

__all__ = ["KaggleLayout"]

_EIGHT_BIT = DepthFiles(bits=8, metres_per_level=10 / 255)
_MILLIMETRES = DepthFiles(bits=16, metres_per_level=1e-3)
_PREFIX = "data/"


class KaggleLayout(FileLayout):
    """NYU by the two CSV files; whole scenes of the training list are held out as val.

    Args:
        root: The folder that holds the CSV files, or the folder above its ``data``.
        truth: "raw", "filled" or "auto", as :func:`find_truth` takes it.
        depth_range: Depths that count as valid [m].

    Raises:
        InputError: If a list is torn or names a missing file; the message has file and row.
    """

    name = "kaggle"

    def __init__(self, root: Path, truth: str = "auto", depth_range: DepthRange = DepthRange(1e-3, 10.0)) -> None:  # noqa: B008  frozen
        folder = csv_folder(root)
        if folder is None:
            raise InputError(f"{root}: holds neither nyu2_train.csv nor nyu2_test.csv, nor does its folder data")
        rows: dict[str, list[FileRow]] = {}
        depth_files: dict[str, DepthFiles] = {}
        rule = "folders"
        if (folder / "nyu2_test.csv").is_file():
            rows["test"], rule = _read_csv(folder / "nyu2_test.csv")
            depth_files["test"] = _MILLIMETRES
        if (folder / "nyu2_train.csv").is_file():
            found, rule = _read_csv(folder / "nyu2_train.csv")
            rows["train"], rows["val"] = hold_out_val(found)
            depth_files |= {"train": _EIGHT_BIT, "val": _EIGHT_BIT}
        super().__init__(folder, rows, depth_files, depth_range, rule)
        self.truth: Truth = find_truth(self, truth)


def csv_folder(root: Path) -> Path | None:
    """Return the folder that holds the CSV files, ``root`` or ``root/data``; None where neither does."""
    for folder in (root, root / "data"):
        if (folder / "nyu2_train.csv").is_file() or (folder / "nyu2_test.csv").is_file():
            return folder
    return None


def _read_csv(path: Path) -> tuple[list[FileRow], str]:
    rows, rule = make_rows(read_rows(path, ",", 2), lambda name: name.removeprefix(_PREFIX))
    # NYU's video folders end in _out where DenseDepth in-painted them; the scene is the same
    return [row._replace(scene=row.scene.removesuffix("_out")) for row in rows], rule
