"""Plain data that leaves this machine: absolute paths become the names of their files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ABSOLUTE = re.compile(  # a URL is left alone, unless it is "file:"
    r"(?<![\w/\\.}~*])(?!(?<=:)//(?!/))(?:~(?:[A-Za-z_][\w-]*)?/|/|[A-Za-z]:[\\/])[^\s,;'\"`()\[\]{}]+"
)


def portable(value: Any) -> Any:
    """Return plain data with ``PATH`` for each absolute path; names of files are kept.

    Example:
        >>> portable({"root": "/home/me/nyu", "text": "data.root=/home/me/nyu ckpt=~/a/best.ckpt at 1/4 of it"})
        {'root': 'PATH', 'text': 'data.root=PATH ckpt=PATH/best.ckpt at 1/4 of it'}
    """
    if isinstance(value, Mapping):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    if not isinstance(value, str):
        return value
    if "\n" not in value and _ABSOLUTE.match(value):  # a path may have spaces
        return _without_folder(value)
    return _ABSOLUTE.sub(lambda found: _without_folder(found[0]), value)


def _without_folder(path: str) -> str:
    name = re.split(r"[\\/]", path)[-1]
    return f"PATH/{name}" if Path(name).suffix else "PATH"
