"""A run's best weights as one small file to hand on, with its card.

    depthnet export RUN --name nyu_small --output DIR --command "python train.py experiment=nyu_small"

RUN is the directory of a fit that has ended, or of a mode=test, as of an average of several fits. DIR/NAME.safetensors
holds its best weights in half precision and what a checkpoint knows of the network; whatever takes a checkpoint takes
it. DIR/NAME.md is its card: data, truth, protocol, figures with 95 % intervals, seed, command, versions, license,
limits. The license follows from the data: MIT for weights of built-in rooms alone, research use for NYU's; of one's own
pairs it has to be stated. One run always gives the same bytes.

Exit code: 0, both were written; 2, something is wrong, and nothing was written; 130, interrupted.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from depthnet.core.atomic_io import file_digest, require_writable, write_bytes, write_text
from depthnet.core.errors import finish
from depthnet.core.types import InputError
from depthnet.models.shipped import SUFFIX, pack_weights

if TYPE_CHECKING:
    from depthnet.models.network import DepthNetwork

_ROOMS = 4
_MOST = 1e-3  # mean relative change of depth


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
    parser = argparse.ArgumentParser(
        prog="depthnet export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="directory of a run that was judged")
    parser.add_argument("--name", required=True, help="the model's name, and its files'")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="where to write; NAME's files there are replaced"
    )
    parser.add_argument("--command", required=True, metavar="TEXT", help="what trains it anew, for the card")
    parser.add_argument("--license", metavar="TEXT", help="of the weights (default: what follows from their data)")
    parser.add_argument("--note", action="append", default=[], metavar="TEXT", help="a limit, for the card; repeatable")
    options = parser.parse_args(arguments)
    return finish("depthnet export", partial(_run, options))


def _run(options: argparse.Namespace) -> int:
    from depthnet.evaluation.frames import evaluated_checkpoint
    from depthnet.export.card import Export, model_card
    from depthnet.export.terms import find_origin, license_of
    from depthnet.models.checkpoint import read_checkpoint
    from depthnet.models.depth_net import load_network
    from depthnet.run.files import read_run

    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", options.name):
        raise InputError(f"--name {options.name}: letters, digits, _, - and . make a name")
    run = read_run(options.run)
    output = require_writable(options.output)
    best = evaluated_checkpoint(run)
    network, checkpoint = load_network(best), read_checkpoint(best)
    if run.config.get("mode") == "test":  # the run's own data is what they were evaluated on
        origin = find_origin(checkpoint.record.get("run"))
    else:
        origin = find_origin(run.config, run.metrics["data"]["layout"])
    terms = options.license or license_of(origin)
    content = pack_weights(checkpoint.state, checkpoint.record)
    with tempfile.TemporaryDirectory() as folder:  # what is evaluated is what a user will read
        file = Path(folder, options.name + SUFFIX)
        file.write_bytes(content)
        rounded, digest = load_network(file), file_digest(file)
    changes = depth_changes(network, rounded)
    said = f"float16 changes depth by {changes[0]:.1e} of itself on average and {changes[1]:.1e} at most, on rooms"
    if not changes[0] <= _MOST:
        raise InputError(f"{best}: {said}, and only {_MOST:g} on average is let pass; hand on the checkpoint itself")
    export = Export(options.name, options.command, origin, terms, options.note, len(content), digest, changes)
    write_text(output / f"{options.name}.md", model_card(run, rounded, export))
    write_bytes(output / f"{options.name}{SUFFIX}", content)
    parameters = sum(parameter.numel() for parameter in rounded.parameters())
    print(f"{output / options.name}{SUFFIX}: {len(content) / 1e6:.2f} MB, {parameters:,} parameters\n{said}")
    return 0
