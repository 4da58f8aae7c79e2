"""A run's report as a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from depthnet.core.atomic_io import require_writable, write_text
from depthnet.core.types import InputError
from depthnet.run.files import read_run, store_measured


def write_report(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> Path:
    """Judge a run's frames again, write its report, and store each image's ``edge_f1`` for :mod:`evaluation.compare`.

    Args:
        directory: The run's.
        output: The file; None: ``report.html`` in the run's directory.
        checkpoint, root, limit, advance: As :func:`depthnet.evaluation.frames.judge`.

    Returns:
        The file.

    Raises:
        InputError: If a file of the run, the checkpoint or the data is missing or not what it was, or nothing can be
            written.
    """
    from jinja2 import UndefinedError

    from depthnet.evaluation.frames import judge
    from depthnet.evaluation.report.page import page

    run = read_run(directory)
    path = Path(output) if output is not None else run.directory / "report.html"
    require_writable(path.parent)
    judgement = judge(run, checkpoint=checkpoint, root=root, limit=limit, advance=advance)
    try:
        text = page(run, judgement)
    except (
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        UndefinedError,
    ) as error:  # metrics.json may be anybody's
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{run.directory}: its files are not those of a run, or torn: {reason}") from error
    write_text(path, text)
    if checkpoint is None:
        rows = judgement.figures.items()
        store_measured(run, "edges", {f: {"delta1": row[0], "edge_f1": judgement.edges[f]} for f, row in rows})
    return path
