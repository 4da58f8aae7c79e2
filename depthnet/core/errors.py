"""How a tool starts and ends: its command line, its exit code, and one line for what the user can fix."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from depthnet.core.types import InputError


def tool_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser for ``depthnet NAME``; its help begins with ``description``, a module's docstring."""
    style = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(f"depthnet {name}", description=description, formatter_class=style)


def run_tool(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    work: Callable[[argparse.Namespace], int],
    interrupted: str = "nothing was written",
) -> int:
    """Parse a tool's arguments (None: the command line's) and return what :func:`finish` does."""
    options = parser.parse_args(arguments)
    return finish(parser.prog, lambda: work(options), interrupted)


def finish(name: str, work: Callable[[], int], interrupted: str = "nothing was written") -> int:
    """Do a tool's work.

    Args:
        name: The prefix of its messages.
        work: Returns the exit code.
        interrupted: The state of the files after Ctrl-C, in words.

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
