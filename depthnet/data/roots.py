"""Which layout a folder holds, and the layout opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from depthnet.data.kaggle import KaggleLayout, csv_folder
from depthnet.data.layout import Layout
from depthnet.data.lists import ListsLayout, list_file
from depthnet.types import DepthRange, InputError

__all__ = ["LAYOUTS", "find_layout", "open_root"]

LAYOUTS: dict[str, tuple[type[ListsLayout | KaggleLayout], Callable[[Path], bool], str]] = {
    "lists": (
        ListsLayout,
        lambda root: any(list_file(root, split).is_file() for split in ("train", "val", "test")),
        "nyudepthv2_train_files_with_gt.txt",
    ),
    "kaggle": (KaggleLayout, lambda root: csv_folder(root) is not None, "nyu2_train.csv"),
}
"""Every layout by name: its class, whether a folder holds it, and the file it is known by."""

_WAYS = (
    "Get NYU Depth V2 as nyu2_train.csv with its folders (Kaggle) or as BTS list files, and name its folder with "
    "data.root=PATH or NYU_ROOT; or train on the built-in rooms with data=rooms"
)


def find_layout(root: Path) -> str:
    """Return the name of the layout that lies in ``root``.

    Raises:
        InputError: If there is no such folder, or no known layout lies there; it says what was looked for.
    """
    looked_for = " or ".join(file for _, _, file in LAYOUTS.values())
    if not root.is_dir():
        raise InputError(f"data.root={root}: no such folder (looked for {looked_for} in it). {_WAYS}")
    for name, (_, holds, _) in LAYOUTS.items():
        if holds(root):
            return name
    raise InputError(f"data.root={root}: no NYU there (looked for {looked_for}). {_WAYS}")


def open_root(
    root: str | os.PathLike[str],
    layout: str = "auto",
    truth: str = "auto",
    depth_range: DepthRange = DepthRange(1e-3, 10.0),  # noqa: B008  frozen
) -> Layout:
    """Open the data in a folder.

    Args:
        root: The folder.
        layout: A layout's name, or "auto": known by what lies in the folder.
        truth: "raw", "filled" or "auto" (filled when no sampled frame has a hole).
        depth_range: Depths that count as valid [m].

    Raises:
        InputError: If the folder holds no such layout, or the layout is broken.
    """
    root = Path(root).expanduser()
    if layout == "auto":
        layout = find_layout(root)
    if layout not in LAYOUTS:
        raise InputError(f"data.layout={layout}: it is auto or one of {', '.join(LAYOUTS)}")
    kind, holds, file = LAYOUTS[layout]
    if not holds(root):
        raise InputError(f"data.root={root}: no {layout} layout there (looked for {file}). {_WAYS}")
    return kind(root, truth, depth_range)
