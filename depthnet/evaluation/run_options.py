"""The command line of a tool that evaluates a run's frames again."""

from __future__ import annotations

import argparse

from depthnet.core.errors import tool_parser


def run_parser(name: str, description: str | None, output: str) -> argparse.ArgumentParser:
    """Return the parser of such a tool, with the options that all of them take; ``output`` is a file in the run."""
    parser = tool_parser(name, description)
    parser.add_argument("run", metavar="RUN", help="directory of an evaluated run")
    parser.add_argument("--ckpt", metavar="PATH", help="another checkpoint, run or shipped model than the run's own")
    parser.add_argument("--root", metavar="PATH", help="where the data is now, if it moved")
    parser.add_argument("--limit", type=int, metavar="N", help="only N frames, evenly spaced")
    parser.add_argument("--output", metavar="FILE", help=f"default: RUN/{output}")
    return parser
