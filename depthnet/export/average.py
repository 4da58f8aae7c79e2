"""Average the weights of networks with a common start into one checkpoint.

    depthnet average RUN RUN... --output soup.ckpt

RUN is a run's directory (its best checkpoint is taken) or a checkpoint. All must be of one network and should have
started from the same weights, such as runs of several seeds with the same `ckpt=`: of others the average is worthless.
Evaluate it before you use it: python train.py mode=test split=val ckpt=soup.ckpt ...

Source: Wortsman et al., "Model soups", ICML 2022.

Exit code: 0, done; 2, something is wrong, and nothing was written; 130, interrupted.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from depthnet.core.atomic_io import file_digest, require_writable
from depthnet.core.errors import run_tool, tool_parser
from depthnet.core.types import InputError
from depthnet.models.checkpoint import RECORD_KEY, Checkpoint, find_checkpoint, read_checkpoint, save_plain


def average(paths: Sequence[str | os.PathLike[str]]) -> Checkpoint:
    """Average the weights of checkpoints, normalization statistics too; whole numbers are the first one's.

    Args:
        paths: At least two, each as :func:`depthnet.models.checkpoint.find_checkpoint` takes it.

    Returns:
        A checkpoint whose record has, for the run's config, the SHA-256 of each file and each one's own run:
        ``{"averaged": [...], "runs": [...]}``.

    Raises:
        InputError: If there are fewer than two, one cannot be read, or they are not of one network.
    """
    import torch

    files = [find_checkpoint(path) for path in paths]
    if len(files) < 2:
        raise InputError("an average takes two checkpoints or more")
    first, *others = checkpoints = [read_checkpoint(file) for file in files]
    for file, other in zip(files[1:], others, strict=True):
        stated, own = ({"network": one.network, **one.config} for one in (first, other))
        if keys := [key for key in stated | own if stated.get(key) != own.get(key)]:
            raise InputError(f"{file}: not the network of {files[0]}: its {keys[0]} differs")
    state = {
        name: torch.stack([one.state[name] for one in checkpoints]).mean(0) if value.is_floating_point() else value
        for name, value in first.state.items()
    }
    runs = [one.record.get("run") for one in checkpoints]
    record = first.record | {"run": {"averaged": [file_digest(file) for file in files], "runs": runs}}
    return Checkpoint(first.network, first.config, state, record)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = tool_parser("average", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run, or a checkpoint")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the checkpoint to write")
    return run_tool(parser, arguments, _run)


def _run(options: argparse.Namespace) -> int:
    require_writable(options.output.parent)
    found = average(options.runs)
    state = {f"network.{name}": value for name, value in found.state.items()}
    save_plain(options.output, {"state_dict": state, RECORD_KEY: found.record})
    print(f"{options.output}: the average of {len(options.runs)} checkpoints; evaluate it before you use it")
    return 0
