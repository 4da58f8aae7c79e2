"""How a command-line tool ends: its exit code, and one line for what the user can mend."""

from __future__ import annotations

import sys
from collections.abc import Callable

from depthnet.types import InputError

__all__ = ["finish"]


def finish(name: str, work: Callable[[], int], interrupted: str = "nothing was written") -> int:
    """Do a tool's work.

    Args:
        name: What stands before a message.
        work: Returns the exit code.
        interrupted: What became of the files after Ctrl-C, in words.

    Returns:
        The exit code: the work's own; 2 for what the user did wrong, with a line on stderr; 130 for Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a file's name may be no valid text
    try:
        return work()
    except InputError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {interrupted}", file=sys.stderr)
        return 130
