"""How the figures of a run fall when its images are corrupted.

    depthnet robustness RUN --corrupt dark,bright,contrast,blur,noise,jpeg

RUN is the directory of a run that was evaluated. Its checkpoint evaluates the same frames under the run's first
protocol, as they are and with each corruption, the ground truth unchanged. Beside each figure stands its difference
from the clean one, image by image, with a 95 % interval by bootstrap over scenes. RUN/robustness.json holds them;
RUN/per_image_robustness.csv holds the differences of delta1 of each image, for `depthnet compare`.

Exit code: 0, done; 2, something is wrong, and nothing was written; 130, interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthnet.core.atomic_io import require_writable, write_json
from depthnet.core.errors import add_run_options, finish
from depthnet.core.progress import progress_bar
from depthnet.core.tables import Table, count_in_words
from depthnet.core.types import InputError
from depthnet.evaluation.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from depthnet.run.files import read_run, store_measured

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from depthnet.evaluation.frames import Bench

    FloatArray = npt.NDArray[np.float64]


LIGHT = ("dark", "bright", "contrast")
"""The corruptions that are another light."""

_SHOWN = ("delta1", "delta2", "abs_rel", "rmse", "log10")


def evaluate(
    bench: Bench, names: Sequence[str], advance: Callable[[int, int], None] | None = None
) -> dict[str, FloatArray]:
    """Evaluate every frame as it is and with each corruption.

    Args:
        bench: The checkpoint and its frames.
        names: Corruptions, each one of :data:`depthnet.evaluation.corruptions.CORRUPTIONS`.
        advance: Called with how many images were evaluated and how many there are.

    Returns:
        For "clean" and each name the nine figures of each of ``bench.frames``, shape ``(N, 9)``.

    Raises:
        InputError: If a name is unknown, or no frame has a pixel that counts.
    """
    import numpy as np

    for name in names:
        if name not in CORRUPTIONS:
            raise InputError(f"--corrupt {name}: it is one of {', '.join(CORRUPTIONS)}")
    rows: dict[str, list[list[float]]] = {kind: [] for kind in ("clean", *names)}
    for done, frame in enumerate(bench.frames):
        for number, kind in enumerate(rows, start=1):
            change = None if kind == "clean" else partial(corrupt, name=kind, seed=frame)
            rows[kind].append(bench.shoot(frame, change)[1])
            if advance is not None:
                advance(done * len(rows) + number, len(bench.frames) * len(rows))
    found = {kind: np.array(figures) for kind, figures in rows.items()}
    if np.isnan(found["clean"][:, 0]).all():
        raise InputError(f"{bench.layout.description}: no frame has a pixel that counts under {bench.protocol.name}")
    return found


def summarize(bench: Bench, found: Mapping[str, FloatArray]) -> dict[str, dict[str, Any]]:
    """Average what :func:`evaluate` found.

    Returns:
        For "clean" and each corruption, ``{metric: {"mean", "difference", "interval"}}``: the mean over images, its
        difference from the clean one, and that difference's interval (None for the clean one, and where there is one
        scene only).
    """
    import numpy as np

    from depthnet.evaluation.bootstrap import bootstrap
    from depthnet.evaluation.metrics import METRIC_NAMES

    kept = ~np.isnan(found["clean"][:, 0])  # an image without a valid pixel has no figures, however it is corrupted
    scenes = [bench.rows[frame][1] for frame, keep in zip(bench.frames, kept, strict=True) if keep]
    summary: dict[str, dict[str, Any]] = {}
    for kind, table in found.items():
        differences = (table - found["clean"])[kept]
        intervals = bootstrap(differences, scenes)
        summary[kind] = {
            metric: {
                "mean": float(table[kept, column].mean()),
                "difference": float(differences[:, column].mean()),
                "interval": None if kind == "clean" or np.isnan(intervals[column]).any() else list(intervals[column]),
            }
            for column, metric in enumerate(METRIC_NAMES)
        }
    return summary


def losses(bench: Bench, found: Mapping[str, FloatArray]) -> dict[int, dict[str, float]]:
    """Return how far each image's delta1 changes, as :mod:`depthnet.evaluation.compare` knows it.

    Returns:
        By frame, ``delta1``, the clean one; ``robustness_<corruption>``; the means ``robustness`` over all corruptions
        and ``robustness_light`` over :data:`LIGHT`, where all of them were tried.
    """
    import numpy as np

    clean = found["clean"][:, 0]
    columns = {"delta1": clean}
    columns |= {f"robustness_{kind}": table[:, 0] - clean for kind, table in found.items() if kind != "clean"}
    for name, kinds in (("robustness", tuple(CORRUPTIONS)), ("robustness_light", LIGHT)):
        if found.keys() >= set(kinds):
            columns[name] = np.mean([columns[f"robustness_{kind}"] for kind in kinds], axis=0)
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return {frame: dict(zip(columns, row, strict=True)) for frame, row in zip(bench.frames, rows, strict=True)}


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
    parser = argparse.ArgumentParser(
        prog="depthnet robustness", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_options(parser)
    parser.add_argument("--corrupt", default=",".join(CORRUPTIONS), metavar="NAMES", help="default: all of them")
    parser.add_argument("--output", metavar="FILE", help="the figures as JSON (default: RUN/robustness.json)")
    options = parser.parse_args(arguments)
    return finish("depthnet robustness", partial(_run, options))


def _run(options: argparse.Namespace) -> int:
    from depthnet.evaluation.frames import Bench

    names = list(dict.fromkeys(name for name in options.corrupt.split(",") if name))
    path = Path(options.output or Path(options.run, "robustness.json"))
    run = read_run(options.run)
    require_writable(path.parent)
    bench = Bench(run, options.ckpt, options.root, options.limit)
    with progress_bar("images evaluated") as advance:
        found = evaluate(bench, names, advance)
    figures = summarize(bench, found)
    about = {"protocol": bench.protocol.name, "split": bench.split, "images": len(bench.frames)}
    write_json(path, {**about, "data": run.metrics["data"], "strengths": STRENGTHS, "figures": figures})
    counts = count_in_words(len(bench.frames), run.metrics["expected"])
    _table(figures, f"{bench.layout.description}, {bench.split}: {counts}, {bench.protocol.name}").print()
    print(path)
    why = "--ckpt names another checkpoint" if options.ckpt else store_measured(run, "robustness", losses(bench, found))
    if why:
        print(f"nothing is stored for depthnet compare: {why}")
    return 0
