"""How the figures of a run fall when its photographs are spoilt.

    python -m depthnet.robustness RUN --corrupt dark,bright,contrast,blur,noise,jpeg

RUN is the directory of a run that was judged. Its checkpoint judges the same frames under the run's first protocol, as
they are and with each corruption, the truth unchanged. Beside each figure stands its difference from the clean one,
image by image, with a 95 % interval by bootstrap over scenes.

Exit code: 0, done; 2, something is wrong, and nothing was written; 130, interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthnet.command import add_run_options, finish
from depthnet.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from depthnet.durable import require_writable, write_json
from depthnet.per_image import count_in_words
from depthnet.progress import progress_bar
from depthnet.types import InputError

if TYPE_CHECKING:
    from depthnet.report.judge import Bench, Shot

__all__ = ["main", "measure", "shoot"]

_SHOWN = ("delta1", "delta2", "abs_rel", "rmse", "log10")


def shoot(bench: Bench, frame: int, kind: str) -> tuple[Shot, list[float]]:
    """Judge a frame whose photograph is "clean", or spoilt by a corruption, as :meth:`Bench.shoot` does."""
    return bench.shoot(frame, None if kind == "clean" else partial(corrupt, name=kind, seed=frame))


def measure(
    bench: Bench, names: Sequence[str], advance: Callable[[int, int], None] | None = None
) -> dict[str, dict[str, Any]]:
    """Judge every frame as it is and with each corruption.

    Args:
        bench: The checkpoint and its frames.
        names: Corruptions, each one of :data:`depthnet.corruptions.CORRUPTIONS`.
        advance: Called with how many images were judged and how many there are.

    Returns:
        For "clean" and each name, ``{metric: {"mean", "difference", "interval"}}``: the mean over images, its
        difference from the clean one, and that difference's interval (None for the clean one, and where there is one
        scene only).

    Raises:
        InputError: If a name is unknown, or no frame has a pixel that counts.
    """
    import numpy as np

    from depthnet.intervals import bootstrap
    from depthnet.metrics import METRIC_NAMES

    for name in names:
        if name not in CORRUPTIONS:
            raise InputError(f"--corrupt {name}: it is one of {', '.join(CORRUPTIONS)}")
    kinds = ["clean", *dict.fromkeys(names)]
    rows: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    for done, frame in enumerate(bench.frames):
        for number, kind in enumerate(kinds, start=1):
            rows[kind].append(shoot(bench, frame, kind)[1])
            if advance is not None:
                advance(done * len(kinds) + number, len(bench.frames) * len(kinds))
    clean = np.array(rows["clean"])
    kept = ~np.isnan(clean[:, 0])  # an image without a valid pixel has no figures, however it is spoilt
    if not kept.any():
        raise InputError(f"{bench.layout.description}: no frame has a pixel that counts under {bench.protocol.name}")
    scenes = [bench.rows[frame][1] for frame, keep in zip(bench.frames, kept, strict=True) if keep]
    found: dict[str, dict[str, Any]] = {}
    for kind in kinds:
        table = np.array(rows[kind])[kept]
        differences = table - clean[kept]
        intervals = bootstrap(differences, scenes)
        found[kind] = {
            metric: {
                "mean": float(table[:, column].mean()),
                "difference": float(differences[:, column].mean()),
                "interval": None if kind == "clean" or np.isnan(intervals[column]).any() else list(intervals[column]),
            }
            for column, metric in enumerate(METRIC_NAMES)
        }
    return found


def _print(found: dict[str, dict[str, Any]], title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("corruption", *_SHOWN, title=Text(title), box=box.SIMPLE_HEAD)
    for kind, figures in found.items():
        cells = []
        for metric in _SHOWN:
            figure = figures[metric]
            cell = f"{figure['mean']:.3f}"
            if kind != "clean":
                cell += f"\n{figure['difference']:+.3f}"
            if figure["interval"]:
                low, high = figure["interval"]
                cell += f"\n[dim]{low:+.3f} to {high:+.3f}[/dim]"
            cells.append(cell)
        strength = f"\n[dim]{STRENGTHS[kind]}[/dim]" if kind in STRENGTHS else ""
        table.add_row(f"{kind}{strength}", *cells)
        table.add_section()
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m depthnet.robustness", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_options(parser)
    parser.add_argument("--corrupt", default=",".join(CORRUPTIONS), metavar="NAMES", help="default: all of them")
    parser.add_argument("--output", metavar="FILE", help="the figures as JSON (default: RUN/robustness.json)")
    options = parser.parse_args(arguments)
    return finish("depthnet.robustness", partial(_run, options))


def _run(options: argparse.Namespace) -> int:
    from depthnet.report.judge import Bench, read_run

    names = [name for name in options.corrupt.split(",") if name]
    path = Path(options.output or Path(options.run, "robustness.json"))
    run = read_run(options.run)
    require_writable(path.parent)
    bench = Bench(run, options.ckpt, options.root, options.limit)
    with progress_bar("images judged") as advance:
        found = measure(bench, names, advance)
    about = {"protocol": bench.protocol.name, "split": bench.split, "images": len(bench.frames)}
    write_json(path, {**about, "data": run.metrics["data"], "strengths": STRENGTHS, "figures": found})
    counts = count_in_words(len(bench.frames), run.metrics["expected"])
    _print(found, f"{bench.layout.description}, {bench.split}: {counts}, {bench.protocol.name}")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
