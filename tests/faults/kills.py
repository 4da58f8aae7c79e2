"""Training runs that are killed, stopped and resumed, compared with one that was left alone, bit for bit."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import select
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from forge import Forge

RUN = (
    "data=rooms",
    "model=tiny",
    "data.frames={train: 26, val: 9, test: 0}",
    "data.image_size=[48,64]",
    "data.batch_size=4",
    "data.eval_batch_size=2",
    "augment=strong",
    "callbacks=ema",
    "callbacks.average.decay=0.9",
    "callbacks.last.every_n_steps=2",
    "logger=none",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=1",
    "resume=auto",
)
"""Six steps an epoch and frames to spare, all that is random in training, and everything that keeps state."""


def differences(one: Path, other: Path) -> list[str]:
    """Return what differs between two runs that have ended: weights, all state, history, figures and pictures."""
    found = []
    for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        contents = [torch.load(run / name, weights_only=True) for run in (one, other)]
        for content in contents:
            content["depthnet"]["run"]["data"].pop("num_workers")  # these may differ
            content["depthnet"]["run"]["callbacks"].pop("last")
        found += [f"{name}: {place}" for place in _unequal(*map(_without(one, other), contents))]
    for name in ("history.csv", "steps.csv", "per_image.csv"):
        if (one / name).read_bytes() != (other / name).read_bytes():
            found.append(name)
    figures = [json.loads((run / "metrics.json").read_text()) for run in (one, other)]
    found += [f"metrics.json: {key}" for key in figures[0] if figures[0][key] != figures[1].get(key)]
    panels = [{path.name: path.read_bytes() for path in (run / "panels").iterdir()} for run in (one, other)]
    return found + ["panels"] * (panels[0] != panels[1])


def _without(*directories: Path) -> Callable[[Any], Any]:
    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {strip(key): strip(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [strip(item) for item in value]
        for directory in directories:
            value = value.replace(str(directory), "RUN") if isinstance(value, str) else value
        return value

    return strip


def _unequal(one: Any, other: Any, place: str = "") -> list[str]:
    """Return the places at which two nested values differ; tensors are compared bit by bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return [f"{place}: keys {sorted(map(str, one.keys() ^ other.keys()))}"]
        return [line for key in one for line in _unequal(one[key], other[key], f"{place}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            line for i, pair in enumerate(zip(one, other, strict=True)) for line in _unequal(*pair, f"{place}[{i}]")
        ]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
        return [] if same or (one.isnan().all() and other.isnan().all()) else [place]
    return [] if one == other or (one != one and other != other) else [f"{place}: {one!r} {other!r}"]


def send(number: int, when: bytes, count: int, delay: float, process: int, hear: int) -> bytes:
    """Send a signal some time after the process has told of a phase for the count-th time, or let it end first."""
    told = b""
    while told.count(when) < count:
        part = os.read(hear, 1)
        if not part:
            return told
        told += part
    select.select([], [], [], delay)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)
    return told


def whole(forge: Forge, folder: Path, *words: str) -> Path:
    """Run one that nothing happens to, and return its directory."""
    ended = forge.run(folder / "whole", *RUN, "data.num_workers=0", *words)
    assert ended.code == 0, ended.output
    return folder / "whole"


def killed_at_random(draw: random.Random) -> Callable[[int, int], bytes]:
    """Return what kills a run after its first step: a third anywhere, a third about a save, a third in a validation."""
    kind = draw.choice(["any", "save", "validation"])
    when, count, delay = {
        "any": (b"t", draw.randint(1, 14), draw.uniform(0, 0.3)),
        "save": (b"S", draw.randint(1, 8), draw.uniform(0, 0.04)),
        "validation": (b"V", draw.randint(1, 2), draw.uniform(0, 0.15)),
    }[kind]
    return functools.partial(send, signal.SIGKILL, when, count, delay)


def survive_kills(folder: Path, kills: int, seed: int = 0) -> list[tuple[str, int, int, int, int]]:
    """Kill runs at random until so many kills have landed after a first step, resume each, and compare the ends.

    Returns:
        A row (fault, tries, landed, survived, lost) for each phase that kills landed in, and one for all.
    """
    draw = random.Random(seed)
    forge = Forge(folder)
    whole(forge, folder)
    tries, landed, lost = 0, Counter[str](), Counter[str]()
    chain = 0
    while landed.total() < kills:
        workers, directory = chain % 3, folder / f"chain_{chain}"
        chain += 1
        phases: Counter[str] = Counter()
        while landed.total() + phases.total() < kills:
            tries += 1
            ended = forge.run(directory, *RUN, f"data.num_workers={workers}", watch=killed_at_random(draw))
            if ended.code == -signal.SIGKILL and ended.steps:
                phases[ended.phase] += 1
            elif ended.code != -signal.SIGKILL:
                break
        ended = forge.run(directory, *RUN, f"data.num_workers={workers}")
        found = [ended.output] if ended.code else differences(folder / "whole", directory)
        landed += phases
        if found:
            lost += phases
            print(f"{directory}: {found}", file=sys.stderr)
    rows = [
        (f"SIGKILL, {phase}", landed[phase], landed[phase], landed[phase] - lost[phase], lost[phase])
        for phase in landed
    ]
    return [*rows, ("SIGKILL, all", tries, landed.total(), landed.total() - lost.total(), lost.total())]
