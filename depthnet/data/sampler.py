"""Which frames come when: order = f(seed, epoch), augmentation = f(seed, epoch, frame), nothing else.

A sampler yields ``(epoch, frame)`` keys, so a worker knows the epoch however long it lives.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed
from torch.utils.data import Sampler

from depthnet.core.types import InputError

log = logging.getLogger("depthnet")

Key = tuple[int, int]


def derive_seed(*parts: int) -> int:
    """Mix integers into one seed, 0 to 2**32 - 1; neighbors give unrelated seeds.

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


class TrainSampler(Sampler[list[Key]]):
    """Batches of every frame once an epoch, in an order that is a function of seed and epoch alone.

    With several processes, batch number k of all of them together holds what batch k of one process with the joint
    batch size would hold. An incomplete last batch is left out (other frames each epoch), unless it is the only one.

    Where frames differ in size, a batch holds frames of one size, and it comes when its last frame would; the frames
    that are left out are counted for each size.

    Args:
        sizes: The (height, width) of each frame [px], the same within a batch.
        batch_size: Samples in a batch of one process.
        seed: The run's seed.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], batch_size: int, seed: int) -> None:
        self._groups = np.unique(np.array(sizes), axis=0, return_inverse=True)[1].ravel()
        self._counts = np.bincount(self._groups).tolist()
        self.batch_size = batch_size
        self._seed = seed
        self._epoch = 0
        self._done = (0, 0)

    @property
    def sampler(self) -> TrainSampler:
        """Where Lightning looks for :meth:`set_epoch` of what makes batches."""
        return self

    def skip(self, epoch: int, batches: int) -> None:
        """Leave out the first batches of one epoch, because a run that is resumed has had them."""
        self._done = (epoch, batches)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Lightning calls it."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield the batches of (epoch, frame) keys of this process."""
        rank, processes = _place(len(self._groups))
        never = sum(count for count in self._counts if not self._used(count, processes))
        if never and rank == 0 and self._epoch == 0:
            log.warning("%d training images of a size that fewer images than processes have are left out", never)
        epoch, done = self._done
        for batch in self._joint_batches(processes)[done if epoch == self._epoch else 0 :]:
            yield [(self._epoch, frame) for frame in batch[rank::processes]]

    def __len__(self) -> int:
        """Return the number of batches that this process is given in an epoch."""
        return len(self._joint_batches(_place(len(self._groups))[1]))

    def _joint_batches(self, processes: int) -> list[list[int]]:
        """Return the frames of all processes' batches, in the order in which the last frame of each comes."""
        generator = torch.Generator().manual_seed(derive_seed(self._seed, self._epoch))
        order = torch.randperm(len(self._groups), generator=generator).numpy()
        joint = self.batch_size * processes
        batches: list[npt.NDArray[np.intp]] = []  # places in the order
        for group, count in enumerate(self._counts):
            places = np.flatnonzero(self._groups[order] == group)[: self._used(count, processes)]
            batches += [places[start : start + joint] for start in range(0, len(places), joint)]
        return [order[places].tolist() for places in sorted(batches, key=lambda places: int(places[-1]))]

    def _used(self, frames: int, processes: int) -> int:
        joint = self.batch_size * processes
        unit = joint if frames >= joint else processes
        return frames // unit * unit


def eval_frames(frames: int) -> range:
    """Return the frames that this process evaluates, in order; several processes share them without repeating any."""
    rank, processes = _place(frames)
    return range(rank, frames, processes)
