"""Evaluate prediction files of any network against a data root.

    depthnet evaluate PREDICTIONS ROOT --split val --protocol NAME --output score.json

PREDICTIONS is a folder of .npy files (floats, meters, HxW or 1xHxW) or 16-bit PNG files (--scale levels per meter). A
frame's file is found by the frame's label, the path of its image below ROOT without the suffix: that of train/rgb_00018
is rgb_00018.npy or rgb_00018_depth.npy, in PREDICTIONS itself or in folders that end as the label's do; else the same
with .png. So what predict.py writes is found.

Exit code: 0, every frame was found and evaluated; 1, some frames have no file, and the metrics are of the others; 2,
something is wrong, and nothing was evaluated; 130, interrupted.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from depthnet.core.atomic_io import require_writable, write_json
from depthnet.core.errors import run_tool, tool_parser
from depthnet.core.images import is_array, read_depth
from depthnet.core.progress import progress_bar
from depthnet.core.tables import count_in_words
from depthnet.core.types import InputError
from depthnet.data.layouts.layout import SPLITS
from depthnet.data.layouts.registry import add_source_options, open_root, source_options
from depthnet.data.validation.check import cheap_findings, require_sound

_SUFFIXES = (".npy", ".png")
_ENDS = ("", "_depth", ".jpg_depth", ".JPG_depth", ".jpeg_depth", ".JPEG_depth")
"""What follows a frame's name: predict.py keeps the suffix of a photograph whose stem another file has too."""


