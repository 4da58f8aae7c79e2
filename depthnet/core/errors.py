"""How a command-line tool ends: its exit code, and one line for what the user can mend."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from depthnet.core.types import InputError


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Give a command line the options of a tool that judges a run's frames again."""
    parser.add_argument("run", metavar="RUN", help="directory of a run that was judged")
    parser.add_argument(
        "--ckpt", metavar="PATH", help="a checkpoint, another run or a shipped model (default: the run's own)"
    )
    parser.add_argument("--root", metavar="PATH", help="where the data is now, if it moved")
    parser.add_argument("--limit", type=int, metavar="N", help="only N frames, evenly spaced: a quick look")


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
