"""What a network costs: parameters, multiplications, and milliseconds beside its bare encoder."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from depthnet.models.network import DepthNetwork

_ROUNDS = 21


class Cost(NamedTuple):
    """The cost of one image.

    Attributes:
        parameters: Of the whole network, learned or frozen.
        gmacs: 10^9 multiply-accumulates: half of what ``torch.utils.flop_counter`` counts, which are those of
            convolutions and matrix products; resizing, normalization and activations are not in it.
        ms: Milliseconds on one core, of its own time: those in which the machine did something else do not count.
        encoder_ms: Those of its encoder alone; None where it has no encoder that stands alone.
    """

    parameters: int
    gmacs: float
    ms: float
    encoder_ms: float | None


def measure_cost(network: DepthNetwork, rounds: int = _ROUNDS) -> Cost:
    """Measure a network at the image size that it is made for, batch 1, in its own precision and memory format.

    Args:
        network: On the CPU, in evaluation mode.
        rounds: Network and encoder take turns so often, after two turns to warm up; the medians count. PyTorch is kept
            to one core meanwhile.

    Example:
        >>> from depthnet.models.basic import BasicNet
        >>> cost = measure_cost(BasicNet((1e-3, 10.0), image_size=(8, 8), widths=(4,)).eval(), rounds=1)
        >>> cost.parameters, round(cost.gmacs * 1e9) == 8 * 8 * (9 * (3 * 4 + 4 * 4) + 4), cost.encoder_ms
        (281, True, None)
    """
    image = torch.randint(0, 256, (1, 3, *network.image_size), dtype=torch.uint8)
    image = image.contiguous(memory_format=torch.channels_last)
    encoder = network.encoder
    works: list[Callable[[], Tensor | list[Tensor]]] = [lambda: network(image)]
    if not isinstance(encoder, nn.ModuleList):  # levels without a forward of their own
        works.append(lambda: encoder(network.normalize(image)))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    taken: list[list[float]] = [[] for _ in works]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for turn in range(rounds + 2):
                for work, milliseconds in zip(works, taken, strict=True):
                    start = time.thread_time()
                    work()  # on this thread, as there is but one
                    if turn >= 2:
                        milliseconds.append(1000 * (time.thread_time() - start))
    finally:
        torch.set_num_threads(threads)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    ms, *bare = map(statistics.median, taken)
    return Cost(parameters, counter.get_total_flops() / 2e9, ms, bare[0] if bare else None)