def find_predictions(folder: str | os.PathLike[str], labels: Sequence[str]) -> tuple[list[Path | None], int]:
    """Find the prediction file of each frame.

    Args:
        folder: Searched with all its sub-folders.
        labels: The frames' labels, each once.

    Returns:
        A path for each label, None where there is none; and the number of files that belong to no frame.

    Raises:
        InputError: If the folder holds no file for any frame, two files fit one frame, or one fits two frames.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of predictions")
    kept = [path for path in root.rglob("*") if path.suffix in _SUFFIXES and path.name[0] != "."]
    files = [path.relative_to(root) for path in kept if not path.name.endswith("_color.png")]
    frames = defaultdict(list)
    for label in labels:
        frames[PurePath(label).name].append(label)
    found: dict[str, list[PurePath]] = {label: [] for label in labels}
    for file in sorted(files, key=lambda file: (file.suffix, file)):  # .npy before .png
        names = [file.stem.removesuffix(end) for end in _ENDS if file.stem.endswith(end)]
        fitting = [label for name in names for label in frames.get(name, ()) if _agree(file, PurePath(label))]
        # a file in just the folder of one frame is no other frame's
        fitting = [label for label in fitting if PurePath(label).parent == file.parent] or fitting
        if len(fitting) > 1:
            both = " and ".join(fitting[:2])
            raise InputError(f"{root / file}: fits both {both}; put predictions in folders as the data's are")
        for label in fitting:
            found[label].append(file)
    count = sum(map(len, found.values()))
    if not count:
        example = f"{labels[0]}.npy or {PurePath(labels[0]).name}_depth.npy" if labels else "no frame"
        raise InputError(
            f"{root}: none of its {len(files)} .npy and .png files fits a frame (looked for {example}, ...)"
        )
    for label, (first, *others) in ((label, some) for label, some in found.items() if some):
        for other in others:
            if other.parent != first.parent or other.suffix == first.suffix:
                raise InputError(f"{root / first} and {root / other} both fit {label}; take one of them away")
    return [root / some[0] if some else None for some in found.values()], len(files) - count


def _agree(file: PurePath, label: PurePath) -> bool:
    """Whether the shorter of two folders is the end of the longer one."""
    return all(map(str.__eq__, reversed(file.parts[:-1]), reversed(label.parts[:-1])))


def read_prediction(path: str | os.PathLike[str], scale: float = 1000.0) -> npt.NDArray[np.float32]:
    """Read a prediction.

    Args:
        path: A ``.npy`` file of floats in meters, shape ``(H, W)`` or ``(1, H, W)``; else a 16-bit PNG.
        scale: A PNG's levels per meter.

    Returns:
        Depth [m], ``float32``, shape ``(H, W)``.

    Raises:
        InputError: If it cannot be read, has another shape or type, or holds no number.
    """
    depth = read_depth(path, 1.0, bits=32) if is_array(path) else read_depth(path, 1 / scale, bits=16)
    if not np.isfinite(depth).any():
        raise InputError(f"{path}: holds no finite value")
    return depth


def score_predictions(
    predictions: str | os.PathLike[str],
    root: str | os.PathLike[str],
    *,
    split: str = "val",
    protocol: str | None = None,
    scale: float = 1000.0,
    allow: Sequence[str] = (),
    advance: Callable[[int, int], None] | None = None,
    **source: Any,
) -> dict[str, Any]:
    """Evaluate prediction files.

    Args:
        predictions: The folder of the files.
        root: The data root.
        split: "train", "val" or "test".
        protocol: A protocol's name, or "all" that fit the data; None: the one that follows from the data.
        scale: Levels per metre of PNG files.
        allow: Names of findings in the data that do not stop the evaluation.
        advance: Called after each frame with how many were evaluated and how many there are.
        source: The layout and how it is to be understood, as :func:`registry.open_root` takes them.

    Returns:
        What :meth:`depthnet.evaluation.evaluator.Evaluation.record` gives, and "protocol", "ground_truth", "found",
        "expected", "split", "metrics" (of that protocol), "judged" (which frames, in words), "data", "missing"
        (labels), "unmatched" (files of no frame), "median" (the predictions' median depth [m], over all frames).

    Raises:
        InputError: If anything is wrong with the data, the files, or what was asked for.
    """
    import torch

    from depthnet.evaluation.evaluator import Evaluation, describe_frames
    from depthnet.evaluation.protocols import choose_protocols, default_protocol

    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"--scale {scale}: needs a number of levels per meter above 0")
    data = open_root(root, **source)
    require_sound(cheap_findings(data), allow, (split,))
    evaluation = Evaluation(choose_protocols(protocol or "auto", data, split))
    if evaluation.flip_test:
        plain = str(protocol).removesuffix("_flip")
        raise InputError(
            f"--protocol {protocol}: files hold no prediction of the mirrored images to average; give {plain}, and "
            "average before you write them"
        )
    expected = data.count(split)
    labels = [data.label(split, frame) for frame in range(expected)]
    files, unmatched = find_predictions(predictions, labels)
    present = [(frame, path) for frame, path in enumerate(files) if path is not None]
    medians = []
    for done, (frame, path) in enumerate(present, start=1):
        pred, depth = read_prediction(path, scale), data.read(split, frame)[1]
        _check_aspect(path, pred.shape, depth.shape)
        medians.append(float(np.nanmedian(pred)))
        prediction, target = (torch.from_numpy(np.ascontiguousarray(array))[None, None] for array in (pred, depth))
        evaluation.update(prediction, target, target > 0, frame)
        if advance is not None:
            advance(done, len(present))
    record = evaluation.record(labels, [data.scene(split, frame) for frame in range(expected)])
    default, figures = default_protocol(data.nyu, data.ground_truth, data.size(split, 0)), record["protocols"]
    first = default if default in figures else next(iter(figures))
    return {
        "protocol": first,
        "ground_truth": data.ground_truth,
        "found": len(present),
        "expected": expected,
        "split": split,
        "metrics": figures[first],
        **record,
        "judged": describe_frames(data, split, [frame for frame, _ in present]),
        "data": data.description,
        "missing": [label for label, path in zip(labels, files, strict=True) if path is None],
        "unmatched": unmatched,
        "median": float(np.median(medians)),
    }


def _check_aspect(path: Path, size: tuple[int, ...], true_size: tuple[int, ...]) -> None:
    """Refuse a prediction of another aspect than the ground truth, but for rounding: it is cropped or turned."""
    (height, width), (tall, wide) = size, true_size
    if abs(height * wide / (width * tall) - 1) > max(0.05, 1 / min(height, width)):
        sizes = f"{height}x{width} values for ground truth of {tall}x{wide}"
        raise InputError(f"{path}: {sizes}; another aspect, so it is cropped or turned")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = tool_parser("evaluate", __doc__)
    parser.add_argument("predictions", metavar="PREDICTIONS", help="folder of .npy or .png files")
    parser.add_argument("root", metavar="ROOT", help="folder of the data")
    parser.add_argument("--split", choices=SPLITS, default="val")
    parser.add_argument("--protocol", metavar="NAME", help="a protocol, or all (default: what follows from the data)")
    parser.add_argument("--output", metavar="FILE", help="write the metrics there, to full precision")
    parser.add_argument("--scale", type=float, default=1000.0, help="a PNG's levels per meter (default: 1000)")
    parser.add_argument("--allow", nargs="+", default=(), metavar="NAME", help="findings in the data that may pass")
    add_source_options(parser)
    return run_tool(parser, arguments, _run)


def _run(options: argparse.Namespace) -> int:
    from depthnet.evaluation.evaluator import metrics_table

    if options.output is not None:
        require_writable(Path(options.output).parent)
    with progress_bar("frames") as advance:
        choices = {name: getattr(options, name) for name in ("split", "protocol", "scale", "allow")}
        result = score_predictions(
            options.predictions, options.root, advance=advance, **choices, **source_options(options)
        )
    found, expected = result["found"], result["expected"]
    spare = f"; {result['unmatched']} files belong to none" if result["unmatched"] else ""
    print(f"found predictions of {found} of {expected} {options.split} frames{spare}")
    title = (
        f"{result['data']}, {options.split} ({count_in_words(found, expected)}, {result['ground_truth']} ground truth)"
    )
    print(f"evaluated: {result['judged']}")
    who = Path(options.predictions).resolve().name
    metrics_table({who: result["protocols"]}, title, {who: result["intervals"]}).print()
    if options.output is not None:
        write_json(options.output, result)
    return _warn(result)


def _warn(result: dict[str, Any]) -> int:
    """Warn about what the metrics do not show, and return the exit code."""
    for name, empty in result["empty"].items():
        print(f"warning: {name}: {len(empty)} frames have no valid pixel and count in no mean", file=sys.stderr)
    if result["median"] > 100:
        unit = "a .npy holds meters; for PNG, --scale gives the levels per meter"
        print(f"warning: the predictions' median is {result['median']:.0f} m; {unit}", file=sys.stderr)
    if result["missing"]:
        missing = f"{len(result['missing'])} frames have no prediction ({result['missing'][0]}, ...)"
        print(f"warning: {missing}; the metrics are of the others", file=sys.stderr)
    return int(bool(result["missing"]))
