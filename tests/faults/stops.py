"""Runs that are told to stop, damaged, poisoned or started twice."""

from __future__ import annotations

import functools
import random
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from forge import Ended, Forge
from kills import RUN, differences, send, whole

SLOW = """
import time
from depthnet.training.module import DepthModule
step = DepthModule.training_step
DepthModule.training_step = lambda self, *a: (time.sleep(20), step(self, *a))[1]
"""
POISON = """
import torch
from depthnet.data.dataset import DepthDataset
item = DepthDataset.__getitem__
def poisoned(self, key):
    sample = item(self, key)
    epoch, frame = key if isinstance(key, tuple) else (None, key)
    if self.split == "train" and frame in {frames} and epoch in {epochs}:
        sample = sample._replace(depth=torch.full_like(sample.depth, torch.nan), mask=torch.ones_like(sample.mask))
    return sample
DepthDataset.__getitem__ = poisoned
"""
"""Depth that is NaN where it is said to be valid, of some frames in some epochs."""


def stopped(forge: Forge, folder: Path, number: int, when: bytes, count: int, *words: str, **options: Any) -> Ended:
    """Send a signal in a phase, once, and let the run end as it will."""
    watch = functools.partial(send, number, when, count, 0.01)
    return forge.run(folder, *RUN, *words, watch=watch, **options)


def resumes(forge: Forge, reference: Path, directory: Path, *words: str) -> list[str]:
    """Resume a run, and return in what it differs in the end from one that nothing happened to."""
    ended = forge.run(directory, *RUN, *words)
    return differences(reference, directory) if ended.code == 0 else [ended.output]


def step_of(directory: Path) -> int:
    """Return the step that a run would resume from."""
    return int(torch.load(directory / "checkpoints/last.ckpt", weights_only=True)["global_step"])


def twice(number: int, process: int, hear: int) -> bytes:
    """Send a signal in the first step, and again a second later."""
    told = send(number, b"t", 1, 0.0, process, hear)
    return told + send(number, b"", 0, 1.0, process, hear)


def run_all(folder: Path, tries: int = 20, seed: int = 0) -> list[tuple[str, int, int, int, int]]:
    """Return a row (fault, tries, landed, survived, lost) for each signal, poison and damage."""
    forge, draw, rows = Forge(folder), random.Random(seed), []
    reference = whole(forge, folder)
    for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")):
        landed = lost = 0
        for one in range(tries):
            when, count = draw.choice(
                [(b"t", draw.randint(1, 18)), (b"V", draw.randint(1, 3)), (b"S", draw.randint(1, 9))]
            )
            ended = stopped(forge, folder / f"{name}_{one}", number, when, count, f"data.num_workers={one % 3}")
            if not ended.code:  # it came too late
                continue
            landed += 1
            found = [str(ended)] * (ended.code != 128 + number) + resumes(forge, reference, folder / f"{name}_{one}")
            lost += bool(found)
            _tell(name, found)
        rows.append((f"{name}, resumed", tries, landed, landed - lost, lost))
    for name, epochs, code in (("NaN in one batch of an epoch", {1}, 0), ("NaN in every batch", {0, 1, 2}, 2)):
        lost = 0
        for one in range(5):
            run = folder / f"poison_{code}_{one}"
            frames = {draw.randrange(26)} if code == 0 else set(range(26))
            ended = forge.run(run, *RUN, "data.num_workers=0", before=POISON.format(frames=frames, epochs=epochs))
            kept = [path for path in (run / "checkpoints").glob("*.ckpt") if not _finite(path)]
            found = [str(ended)] * (ended.code != code) + [str(path) for path in kept]
            lost += bool(found)
            _tell(name, found)
        rows.append((name, 5, 5, 5 - lost, lost))
    return rows


def _tell(name: str, found: list[str]) -> None:
    if found:
        print(f"{name}: {found}", file=sys.stderr)


def _finite(path: Path) -> bool:
    state = torch.load(path, weights_only=True)["state_dict"]
    return all(bool(value.isfinite().all()) for value in state.values() if value.is_floating_point())
