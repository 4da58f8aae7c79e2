"""Make a row of the results table from a finished run: its figures, its commands, its cost.

    python results/record.py RUN --name "irv2_attn" --set "NYU labelled, official training half" \\
        --output results/nyu_irv2_attn.json
    python results/record.py RUN RUN RUN ...         runs that differ in the seed alone make one row

What the run has measured is taken from its files. Its best checkpoint then evaluates the same images again, as they are
for the sharpness of depth boundaries and with every corruption for robustness; both are stored in the run, image by
image, as `depthnet report` and `depthnet robustness` do. Last the network is timed on one core.

A record holds no path of this machine: PATH, FILE and BEST stand in its commands, BEST for checkpoints/best.ckpt of the
command before.

Exit code: 0, done; 2, something is wrong, and there is no record; 130, interrupted.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from cost import measure_cost

from depthnet.core.atomic_io import file_digest, require_writable, write_json
from depthnet.core.errors import finish
from depthnet.core.progress import progress_bar
from depthnet.core.types import InputError
from depthnet.evaluation.atlas import mean_figures
from depthnet.evaluation.bootstrap import DRAWS, LEVEL
from depthnet.evaluation.compare import compare, differing_keys
from depthnet.evaluation.corruptions import CORRUPTIONS, STRENGTHS
from depthnet.evaluation.evaluator import training_mean
from depthnet.evaluation.frames import FrameEvaluator, evaluate_frames
from depthnet.evaluation.metrics import METRIC_NAMES
from depthnet.evaluation.robustness import LIGHT, evaluate, losses
from depthnet.evaluation.sharpness import EDGE_F1, edge_f1
from depthnet.export.portable import portable
from depthnet.models.depth_net import load_network
from depthnet.models.shipped import shipped_models
from depthnet.run.files import RECORD, Run, flatten, read_record, read_run, store_measured

MORE = ("edge_f1", "robustness", "robustness_light", *(f"robustness_{name}" for name in CORRUPTIONS))
"""What a record measures of each image beside the nine figures of an evaluation."""

DEFINITIONS = {
    "edge_f1": EDGE_F1,
    "robustness": (
        "delta1 of corrupted images less delta1 of clean ones, image by image, ground truth unchanged; the mean over "
        + ", ".join(f"{name} ({STRENGTHS[name]})" for name in CORRUPTIONS)
        + f"; robustness_light: the mean over {', '.join(LIGHT)}."
    ),
    "intervals": f"{LEVEL:.0%}, by bootstrap over scenes, {DRAWS} draws; of several seeds, of their mean.",
    "parameters": "Of the whole network, learned or frozen.",
    "gmacs": "10^9 multiply-accumulates for one image: half of the FLOPs that torch.utils.flop_counter counts.",
    "ms": (
        "Milliseconds of one core for one image: float32, channels_last, batch 1; median of rounds in which the "
        "network and its bare encoder (encoder_ms) take turns; the thread's own time, so that what else the machine "
        "does counts little."
    ),
    "minutes": "Wall clock of fitting with its validations, of all commands of the row; the mean over the seeds.",
}

_NOT_OF_THE_RUN = ("data.cache_dir", "report")
_WEIGHTS = ("ckpt", "model.pretrained")


class Made(NamedTuple):
    """A command that a run was made by: Hydra's overrides, and seconds of training by hardware."""

    overrides: list[str]
    seconds: dict[str, float]


def command(overrides: Sequence[str], *, chained: bool = False, sweep: bool = False) -> str:
    """Return the command line of a run, free of paths.

    Args:
        overrides: Hydra's.
        chained: Whether ``ckpt`` is the best checkpoint of the command before.
        sweep: Whether it is one command for several runs.

    Example:
        >>> command(["data=nyu", "data.root=/here/nyu", "data.image_size=[120,160]", "ckpt=/there/best.ckpt"])
        "python train.py data=nyu data.root=PATH 'data.image_size=[120,160]' ckpt=FILE"
    """
    words = ["python", "train.py", *["-m"] * sweep]
    for word in overrides:
        key, equals, value = word.partition("=")
        name = key.lstrip("+~")
        if name in _NOT_OF_THE_RUN:
            continue
        if name in _WEIGHTS and value.lower() not in ("auto", "true", "false", "null", *shipped_models()):
            value = "BEST" if chained and name == "ckpt" else "FILE"
        elif name in ("data.root", "data.test_root"):
            value = "PATH"
        value = portable(value)
        words.append(key + equals + value)
    return shlex.join(words)


