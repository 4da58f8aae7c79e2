"""Which frames come when: order = f(seed, epoch), augmentation = f(seed, epoch, frame), nothing else.

A sampler hands out ``(epoch, frame)`` keys, so a worker knows the epoch without being told, however long it lives.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

import torch
import torch.distributed
from torch.utils.data import Sampler

from depthnet.types import InputError

__all__ = ["EvalSampler", "TrainSampler", "derive_seed"]

Key = tuple[int, int]


def derive_seed(*parts: int) -> int:
    """Mix integers into one seed, 0 to 2**32 - 1; neighbours give unrelated seeds.

    Example:
        >>> derive_seed(0, 1, 2) == derive_seed(0, 1, 2), derive_seed(0, 1, 2) == derive_seed(0, 2, 1)
        (True, False)
    """
    digest = hashlib.blake2b(struct.pack(f"<{len(parts)}q", *parts), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def _place(frames: int) -> tuple[int, int]:
    """Return (rank, number of processes); one that was left without a frame would be waited for."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        processes = torch.distributed.get_world_size()
        if 0 < frames < processes:
            raise InputError(f"{frames} frames are too few for {processes} processes; lower trainer.devices")
        return torch.distributed.get_rank(), processes
    return 0, 1


class TrainSampler(Sampler[Key]):
    """Every frame once an epoch, in an order that is a function of seed and epoch alone.

    With several processes, batch number k of all of them together holds what batch k of one process with the joint
    batch size would hold. An incomplete last batch is left out (other frames each epoch), unless it is the only one.

    Args:
        frames: How many frames there are.
        batch_size: Samples in a batch of one process.
        seed: The run's seed.
    """

    def __init__(self, frames: int, batch_size: int, seed: int) -> None:
        self._frames = frames
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0
        self._done = (0, 0)

    def go_on(self, epoch: int, batches: int) -> None:
        """Leave out the first batches of one epoch, because a run that is resumed has had them."""
        self._done = (epoch, batches)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Lightning calls it."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Key]:
        """Yield the (epoch, frame) keys of this process."""
        rank, processes = _place(self._frames)
        generator = torch.Generator().manual_seed(derive_seed(self._seed, self._epoch))
        order = torch.randperm(self._frames, generator=generator).tolist()
        epoch, batches = self._done
        first = batches * self._batch_size * processes if epoch == self._epoch else 0
        for position in range(first + rank, self._used(processes), processes):
            yield self._epoch, order[position]

    def __len__(self) -> int:
        """Return the number of keys that this process is given in an epoch."""
        processes = _place(self._frames)[1]
        return self._used(processes) // processes

    def _used(self, processes: int) -> int:
        joint = self._batch_size * processes
        unit = joint if self._frames >= joint else processes
        return self._frames // unit * unit


class EvalSampler(Sampler[Key]):
    """Every frame once, in order; several processes share them out without repeating any.

    Args:
        frames: How many frames there are.
    """

    def __init__(self, frames: int) -> None:
        self._frames = frames

    def __iter__(self) -> Iterator[Key]:
        """Yield the (0, frame) keys of this process."""
        rank, processes = _place(self._frames)
        return ((0, frame) for frame in range(rank, self._frames, processes))

    def __len__(self) -> int:
        """Return the number of keys that this process is given."""
        rank, processes = _place(self._frames)
        return len(range(rank, self._frames, processes))
