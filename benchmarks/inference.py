"""Inference of one checkpoint on one core of a CPU, beside its bare encoder.

    python benchmarks/inference.py                                   (the shipped model, nyu_small: half a minute)
    python benchmarks/inference.py --ckpt PATH --size 240 320

Prints a table: one image at a time, float32, channels_last, medians of interleaved rounds; a ratio is the median over
the rounds of the time taken to the encoder's in the same round. The bare encoder is timm's `features_only`, untrained.
GMACs are thousand millions of multiplications with additions, by torch.utils.flop_counter (convolutions and products of
matrices; half of its count).
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode
from train_step import Bench, Entry

from depthnet.models.depth_net import load_network


def gmacs(bench: Bench) -> float:
    """Count the multiplications of one image."""
    bench.infer()  # in evaluation mode from here
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        bench.net(bench.batch[:1])
    return counter.get_total_flops() / 2 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ckpt", default="nyu_small", metavar="PATH", help="a checkpoint, a run, or a shipped model's name"
    )
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="default: the checkpoint's own")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds, after two to warm up")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = load_network(options.ckpt)
    encoder = network.config().get("encoder")
    if encoder is None:
        parser.error(f"{options.ckpt}: {type(network).__name__} has no encoder of timm to stand beside it")
    size = tuple(options.size or network.image_size)
    entries: dict[str, Entry] = {
        f"bare {encoder}": Entry(lambda _: timm.create_model(encoder, features_only=True), raw_images=False),
        Path(options.ckpt).name: Entry(lambda _: network),
    }
    settings = argparse.Namespace(size=size, precision="fp32", images=1, batch=1)
    benches = {name: Bench(entry, settings, device="cpu") for name, entry in entries.items()}
    times: dict[str, list[float]] = {name: [] for name in benches}
    for number in range(options.rounds + 2):
        for name, bench in benches.items():
            taken = bench.time("infer")
            if number >= 2:
                times[name].append(taken)
    floor = next(iter(times.values()))
    height, width = size
    print(f"one core; torch {torch.__version__}; {height}x{width}; medians of {options.rounds}")
    print("| network | ms/image | ratio | parameters | GMACs |\n| --- | --- | --- | --- | --- |")
    for name, bench in benches.items():
        ratio = statistics.median(ours / bare for ours, bare in zip(times[name], floor, strict=True))
        taken = f"{statistics.median(times[name]):.1f} (min {min(times[name]):.1f})"
        parameters = sum(parameter.numel() for parameter in bench.net.parameters())
        print(f"| {name} | {taken} | {ratio:.2f} | {parameters:,} | {gmacs(bench):.2f} |")


if __name__ == "__main__":
    main()
