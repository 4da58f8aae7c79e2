"""Evaluate a checkpoint, or prediction files of any program, against a data root.

    depthnet evaluate PREDICTIONS ROOT --split val --protocol NAME --output score.json
    depthnet evaluate CKPT|RUN|NAME ROOT --split val --corrupt blur
    depthnet evaluate --list-protocols

CKPT is a checkpoint file, RUN a run's directory (its best checkpoint), NAME a shipped model: it predicts each frame as
an evaluation by train.py does. PREDICTIONS is a folder of .npy files (floats, meters, HxW or 1xHxW) or 16-bit PNG files
(--scale levels per meter). A frame's file is found by the frame's label, the path of its image below ROOT without the
suffix: that of train/rgb_00018 is rgb_00018.npy or rgb_00018_depth.npy, in PREDICTIONS itself or in folders that end as
the label's do; else the same with .png. So the files of depthnet predict are found.

Exit code: 0, every frame was found and evaluated; 1, some frames have no file, and the metrics are of the others; 2,
something is wrong, and nothing was evaluated; 130, interrupted.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from depthnet.core.atomic_io import require_writable, write_json
from depthnet.core.errors import run_tool, tool_parser
from depthnet.core.images import is_array, read_depth
from depthnet.core.progress import progress_bar
from depthnet.core.tables import count_in_words
from depthnet.core.types import BEST, InputError
from depthnet.data.layouts.layout import SPLITS, Layout
from depthnet.data.layouts.registry import add_source_options, open_root, source_options
from depthnet.data.validation.check import cheap_findings, require_sound
from depthnet.models.checkpoint import find_checkpoint
from depthnet.models.shipped import shipped_models

if TYPE_CHECKING:
    from torch import Tensor

    _Batch = tuple[Tensor, Tensor, Tensor, Tensor | None]  # prediction, depth, mask, mirrored prediction

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
    corrupt: str | None = None,
    edges: bool = False,
    advance: Callable[[int, int], None] | None = None,
    **source: Any,
) -> dict[str, Any]:
    """Evaluate prediction files, or a checkpoint.

    Args:
        predictions: The folder of the files; or a checkpoint, the directory of a run, or a shipped model's name.
        root: The data root.
        split: "train", "val" or "test".
        protocol: A protocol's name, or "all" that fit the data; None: the one that follows from the data.
        scale: Levels per meter of PNG files.
        allow: Names of findings in the data that do not stop the evaluation.
        corrupt: A corruption of the images that a checkpoint sees, of :mod:`depthnet.evaluation.corruptions`.
        edges: Whether to measure ``edge_f1``, the sharpness of depth boundaries, too.
        advance: Called after each frame with how many were evaluated and how many there are.
        source: The layout and how it is to be understood, as :func:`registry.open_root` takes them.

    Returns:
        What :meth:`depthnet.evaluation.evaluator.Evaluation.record` gives, and "protocol", "ground_truth", "found",
        "expected", "split", "metrics" (of that protocol), "evaluated" (which frames, in words), "data", "missing"
        (labels), "unmatched" (files of no frame), "median" (the predictions' median depth [m], over all frames), and
        with ``edges`` "edge_f1", its mean under that protocol.

    Raises:
        InputError: If anything is wrong with the data, the files, or what was asked for.
    """
    from depthnet.evaluation.evaluator import Evaluation, describe_frames
    from depthnet.evaluation.protocols import choose_protocols, default_protocol
    from depthnet.evaluation.sharpness import edge_f1

    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"--scale {scale}: needs a number of levels per meter above 0")
    data = open_root(root, **source)
    require_sound(cheap_findings(data), allow, (split,))
    protocols = choose_protocols(protocol or "auto", data, split)
    evaluation, checkpoint = Evaluation(protocols), _find_checkpoint(predictions)
    if corrupt is not None and checkpoint is None:
        raise InputError(f"--corrupt {corrupt}: files hold no prediction of corrupted images; give a checkpoint")
    if evaluation.flip_test and checkpoint is None:
        plain = str(protocol).removesuffix("_flip")
        raise InputError(
            f"--protocol {protocol}: files hold no prediction of the mirrored images to average; give {plain}, and "
            "average before you write them"
        )
    expected = data.count(split)
    labels = [data.label(split, frame) for frame in range(expected)]
    default = default_protocol(data.nyu, data.ground_truth, data.size(split, 0))
    first = default if default in evaluation.protocols else protocols[0].name
    batches: Iterator[_Batch]
    if checkpoint is None:
        files, unmatched = find_predictions(predictions, labels)
        found = {frame: path for frame, path in enumerate(files) if path is not None}
        present, missing = list(found), [labels[frame] for frame, path in enumerate(files) if path is None]
        batches = (_read_batch(data, split, frame, path, scale) for frame, path in found.items())
    else:
        present, missing, unmatched = list(range(expected)), [], 0
        batches = _predict_batches(checkpoint, data, split, corrupt, evaluation.flip_test)
    medians, sharp = [], []
    for done, (frame, (pred, depth, mask, flipped)) in enumerate(zip(present, batches, strict=True), start=1):
        medians.append(float(np.nanmedian(pred.numpy())))
        evaluation.update(pred, depth, mask, frame, flipped)
        if edges:
            mean = pred if flipped is None else (pred + flipped) / 2  # only where all protocols average flips
            seen = evaluation.protocols[first](mean, depth, mask)
            sharp.append(edge_f1(*(part[0, 0].numpy() for part in seen)))
        if advance is not None:
            advance(done, len(present))
    record = evaluation.record(labels, [data.scene(split, frame) for frame in range(expected)])
    return {
        "protocol": first,
        "ground_truth": data.ground_truth,
        "found": len(present),
        "expected": expected,
        "split": split,
        "metrics": record["protocols"][first],
        **record,
        "evaluated": describe_frames(data, split, present),
        "data": data.description,
        "missing": missing,
        "unmatched": unmatched,
        "median": float(np.median(medians)),
        **({"edge_f1": float(np.nanmean(sharp))} if edges else {}),
    }


def _find_checkpoint(name: str | os.PathLike[str]) -> Path | None:
    """Return the checkpoint that a name stands for; None for a folder of prediction files."""
    path = Path(name)
    if path.is_dir() and not (path / BEST).exists():
        return None
    if not path.exists() and str(name) not in shipped_models():
        known = ", ".join(shipped_models())
        raise InputError(f"{name}: no such folder of predictions, checkpoint or run, nor a shipped model ({known})")
    return find_checkpoint(name)


def _read_batch(data: Layout, split: str, frame: int, path: Path, scale: float) -> _Batch:
    import torch

    pred, depth = read_prediction(path, scale), data.read(split, frame)[1]
    _check_aspect(path, pred.shape, depth.shape)
    prediction, target = (torch.from_numpy(np.ascontiguousarray(array))[None, None] for array in (pred, depth))
    return prediction, target, target > 0, None


def _predict_batches(checkpoint: Path, data: Layout, split: str, corrupt: str | None, flip: bool) -> Iterator[_Batch]:
    """Predict every frame as the evaluation of a run does."""
    from depthnet.core.device import torch_device
    from depthnet.evaluation.corruptions import find_corruption
    from depthnet.evaluation.frames import FramePredictor

    change = None if corrupt is None else find_corruption(corrupt)
    predictor = FramePredictor(checkpoint, data, split, torch_device())
    for frame in range(data.count(split)):
        sample, pred, flipped = predictor.predict(frame, change, flip)
        yield pred, sample.depth, sample.mask, flipped


def _check_aspect(path: Path, size: tuple[int, ...], true_size: tuple[int, ...]) -> None:
    """Refuse a prediction of another aspect than the ground truth, but for rounding: it is cropped or turned."""
    (height, width), (tall, wide) = size, true_size
    if abs(height * wide / (width * tall) - 1) > max(0.05, 1 / min(height, width)):
        sizes = f"{height}x{width} values for ground truth of {tall}x{wide}"
        raise InputError(f"{path}: {sizes}; another aspect, so it is cropped or turned")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = tool_parser("evaluate", __doc__)
    parser.add_argument(
        "predictions", metavar="PREDICTIONS", nargs="?", help="folder of .npy or .png files; a checkpoint, run or model"
    )
    parser.add_argument("root", metavar="ROOT", nargs="?", help="folder of the data")
    parser.add_argument("--split", choices=SPLITS, default="val")
    parser.add_argument("--protocol", metavar="NAME", help="a protocol, or all (default: what follows from the data)")
    parser.add_argument("--output", metavar="FILE", help="write the metrics there, to full precision")
    parser.add_argument("--scale", type=float, default=1000.0, help="a PNG's levels per meter (default: 1000)")
    parser.add_argument("--corrupt", metavar="NAME", help="corrupt the images that a checkpoint sees, such as blur")
    parser.add_argument("--edges", action="store_true", help="measure the sharpness of depth boundaries, too")
    parser.add_argument("--list-protocols", action="store_true", help="define every protocol, and exit")
    parser.add_argument("--allow", nargs="+", default=(), metavar="NAME", help="findings in the data that may pass")
    add_source_options(parser)
    return run_tool(parser, arguments, _run)


def _run(options: argparse.Namespace) -> int:
    from depthnet.evaluation.evaluator import metrics_table
    from depthnet.evaluation.protocols import PROTOCOLS

    if options.list_protocols:
        for protocol in PROTOCOLS.values():
            print(f"{protocol.name} (digest {protocol.digest})")
            print(textwrap.fill(protocol.definition, 100, initial_indent="    ", subsequent_indent="    ") + "\n")
        return 0
    if options.root is None:
        raise InputError("name what is evaluated and the folder of the data: depthnet evaluate PREDICTIONS ROOT")
    if options.output is not None:
        require_writable(Path(options.output).parent)
    with progress_bar("frames") as advance:
        choices = {name: getattr(options, name) for name in ("split", "protocol", "scale", "corrupt", "edges", "allow")}
        result = score_predictions(
            options.predictions, options.root, advance=advance, **choices, **source_options(options)
        )
    found, expected = result["found"], result["expected"]
    spare = f"; {result['unmatched']} other files ignored" if result["unmatched"] else ""
    print(f"found predictions of {found} of {expected} {options.split} frames{spare}")
    title = (
        f"{result['data']}, {options.split} ({count_in_words(found, expected)}, {result['ground_truth']} ground truth)"
    )
    print(f"evaluated: {result['evaluated']}")
    who = Path(options.predictions).resolve().name
    metrics_table({who: result["protocols"]}, title, {who: result["intervals"]}).print()
    if options.edges:
        print(f"edge_f1 {result['edge_f1']:.3f} ({result['protocol']})")
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
