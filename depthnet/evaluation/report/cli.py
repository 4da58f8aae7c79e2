"""A run's error atlas: one HTML file that says what a network gets wrong, and where.

    depthnet report RUN

RUN is the directory of a run that was judged (config.yaml, metrics.json, per_image.csv). Its best checkpoint judges the
same frames again, one by one, under the first protocol of metrics.json. RUN/report.html then shows the figures with
95 % intervals; the error by depth, near edges, by place and by kind; the sharpness of depth boundaries; the best,
median and worst images; and the training. The file needs no other file and no network. RUN/per_image_edges.csv holds
each image's edge_f1, for `depthnet compare`.

Exit code: 0, the report was written; 2, something is wrong, and nothing was written; 130, interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from depthnet.core.errors import add_run_options, finish
from depthnet.core.progress import progress_bar
from depthnet.evaluation.report.write import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="depthnet report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_options(parser)
    parser.add_argument("--output", metavar="FILE", help="default: RUN/report.html")
    options = parser.parse_args(arguments)
    return finish("depthnet report", partial(_run, options))


def _run(options: argparse.Namespace) -> int:
    with progress_bar("images judged") as advance:
        path = write_report(
            options.run,
            options.output,
            checkpoint=options.ckpt,
            root=options.root,
            limit=options.limit,
            advance=advance,
        )
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0
