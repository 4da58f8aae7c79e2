"""Export a run's best weights as one small file, with its card.

    depthnet export RUN --name nyu_small --output DIR --command "python train.py experiment=nyu_small"

RUN is the directory of a fit that has ended, or of a mode=test, such as that of an average. DIR/NAME.safetensors holds
its best weights in half precision and a checkpoint's record of the network; it is read wherever a checkpoint is.
DIR/NAME.md is its card: data, ground truth, protocol, figures with 95 % intervals, seed, command, versions, license,
limits. The license follows from the data: MIT for weights of built-in rooms alone, research use for NYU's; for your own
pairs state it. One run always gives the same bytes.

Exit code: 0, both were written; 2, something is wrong, and nothing was written; 130, interrupted.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthnet.core.atomic_io import file_digest, require_writable, write_bytes, write_text
from depthnet.core.errors import run_tool, tool_parser
from depthnet.core.types import InputError
from depthnet.export.portable import portable
from depthnet.models.checkpoint import RECORD_KEY, read_checkpoint
from depthnet.models.shipped import SUFFIX

if TYPE_CHECKING:
    from torch import Tensor

    from depthnet.models.network import DepthNetwork

_ROOMS = 4
_MOST = 1e-3  # mean relative change of depth
_SMALL = 4096  # numbers; most of the harm that rounding does to a network is done in its small convolutions
_ROUNDING = 2.0**-11  # of float16, relative to a number that is not among its smallest


def pack_weights(state: Mapping[str, Tensor], record: Mapping[str, Any]) -> bytes:
    """Return the bytes of a file of half-precision weights; the same input gives the same bytes.

    Vectors (biases, and all of normalization) and small tensors keep their precision, and so does a tensor that float16
    cannot hold to its own precision, because its numbers are too large or all tiny.

    Args:
        state: A network's state, by its own names.
        record: As :func:`depthnet.models.checkpoint.make_record` gives it; absolute paths in it are removed.
    """
    from safetensors.torch import save

    text = json.dumps(portable(record), sort_keys=True)
    return save({name: _halved(state[name]) for name in sorted(state)}, {RECORD_KEY: text})


def _halved(value: Tensor) -> Tensor:
    value = value.detach().cpu().contiguous()
    if not value.is_floating_point() or value.ndim < 2 or value.numel() <= _SMALL:
        return value
    half = value.half()
    return half if (half.float() - value).abs().max() <= _ROUNDING * value.abs().max() else value


def depth_changes(network: DepthNetwork, other: DepthNetwork) -> tuple[float, float]:
    """Compare two networks on some built-in rooms.

    Returns:
        The mean and the largest change of depth over all pixels, as a share of the first network's.
    """
    import numpy as np

    from depthnet.data.rooms.layout import RoomsLayout

    rooms = RoomsLayout({"val": _ROOMS}, network.image_size, depth_range=network.depth_range)
    images = [rooms.read("val", place)[0] for place in range(_ROOMS)]
    changes = np.stack([np.abs(other.infer(image) / network.infer(image) - 1) for image in images])
    return float(changes.mean()), float(changes.max())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = tool_parser("export", __doc__)
    parser.add_argument("run", metavar="RUN", help="directory of a run that was evaluated")
    parser.add_argument("--name", required=True, help="the model's name, and its files'")
    parser.add_argument("--output", required=True, metavar="DIR", help="where to write (files of NAME are replaced)")
    parser.add_argument("--command", required=True, metavar="TEXT", help="what trains it again, for the card")
    parser.add_argument("--license", metavar="TEXT", help="of the weights (default: what follows from their data)")
    parser.add_argument("--note", action="append", default=[], metavar="TEXT", help="a limit, for the card; repeatable")
    return run_tool(parser, arguments, _run)


def _run(options: argparse.Namespace) -> int:
    from depthnet.evaluation.frames import evaluated_checkpoint
    from depthnet.export.card import Export, model_card
    from depthnet.export.terms import find_origin, license_of
    from depthnet.models.depth_net import load_network
    from depthnet.run.files import read_run

    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", options.name):
        raise InputError(f"--name {options.name}: letters, digits, _, - and . make a name")
    run = read_run(options.run)
    output = require_writable(options.output)
    best = evaluated_checkpoint(run)
    network, checkpoint = load_network(best), read_checkpoint(best)
    test = run.config.get("mode") == "test"  # its data is what the weights were evaluated on
    trained = (checkpoint.record.get("run"), None) if test else (run.config, run.metrics["data"]["layout"])
    origin = find_origin(*trained)
    terms = options.license or license_of(origin)
    content = pack_weights(checkpoint.state, checkpoint.record)
    with tempfile.TemporaryDirectory() as folder:  # compare the file itself
        file = Path(folder, options.name + SUFFIX)
        file.write_bytes(content)
        rounded, digest = load_network(file), file_digest(file)
    changes = depth_changes(network, rounded)
    change = f"float16 changes depth by {changes[0]:.1e} of itself on average and {changes[1]:.1e} at most, on rooms"
    if not changes[0] <= _MOST:
        raise InputError(f"{best}: {change}; the limit is {_MOST:g} on average: publish the checkpoint itself")
    export = Export(options.name, options.command, origin, terms, options.note, len(content), digest, changes)
    write_text(output / f"{options.name}.md", model_card(run, rounded, export))
    write_bytes(output / f"{options.name}{SUFFIX}", content)
    parameters = sum(parameter.numel() for parameter in rounded.parameters())
    print(f"{output / options.name}{SUFFIX}: {len(content) / 1e6:.2f} MB, {parameters:,} parameters\n{change}")
    return 0
