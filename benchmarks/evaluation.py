"""What evaluation costs: nine metrics in one pass beside nine passes, and beside the network that is evaluated.

    python benchmarks/evaluation.py          (about a minute on one core)

One frame at a time, as an evaluation has them: ground truth of 480x640 without holes, a prediction of 240x320, the
protocol nyu_eigen_filled. The one pass is ``depthnet.evaluation.evaluator.Evaluation``; the nine are the functions of
``depthnet.evaluation.metrics``, each after the protocol, as nine metrics that know nothing of each other would be, and
each after one use of the protocol. The network is irv2_attn at 240x320, with random weights. All are measured in one
run, their
rounds interleaved, so that a machine that slows down slows them alike; a share is the median of the rounds' shares.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from depthnet.core.types import DepthRange
from depthnet.evaluation.evaluator import Evaluation
from depthnet.evaluation.metrics import abs_rel, delta_accuracy, log10, rmse, rmse_log, silog, sq_rel
from depthnet.evaluation.protocols import PROTOCOLS
from depthnet.models.depth_net import DepthNet

RANGE = DepthRange(1e-3, 10.0)
SIZE = (240, 320)
TRUTH = (480, 640)
PROTOCOL = PROTOCOLS["nyu_eigen_filled"].within(RANGE)
SEPARATE = [
    *(partial(delta_accuracy, power=power) for power in (1, 2, 3)),
    *(abs_rel, sq_rel, rmse, rmse_log, log10, silog),
]

FUSED = "protocol and nine metrics, one pass"
PASSES = "nine passes, each after the protocol"
NETWORK = "irv2_attn forward, 240x320"


def surface(size: tuple[int, int]) -> Tensor:
    """Return a smooth depth between 1 and 9 m, shape ``(1, 1, H, W)``."""
    return F.interpolate(1 + 8 * torch.rand(1, 1, 6, 8), size, mode="bicubic", align_corners=True).clamp(1, 9)


def nine_passes(pred: Tensor, depth: Tensor, mask: Tensor) -> None:
    for metric in SEPARATE:
        metric(*PROTOCOL(pred, depth, mask))


def nine_after_one(pred: Tensor, depth: Tensor, mask: Tensor) -> None:
    compared = PROTOCOL(pred, depth, mask)
    for metric in SEPARATE:
        metric(*compared)


def entries() -> dict[str, Callable[[], object]]:
    """Return what is measured: each evaluates or predicts one frame."""
    torch.manual_seed(0)
    depth = surface(TRUTH)
    pred = F.interpolate(depth, SIZE, mode="bilinear") * (1 + 0.1 * torch.randn(1, 1, *SIZE))
    mask = depth > 0
    image = torch.randint(0, 256, (1, 3, *SIZE), dtype=torch.uint8).to(memory_format=torch.channels_last)
    net = DepthNet("inception_resnet_v2", depth_range=(RANGE.min, RANGE.max), image_size=SIZE)
    net.eval().to(memory_format=torch.channels_last)
    evaluation = Evaluation([PROTOCOL])
    return {
        FUSED: lambda: evaluation.update(pred, depth, mask, 0),
        "of that, the protocol": lambda: PROTOCOL(pred, depth, mask),
        "nine passes after the protocol once": lambda: nine_after_one(pred, depth, mask),
        PASSES: lambda: nine_passes(pred, depth, mask),
        NETWORK: lambda: net(image),
    }


@torch.inference_mode()
def milliseconds(entry: Callable[[], object], frames: int) -> float:
    """Return the time of a frame."""
    start = time.perf_counter()
    for _ in range(frames):
        entry()
    return (time.perf_counter() - start) * 1000 / frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=5, help="frames in each timed round (default: 5)")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds, after one to warm up (default: 15)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measured = entries()
    times: dict[str, list[float]] = {name: [] for name in measured}
    for number in range(options.rounds + 1):
        for name, entry in measured.items():
            taken = milliseconds(entry, options.frames)
            if number:  # the first one warms up
                times[name].append(taken)

    print(f"CPU, {options.threads} threads; torch {torch.__version__}; medians of {options.rounds} rounds\n")
    print("| a frame of 480x640 | ms | min | of the nine passes |\n| --- | --- | --- | --- |")
    for name, taken in times.items():
        share = statistics.median(ours / nine for ours, nine in zip(taken, times[PASSES], strict=True))
        print(f"| {name} | {statistics.median(taken):.1f} | {min(taken):.1f} | {share:.2f} |")
    shares = [ours / (ours + net) for ours, net in zip(times[FUSED], times[NETWORK], strict=True)]
    print(f"\nEvaluation is {statistics.median(shares):.1%} of prediction and evaluation.")


if __name__ == "__main__":
    main()
