"""A run's report as a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from depthnet.core.atomic_io import require_writable, write_text
from depthnet.core.types import InputError


def write_report(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> Path:
    """Evaluate a run's frames again, write its report, and store each image's ``edge_f1`` for ``depthnet compare``.

    Args:
        directory: The run's.
        output: The file; None: ``report.html`` in the run's directory.
        checkpoint, root, limit: As :class:`depthnet.evaluation.frames.FrameEvaluator`.
        advance: As :func:`depthnet.evaluation.frames.evaluate_frames`.

    Returns:
        The file.

    Raises:
        InputError: If a file of the run, the checkpoint or the data is missing or not what it was, or nothing can be
            written.
    """
    from depthnet.evaluation.frames import FrameEvaluator, evaluate_frames, read_run, store_images
    from depthnet.evaluation.report.page import page

    run = read_run(directory)
    path = Path(output) if output is not None else run.directory / "report.html"
    require_writable(path.parent)
    evaluator = FrameEvaluator(run, checkpoint, root, limit)
    results = evaluate_frames(evaluator, advance)
    try:
        text = page(evaluator, results)
    except Exception as error:  # metrics.json may be anybody's
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{run.directory}: its files are not those of a run, or torn: {reason}") from error
    write_text(path, text)
    if checkpoint is None:
        edges = {frame: (metrics[0], results.edges[frame]) for frame, metrics in results.metrics.items()}
        store_images(run, "edges", ("delta1", "edge_f1"), edges)
    return path
