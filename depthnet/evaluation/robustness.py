"""How the metrics of a run fall when its images are corrupted.

    depthnet robustness RUN --corrupt dark,bright,contrast,blur,noise,jpeg

RUN is the directory of a run that was evaluated. Its checkpoint evaluates the same frames under the run's first
protocol, as they are and with each corruption, the ground truth unchanged. Beside each metric is its difference
from the clean one, image by image, with a 95 % interval by bootstrap over scenes. RUN/robustness.json holds them;
RUN/per_image_robustness.csv holds the differences of delta1 of each image, for `depthnet compare`.

Exit code: 0, done; 2, something is wrong, and nothing was written; 130, interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from depthnet.core.atomic_io import require_writable, write_json
from depthnet.core.errors import run_tool
from depthnet.core.progress import progress_bar
from depthnet.core.tables import Table, count_in_words
from depthnet.core.types import HIGHER_IS_BETTER, InputError
from depthnet.evaluation.bootstrap import bootstrap
from depthnet.evaluation.corruptions import CORRUPTIONS, STRENGTHS, find_corruption
from depthnet.evaluation.run_options import run_parser
from depthnet.run.files import exact_mean, read_run, store_measured

if TYPE_CHECKING:
    from depthnet.evaluation.frames import FrameEvaluator

FloatArray = npt.NDArray[np.float64]

LIGHT = ("dark", "bright", "contrast")
"""The corruptions of light."""

_SHOWN = ("delta1", "delta2", "abs_rel", "rmse", "log10")


def evaluate(
    evaluator: FrameEvaluator, names: Sequence[str], advance: Callable[[int, int], None] | None = None
) -> dict[str, FloatArray]:
    """Evaluate every frame as it is and with each corruption.

    Args:
        evaluator: The checkpoint and its frames.
        names: Corruptions, each one of :data:`depthnet.evaluation.corruptions.CORRUPTIONS`.
        advance: Called with how many images were evaluated and how many there are.

    Returns:
        For "clean" and each name the nine metrics of each of ``evaluator.frames``, shape ``(N, 9)``.

    Raises:
        InputError: If a name is unknown, or no frame has a pixel that counts.
    """
    for name in names:
        find_corruption(name)
    kinds = ("clean", *names)
    images = [(kind, frame) for frame in evaluator.frames for kind in kinds]
    rows: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    for done, (kind, frame) in enumerate(images, start=1):
        rows[kind].append(evaluator.evaluate(frame, CORRUPTIONS.get(kind)).metrics)
        if advance is not None:
            advance(done, len(images))
    found = {kind: np.array(table) for kind, table in rows.items()}
    if np.isnan(found["clean"][:, 0]).all():
        where = evaluator.layout.description
        raise InputError(f"{where}: no frame has a pixel that counts under {evaluator.protocol.name}")
    return found


def summarize(evaluator: FrameEvaluator, found: Mapping[str, FloatArray]) -> dict[str, dict[str, Any]]:
    """Average the results of :func:`evaluate`.

    Returns:
        For "clean" and each corruption, ``{metric: {"mean", "difference", "interval"}}``: the mean over images, its
        difference from the clean one, and that difference's interval (None for the clean one, and where there is one
        scene only).
    """
    scenes = [evaluator.rows[frame].scene for frame in evaluator.frames]
    summary: dict[str, dict[str, Any]] = {}
    for kind, table in found.items():
        differences = table - found["clean"]
        intervals = [None if kind == "clean" or np.isnan(i).any() else list(i) for i in bootstrap(differences, scenes)]
        columns = zip(HIGHER_IS_BETTER, table.T.tolist(), differences.T.tolist(), intervals, strict=True)
        summary[kind] = {
            metric: {"mean": exact_mean(own), "difference": exact_mean(difference), "interval": interval}
            for metric, own, difference, interval in columns
        }
    return summary


def losses(evaluator: FrameEvaluator, found: Mapping[str, FloatArray]) -> dict[int, dict[str, float]]:
    """Return how far each image's delta1 changes, as :mod:`depthnet.evaluation.compare` knows it.

    Returns:
        By frame, ``delta1``, the clean one; ``robustness_<corruption>``; the means ``robustness`` over all corruptions
        and ``robustness_light`` over :data:`LIGHT`, where all of them were tried.
    """
    clean = found["clean"][:, 0]
    columns = {"delta1": clean}
    columns |= {f"robustness_{kind}": table[:, 0] - clean for kind, table in found.items() if kind != "clean"}
    for name, kinds in (("robustness", tuple(CORRUPTIONS)), ("robustness_light", LIGHT)):
        if found.keys() >= set(kinds):
            columns[name] = np.mean([columns[f"robustness_{kind}"] for kind in kinds], axis=0)
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return {frame: dict(zip(columns, row, strict=True)) for frame, row in zip(evaluator.frames, rows, strict=True)}


def _table(found: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    table = Table(("corruption", *_SHOWN), "l" + "r" * len(_SHOWN), title, form="{:.3f}".format)
    for kind, figures in found.items():
        shown = [figures[metric] for metric in _SHOWN]
        table.section()
        table.add(kind, *(figure["mean"] for figure in shown))
        if kind == "clean":
            continue
        table.add(f"  {STRENGTHS[kind]}", *(f"{figure['difference']:+.3f}" for figure in shown))
        for label, place in (("  95% from", 0), ("        to", 1)):
            ends = (f"{figure['interval'][place]:+.3f}" if figure["interval"] else "" for figure in shown)
            table.add(label, *ends, style="dim")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = run_parser("robustness", __doc__, "robustness.json")
    parser.add_argument("--corrupt", default=",".join(CORRUPTIONS), metavar="NAMES", help="default: all of them")
    return run_tool(parser, arguments, _run)


def _run(options: argparse.Namespace) -> int:
    from depthnet.evaluation.frames import FrameEvaluator

    names = list(dict.fromkeys(name for name in options.corrupt.split(",") if name))
    path = Path(options.output or Path(options.run, "robustness.json"))
    run = read_run(options.run)
    require_writable(path.parent)
    evaluator = FrameEvaluator(run, options.ckpt, options.root, options.limit)
    with progress_bar("images evaluated") as advance:
        found = evaluate(evaluator, names, advance)
    figures, protocol, split = summarize(evaluator, found), run.protocol, evaluator.split
    about = {"protocol": protocol, "split": split, "images": len(evaluator.frames), "data": run.metrics["data"]}
    write_json(path, {**about, "strengths": STRENGTHS, "figures": figures})
    counts = count_in_words(len(evaluator.frames), run.metrics["expected"])
    _table(figures, f"{evaluator.layout.description}, {split}: {counts}, {protocol}").print()
    print(path)
    other = "--ckpt names another checkpoint" if options.ckpt else ""
    if why := other or store_measured(run, "robustness", losses(evaluator, found)):
        print(f"nothing is stored for depthnet compare: {why}")
    return 0
