"""A run's error atlas: one HTML file that shows what a network gets wrong, and where.

    depthnet report RUN

RUN is the directory of a run that was evaluated (config.yaml, metrics.json, per_image.csv). Its best checkpoint
evaluates the same frames again, one by one, under the first protocol of metrics.json. RUN/report.html then shows the
figures with 95 % intervals; the error by depth, near edges, by place and by kind; the sharpness of depth boundaries;
the best, median and worst images; and the training. The file needs no other file and no network.
RUN/per_image_edges.csv holds each image's edge_f1, for `depthnet compare`.

Exit code: 0, the report was written; 2, something is wrong, and nothing was written; 130, interrupted.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from depthnet.core.atomic_io import require_writable, write_text
from depthnet.core.errors import run_tool
from depthnet.core.progress import progress_bar
from depthnet.evaluation.run_options import run_parser
from depthnet.run.files import METRICS, read_run, reading, store_measured


def write_report(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
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
    from depthnet.evaluation.frames import FrameEvaluator, evaluate_frames
    from depthnet.evaluation.report.page import page

    run = read_run(directory)
    path = Path(output) if output is not None else run.directory / "report.html"
    require_writable(path.parent)
    evaluator = FrameEvaluator(run, checkpoint, root, limit)
    results = evaluate_frames(evaluator, advance)
    with reading(run.directory / METRICS):  # it may lack what the page shows
        text = page(evaluator, results)
    write_text(path, text)
    if checkpoint is None:
        store_measured(run, "edges", results.edges)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_tool(run_parser("report", __doc__, "report.html"), arguments, _run)


def _run(options: argparse.Namespace) -> int:
    with progress_bar("images evaluated") as advance:
        path = write_report(options.run, options.output, options.ckpt, options.root, options.limit, advance)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0
