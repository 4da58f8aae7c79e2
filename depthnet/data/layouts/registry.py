"""Which layout a folder holds, and the layout opened."""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import Any

from depthnet.core.types import InputError
from depthnet.data.layouts.folder import FolderLayout
from depthnet.data.layouts.h5 import H5Layout
from depthnet.data.layouts.kaggle import KaggleLayout
from depthnet.data.layouts.labelled import LabelledLayout
from depthnet.data.layouts.layout import Source, SourceLayout
from depthnet.data.layouts.lists import ListsLayout

LAYOUTS: dict[str, type[SourceLayout]] = {
    kind.name: kind for kind in (LabelledLayout, ListsLayout, KaggleLayout, H5Layout, FolderLayout)
}
"""Every layout by name."""

_OF_SOME = {field.name for field in dataclasses.fields(Source)} - {"root", "ground_truth", "depth_range", "val"}
"""The fields of a source that mean something to some layouts only, which name them in ``takes``."""

_WAYS = (
    "Get NYU Depth V2 with depthnet data download FOLDER (--source official, kaggle or hf), or as BTS list files, and "
    "name its folder with data.root=PATH or NYU_ROOT; or train on the built-in rooms: data=rooms"
)


def find_layout(source: Source, layout: str = "auto") -> type[SourceLayout]:
    """Return the layout that lies at a source: the one of that name, or for "auto" the only one.

    Raises:
        InputError: If there is no such folder, no known layout lies there, or several do.
    """
    kinds = [kind for name, kind in LAYOUTS.items() if layout in ("auto", name)]
    if not kinds:
        raise InputError(f"data.layout={layout}: it is auto or one of {', '.join(LAYOUTS)}")
    found = [kind for kind in kinds if kind.holds(source)]
    if len(found) > 1:
        names = " and ".join(kind.name for kind in found)
        raise InputError(f"data.root={source.root}: holds {names}; choose with data.layout={found[0].name}")
    if not found:
        what = "data" if layout == "auto" else f"{layout} layout"
        why = f"no {what} there" if source.root.exists() else "no such folder"
        looked_for = "; ".join(f"{kind.known_by} ({kind.name})" for kind in kinds)
        ways = f". {_WAYS}" if kinds[0].nyu else ""
        raise InputError(f"data.root={source.root}: {why} (looked for {looked_for}){ways}")
    return found[0]


def open_root(root: str | os.PathLike[str], layout: str = "auto", **options: Any) -> SourceLayout:
    """Open the data at a place.

    What is wrong with its rows stands in the layout's ``findings``, for :func:`check.require_sound`.

    Args:
        root: The folder, or the file of the ``labelled`` layout.
        layout: A layout's name, or "auto": known by what lies there.
        options: As :meth:`Source.of` takes them.

    Raises:
        InputError: If no such layout lies there, its lists cannot be read, or an option means nothing to it.
    """
    source = Source.of(root, **options)
    try:
        kind = find_layout(source, layout)
        for option in sorted(_OF_SOME):
            value = getattr(source, option)
            if value is not None and option not in kind.takes:
                raise InputError(f"data.{option}={value}: means nothing to the {kind.name} layout; leave it out")
        return kind(source)
    except OSError as error:  # such as a folder that may not be read
        raise InputError(f"data.root={root}: {error.filename or root}: {error.strerror or error}") from None


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Give a command line the options that state what a data root holds."""
    group = parser.add_argument_group("what ROOT holds")
    group.add_argument("--layout", choices=("auto", *LAYOUTS), default="auto", help="default: by what lies there")
    group.add_argument("--ground-truth", choices=("auto", "raw", "filled"), default="auto")
    group.add_argument("--val", choices=("scenes", "random_frames"), default="scenes")
    group.add_argument("--test-root", metavar="DIR", help="lists: where the test files lie")
    group.add_argument("--lists", metavar="PATH", help="lists: folder of the list files; folder: the CSV file")
    group.add_argument("--unit", help="folder: mm, cm, m, or meters per level")
    group.add_argument("--focal", type=float, metavar="PX", help="folder: focal length in pixels of the stored image")
    group.add_argument("--fov-x", type=float, metavar="DEG", help="folder: horizontal field of view, instead")
    group.add_argument("--depth-range", nargs=2, type=float, metavar=("MIN", "MAX"), help="valid depth [m]")


def source_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return what :func:`add_source_options` took, as :func:`open_root` wants it."""
    names = (field.name for field in dataclasses.fields(Source) if field.name != "root")
    return {name: getattr(options, name) for name in ("layout", *names)}
