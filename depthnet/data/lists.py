"""The ``lists`` layout: text files with ``rgb depth focal`` a row, as BTS and its successors have NYU Depth V2.

``nyudepthv2_train_files_with_gt.txt`` names the frames to train on, ``nyudepthv2_val_files_with_gt.txt`` those to
select on, ``nyudepthv2_test_files_with_gt.txt`` the official test frames. Depth is 16-bit PNG in millimetres.
"""

from __future__ import annotations

from pathlib import Path

from depthnet.data.layout import DepthFiles, FileLayout, FileRow, Truth, find_truth, hold_out_val, make_rows, read_rows
from depthnet.types import DepthRange

__all__ = ["ListsLayout"]

_MILLIMETRES = DepthFiles(bits=16, metres_per_level=1e-3)


class ListsLayout(FileLayout):
    """NYU by list files.

    Args:
        root: The folder that holds the list files; their paths are relative to it, with or without a leading slash.
        truth: "raw", "filled" or "auto", as :func:`find_truth` takes it.
        depth_range: Depths that count as valid [m].

    Raises:
        InputError: If a list is torn or names a missing file; the message has file and row.
    """

    name = "lists"

    def __init__(self, root: Path, truth: str = "auto", depth_range: DepthRange = DepthRange(1e-3, 10.0)) -> None:  # noqa: B008  frozen
        rows: dict[str, list[FileRow]] = {}
        rules: dict[str, str] = {}
        for split in ("train", "val", "test"):
            path = list_file(root, split)
            if path.is_file():
                rows[split], rules[split] = _read_list(path)
        if "train" in rows and "val" not in rows:
            rows["train"], rows["val"] = hold_out_val(rows["train"])
        rule = rules.get("train") or next(iter(rules.values()))
        super().__init__(root, rows, dict.fromkeys(rows, _MILLIMETRES), depth_range, rule)
        self.truth: Truth = find_truth(self, truth)


def list_file(root: Path, split: str) -> Path:
    """Return the path at which a split's list stands."""
    return root / f"nyudepthv2_{split}_files_with_gt.txt"


def _read_list(path: Path) -> tuple[list[FileRow], str]:
    # BTS writes None where a test frame has no depth
    found = [(where, fields) for where, fields in read_rows(path, None, 2) if fields[1] != "None"]
    return make_rows(found, lambda path: path.lstrip("/"))
