"""What weights were trained on, back to where they began, and so under which terms they may be passed on."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from depthnet.core.types import InputError
from depthnet.data.layouts.registry import LAYOUTS
from depthnet.models.checkpoint import read_checkpoint

NYU_LICENSE = "research use, non-commercial: trained on NYU Depth V2; cite Silberman et al., ECCV 2012"

NYU_LAYOUTS = tuple(name for name, kind in LAYOUTS.items() if kind.nyu)
_MOST = 20  # checkpoints that each began with another


class Origin(NamedTuple):
    """What weights come from.

    Attributes:
        data: What all runs behind them were trained on: "nyu", "rooms", "own" pairs, "unknown".
        pretrained: The encoders that began with weights of others; as ``model.pretrained`` named these, if by a file.
    """

    data: frozenset[str]
    pretrained: frozenset[str] = frozenset()


def find_origin(run: Any, layout: str | None = None, most: int = _MOST) -> Origin:
    """Find what weights were trained on, in their own run and in those whose checkpoints it started from.

    Args:
        run: The config of the run that trained them, as a checkpoint's record has it.
        layout: The name of the layout that its data turned out to be; None: as its config names it.
        most: How many checkpoints to follow.
    """
    parts = [Origin(frozenset({"unknown"}))]
    if isinstance(run, Mapping) and isinstance(run.get("runs"), list) and run["runs"]:  # an average
        parts = [find_origin(one, most=most - 1) for one in run["runs"]]
    elif isinstance(run, Mapping) and isinstance(run.get("data"), Mapping) and most >= 0:
        model, start = run.get("model") or {}, run.get("ckpt")
        encoder = set()
        if model.get("pretrained") not in (None, False, "auto"):
            source = "" if model["pretrained"] is True else f", from {model['pretrained']}"
            encoder = {f"{model.get('encoder', 'its own')}{source}"}
        parts = [Origin(_kinds(run["data"], layout), frozenset(encoder))]
        if start:
            record = {}
            with contextlib.suppress(InputError):  # it was moved
                record = read_checkpoint(start).record
            parts.append(find_origin(record.get("run"), most=most - 1))
    data, pretrained = (frozenset().union(*some) for some in zip(*parts, strict=True))
    return Origin(data, pretrained)


def _kinds(data: Mapping[str, Any], layout: str | None) -> frozenset[str]:
    if str(data.get("_target_")).endswith(".rooms"):
        return frozenset({"rooms"})
    layout = layout or data.get("layout") or "auto"
    nyu = layout in NYU_LAYOUTS or (layout == "auto" and data.get("unit") is None)  # NYU's layouts state no unit
    return frozenset({"nyu" if nyu else "own"}) | ({"rooms"} if data.get("extra_rooms") else set())


def license_of(origin: Origin) -> str:
    """Return the terms of weights, as they follow from what these were trained on.

    Raises:
        InputError: If they do not follow: the owner of the data has to state them.

    Example:
        >>> license_of(Origin(frozenset({"rooms"}))), license_of(Origin(frozenset({"nyu", "rooms"})))[:28]
        ('mit', 'research use, non-commercial')
    """
    if "unknown" in origin.data:
        raise InputError("--license: the training data of these weights are not known; state the weights' license")
    if "own" in origin.data:
        raise InputError("--license: trained on the owner's own pairs; state the owner's choice, such as --license mit")
    if "nyu" in origin.data:
        return NYU_LICENSE
    return "MIT, but the encoder began with pretrained weights, whose terms hold too" if origin.pretrained else "mit"
