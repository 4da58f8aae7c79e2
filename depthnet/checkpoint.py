"""Checkpoint files as plain data: tensors, and a record that JSON could hold. No Lightning, and nothing is run.

A file is what Lightning writes (``state_dict`` and more) with one key of ours, ``depthnet``: the network's name and
constructor arguments, its unit, and the run's resolved config. :func:`read_checkpoint` needs only these two keys. It
always loads with ``weights_only=True``, so a hostile file can do nothing.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from depthnet.durable import file_digest, open_durable, write_json, write_text
from depthnet.types import InputError

__all__ = [
    "FORMAT",
    "RECORD_KEY",
    "Checkpoint",
    "count_test",
    "fitting_weights",
    "load_plain",
    "load_weights",
    "make_record",
    "read_checkpoint",
    "save_plain",
]

FORMAT = 1
RECORD_KEY = "depthnet"
_PREFIX = "network."


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of its network.

    Attributes:
        network: The network class's name, for the allow list of networks.
        config: That class's constructor arguments.
        state: The network's state, by its own names.
        record: The whole record, the run's config among it.
    """

    network: str
    config: dict[str, Any]
    state: dict[str, Tensor]
    record: dict[str, Any]


def make_record(network: nn.Module, run: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describe a network so that the description and its state give it back.

    Args:
        network: One of this project's networks; its ``config()`` gives the constructor arguments.
        run: The resolved config of the run that trains it, kept as a record only.

    Raises:
        TypeError: If something in it is not plain data.
    """
    record = {
        "format": FORMAT,
        "network": type(network).__name__,
        "config": network.config(),  # type: ignore[operator]  # a method, though nn.Module's __getattr__ hides it
        "unit": "metre",
        "run": run,
    }
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain


def save_plain(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write ``content`` with torch.save, whole, and its SHA-256 beside it in ``<name>.sha256``.

    Raises:
        InputError: If it cannot be written; the checkpoint that stood there is untouched.
    """
    path = Path(path)
    with open_durable(path) as file:
        torch.save(dict(content), file)
    write_text(path.with_name(path.name + ".sha256"), f"{file_digest(path)}  {path.name}\n")


def load_plain(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Load a file of tensors and plain data; whatever else it holds is refused, not run.

    Raises:
        InputError: If it is missing, torn, no checkpoint, or holds anything but plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(f"{path}: holds more than tensors and plain data, so it is not loaded") from None
    except Exception as error:  # torch fails in many ways on what is no checkpoint
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: cannot be read as a checkpoint ({reason}); it may be torn") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    return content


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read one of this project's checkpoints.

    Raises:
        InputError: If it cannot be loaded, or was not written by this project or by a newer form of it.
    """
    content = load_plain(path)
    record, state = content.get(RECORD_KEY), content.get("state_dict")
    if not isinstance(record, dict) or not isinstance(state, dict):
        raise InputError(f"{path}: not a depthnet checkpoint (it has no '{RECORD_KEY}' record)")
    if record.get("format") != FORMAT:
        raise InputError(f"{path}: its format is {record.get('format')!r}, this version reads {FORMAT}")
    network, config = record.get("network"), record.get("config")
    if not isinstance(network, str) or not isinstance(config, dict):
        raise InputError(f"{path}: its record names no network; it is damaged")
    weights = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
    return Checkpoint(network, config, weights, record)


def fitting_weights(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of ``state`` that a network has by the same name and shape."""
    own = network.state_dict()
    return {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}


def load_weights(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Copy every tensor that fits into a network, to fine-tune from it.

    Args:
        network: Changed in place.
        state: Tensors by the network's own names.

    Returns:
        A line for everything that did not fit: missing, unknown, or of another shape.
    """
    own = network.state_dict()
    fitting = fitting_weights(network, state)
    network.load_state_dict(fitting, strict=False)
    lines = [
        f"{name}: {tuple(value.shape)} in the checkpoint, {tuple(own[name].shape)} here"
        for name, value in state.items()
        if name in own and name not in fitting
    ]
    lines += [f"{name}: not in the checkpoint" for name in own if name not in state]
    lines += [f"{name}: only in the checkpoint" for name in state if name not in own]
    return lines


def count_test(path: str | os.PathLike[str], entry: Mapping[str, Any]) -> int | None:
    """Note, beside a checkpoint, that it was judged on a test split.

    A test split that is judged often, and by whose figures something is chosen, tests nothing any more; so every
    judgement is kept in ``<checkpoint>.tests.json``.

    Args:
        path: The checkpoint.
        entry: What to keep of this judgement, as plain values.

    Returns:
        How many judgements of these very weights are noted there; None where the record cannot be read or written.
    """
    record = Path(f"{os.fspath(path)}.tests.json")
    try:
        digest = file_digest(path)
        entries = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else []
        if not isinstance(entries, list):
            return None
        entries.append({"sha256": digest, **entry})
        write_json(record, entries)
        return [known["sha256"] for known in entries].count(digest)
    except (
        InputError,
        OSError,
        ValueError,
        TypeError,
        LookupError,
    ):  # a checkpoint that is only lent, or a torn record
        return None