def _made_by(directory: Path) -> list[Made]:
    """The commands that a run was made by, the oldest first: those of the run whose checkpoint it starts from too."""
    stored = read_record(directory)
    overrides, training = stored.get("overrides"), stored.get("seconds")
    if overrides is not None and "mode=test" in overrides:
        training = {}
    if overrides is None or training is None:
        example = '"overrides": ["model=basic", "seed=1"], "seconds": {"2 CPU cores": 600}'
        raise InputError(
            f"{directory / RECORD}: does not say by what command and how long the run was trained; "
            f"add it, such as {example}"
        )
    if (directory / "config.previous.yaml").exists():
        raise InputError(f"{directory}: has gone on with another config, so no command makes it again")
    starts = [word.partition("=")[2].strip("'\"") for word in overrides if word.startswith("ckpt=")]
    start = starts[-1] if starts and starts[-1] not in ("null", *shipped_models()) else None
    if start and not Path(start).is_absolute() and not Path(start).exists():
        raise InputError(
            f"{directory}: began with ckpt={start}, which is not here; call this where the run was started"
        )
    before = Path(start).resolve() if start else None
    before = before.parent.parent if before and not before.is_dir() else before
    earlier = _made_by(before) if before and before != directory.resolve() and (before / RECORD).is_file() else []
    return [*earlier, Made(overrides, training)]


def _commands(made: Sequence[Sequence[Made]], seeds: Sequence[int]) -> list[str]:
    """The commands of a row; one for all runs where they differ in the seed."""
    plain = {tuple(word for word in run[-1].overrides if not word.startswith("seed=")) for run in made}
    if len(made) > 1 and len(plain) == 1 and all(len(run) == 1 for run in made):
        return [command([*plain.pop(), f"seed={','.join(map(str, seeds))}"], sweep=True)]
    return list(
        dict.fromkeys(command(one.overrides, chained=place > 0) for run in made for place, one in enumerate(run))
    )


