"""The command ``depthnet``: one tool a word, imported when it is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import depthnet

TOOLS = {
    "train": ("depthnet.training.service", "fit and evaluate networks: all options of train.py"),
    "predict": ("depthnet.inference.cli", "depth for photographs"),
    "data": ("depthnet.data.cli", "check, show, download or prepare a data set"),
    "evaluate": ("depthnet.evaluation.predictions", "metrics of any program's predictions against a data set"),
    "compare": ("depthnet.evaluation.compare", "runs side by side, with paired differences and intervals"),
    "runs": ("depthnet.evaluation.runs", "the runs of a folder or a sweep, best first"),
    "report": ("depthnet.evaluation.report.write", "an HTML page on where a run's network errs"),
    "robustness": ("depthnet.evaluation.robustness", "metrics on corrupted images"),
    "export": ("depthnet.export.weights", "a run's weights as one small file with a model card"),
    "average": ("depthnet.export.average", "the mean of several runs' weights"),
}
"""Each tool's module, whose ``main`` takes the arguments and returns the exit code, and its line of help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``depthnet TOOL ARGUMENTS`` and return the exit code: 0, 1 or 2 by the tool, 2 for a wrong tool."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    tool = given[0] if given else "--help"
    if tool in ("-h", "--help"):
        lines = [f"  {name:11} {about}" for name, (_, about) in TOOLS.items()]
        print("usage: depthnet TOOL ...\n", *lines, "\ndepthnet TOOL --help lists the options of a tool", sep="\n")
        return 0
    if tool == "--version":
        print(f"depthnet {depthnet.__version__}")
        return 0
    if tool not in TOOLS:
        print(f"depthnet: no tool {tool}; there are {', '.join(TOOLS)}", file=sys.stderr)
        return 2
    return int(importlib.import_module(TOOLS[tool][0]).main(given[1:]))
