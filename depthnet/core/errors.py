"""How a program ends: its exit code, and one line for what the user can fix."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable

from depthnet.core.types import InputError


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Give a command line the options of a tool that evaluates a run's frames again."""
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


def error_line(error: BaseException, also: tuple[type[BaseException], ...] = ()) -> str | None:
    """Return what a user did wrong as one line, or None if the error is a fault of the program.

    Args:
        error: What was raised. The errors that led to it are searched too, because libraries wrap ours.
        also: Further kinds of error that a user's input causes.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for link in chain:
        if isinstance(link, InputError):  # of a loader's worker, the message is a traceback that ends with ours
            return str(link).strip().splitlines()[-1].removeprefix("depthnet.core.types.InputError: ")
    for link in chain:
        if isinstance(link, also):
            cause = link.__cause__
            place = str(link).partition("full_key: ")[2]
            if cause is None or isinstance(cause, also):
                return " ".join(str(link).split())
            if isinstance(cause, TypeError | ValueError) or type(cause).__name__ == "MisconfigurationException":
                return " ".join(f"{place}{': ' if place else ''}{cause}".split())
    return None


def log_failure(error: BaseException, also: tuple[type[BaseException], ...] = ()) -> str | None:
    """Log why a run failed, with a traceback unless the user can fix it; return what :func:`error_line` does."""
    line = error_line(error, also)
    message = "the run failed" if line is None else f"error: {line}"
    logging.getLogger("depthnet").error(message, exc_info=error if line is None else None)
    return line