def make_record(
    directories: Sequence[str | os.PathLike[str]],
    name: str,
    data: str,
    root: str | os.PathLike[str] | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Make the record of a row, and store what was measured of each image in each run's directory.

    Args:
        directories: Of one run, or of several that differ in the seed alone.
        name: Of the row.
        data: What the data is, in words; rows of the same words stand in one table.
        root: Where the data is now, if it moved.
        advance: Called with how many images were evaluated and how many there are.

    Returns:
        Plain values, free of this machine's paths.

    Raises:
        InputError: If a run is not finished, does not say how it was made, or differs in more than the seed; or its
            checkpoint or data are not what was evaluated.
    """
    paths = [Path(directory) for directory in directories]
    runs = [read_run(path) for path in paths]
    first, protocol, seeds = runs[0], runs[0].protocol, [run.metrics["seed"] for run in runs]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"{paths[0]}: the runs of a row differ in the seed; here they are of {seeds}")
    made = [_made_by(path) for path in paths]
    for path in paths:
        require_writable(path)
    evaluators = [FrameEvaluator(run, root=root) for run in runs]
    if len(runs) > 1:
        compare({str(run.directory): run for run in runs}, ["delta1"], protocol)
    differing = differing_keys([run.config for run in runs])
    if differing:
        raise InputError(f"{paths[0]}: the runs of a row differ in the seed alone; here in {', '.join(differing)}")
    total, done = sum(len(each.frames) for each in evaluators) * (2 + len(CORRUPTIONS)), 0

    def evaluated(*_: int) -> None:
        nonlocal done
        done += 1
        if advance is not None:
            advance(done, total)

    found = [_measured(evaluator, evaluated) for evaluator in evaluators]
    scenes = [first.rows[protocol][frame].scene for frame in evaluators[0].frames]
    figures = mean_figures((*METRIC_NAMES, *MORE), np.mean([table for _, table in found], axis=0), scenes)
    seconds = [(hardware, spent) for run in made for one in run for hardware, spent in one.seconds.items()]
    network = load_network(evaluators[0].checkpoint)
    return {
        "name": name,
        "set": data,
        "commands": _commands(made, seeds),
        "minutes": sum(spent for _, spent in seconds) / 60 / len(runs) if seconds else None,
        "hardware": sorted({hardware for hardware, _ in seconds}),
        "split": first.metrics["split"],
        "images": first.metrics["images"],
        "expected": first.metrics["expected"],
        "scenes": len(set(scenes)),
        "data": _without_places(first),
        "protocol": protocol,
        "digest": first.metrics["digests"][protocol],
        "image_size": list(network.image_size),
        "figures": {
            key: {"mean": mean, "interval": None if math.isnan(ends.low) else list(ends)}
            for key, (mean, ends) in figures.items()
        },
        "cost": measure_cost(network)._asdict(),
        "runs": [one for one, _ in found],
        "mean_map": _mean_map(first, evaluators[0]),
        "definitions": {protocol: first.metrics["definitions"][protocol], **DEFINITIONS},
    }


def _measured(evaluator: FrameEvaluator, advance: Callable[..., None]) -> tuple[dict[str, Any], list[list[float]]]:
    """What is noted of one run, and its figures image by image; those that are new are stored beside the others."""
    run, rows, results = evaluator.run, evaluator.rows, evaluate_frames(evaluator, advance)
    changes = losses(evaluator, evaluate(evaluator, list(CORRUPTIONS), advance))
    edges = results.edges
    for tool, figures in (("edges", edges), ("robustness", changes)):
        if why := store_measured(run, tool, figures):
            raise InputError(f"{evaluator.checkpoint}: {why}")
    more = {frame: [(edges[frame] | changes[frame])[name] for name in MORE] for frame in evaluator.frames}
    means = mean_figures(MORE, list(more.values()), [rows[frame].scene for frame in more])
    noted = {
        "seed": run.metrics["seed"],
        "commit": run.metrics["commit"],
        "versions": run.metrics["versions"],
        "checkpoint": file_digest(evaluator.checkpoint),
        "figures": {name: figure.mean for name, figure in means.items()} | run.metrics["protocols"][run.protocol],
    }
    return noted, [[*rows[frame].figures.values(), *figures] for frame, figures in more.items()]


def _mean_map(run: Run, evaluator: FrameEvaluator) -> dict[str, float] | None:
    """The figures of the mean training depth map, which every network must beat; it looks at no photograph."""
    stored = run.metrics.get("mean_map", {}).get(run.protocol)
    constant = training_mean(evaluator.layout, evaluator.split) if stored else None
    if constant is None:
        return None
    sharp = []
    for frame in evaluator.frames:
        ground_truth = torch.tensor(evaluator.layout.read(evaluator.split, frame)[1])[None, None]
        pred, depth, mask = (
            part[0, 0].numpy() for part in evaluator.protocol(constant, ground_truth, ground_truth > 0)
        )
        sharp.append(edge_f1(pred, depth, mask))
    held = [value for value in sharp if not math.isnan(value)]
    return {**stored, "robustness": 0.0, **({"edge_f1": math.fsum(held) / len(held)} if held else {})}


def _without_places(run: Run) -> dict[str, Any]:
    """What metrics.json says of the data, without the folders that the config names."""
    data: Mapping[str, Any] = run.metrics["data"]
    values = [value for key, value in flatten(run.config["data"]) if isinstance(value, str) and key[-8:] != "_target_"]
    description = str(data["description"])
    for place in sorted(filter(lambda value: os.sep in value, values), key=len, reverse=True):
        description = description.replace(place, "PATH")
    return {**data, "description": description}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python results/record.py", description=__doc__, formatter_class=style)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run that was evaluated")
    parser.add_argument("--name", required=True, help="of the row, such as: irv2_attn, scratch, 12 epochs")
    parser.add_argument("--set", required=True, help="what the data is, in words; rows of the same words make a table")
    parser.add_argument("--root", metavar="PATH", help="where the data is now, if it moved")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the record, as JSON")
    return finish("results/record.py", partial(_run, parser.parse_args(arguments)))


def _run(options: argparse.Namespace) -> int:
    require_writable(options.output.parent)
    with progress_bar("images evaluated") as advance:
        record = make_record(options.runs, options.name, options.set, options.root, advance)
    write_json(options.output, record)
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
