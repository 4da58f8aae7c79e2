"""Time and memory of a training step and of inference, beside the bare encoder and an ordinary U-Net.

    python benchmarks/train_step.py                                  (about three minutes on two cores)
    python benchmarks/train_step.py --batch 16 --precision bf16      (a GPU is used where there is one)

Prints two tables. All networks are measured in one run, their repeats interleaved, so that a machine that slows down
slows them alike. The floor is the bare Inception-ResNet-v2 of timm with the sum of its features' means as the loss; a
ratio is the median over the repeats of the time taken to the floor's in the same repeat. Peak memory is taken in a
process of its own for each network: on a GPU what torch allocated, else the growth of the resident memory over that of
the imports. The second table is irv2_attn through our Trainer, with logging and metrics, against a bare loop.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from lightning import Callback, LightningDataModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from depthnet.core.types import DepthRange, Sample
from depthnet.evaluation.protocols import PROTOCOLS
from depthnet.models.basic import BasicNet
from depthnet.models.depth_net import DepthNet
from depthnet.training.callbacks.history import History
from depthnet.training.fit import quiet_libraries
from depthnet.training.losses import DepthLoss
from depthnet.training.module import DepthModule
from depthnet.training.optimizers import build_optimizer
from depthnet.training.schedules import one_cycle

IRV2 = "inception_resnet_v2"
FLOOR = "bare encoder (the floor)"
RANGE = DepthRange(1e-3, 10.0)
SMP_SIZE = (256, 320)  # its sides must be multiples of 32


def sum_of_means(features: list[Tensor]) -> Tensor:
    return torch.stack([feature.mean() for feature in features]).sum()


def l1(depth: Tensor) -> Tensor:
    return (depth - 2.5).abs().mean()


def our_net(size: tuple[int, int], attention: bool) -> nn.Module:
    return DepthNet(IRV2, attention=attention, depth_range=(1e-3, 10.0), image_size=size)


def smp_unet() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Unet("inceptionresnetv2", encoder_weights=None)


@dataclass(frozen=True)
class Entry:
    """A network to measure: how it is built, what its loss is, and whether it normalizes ``uint8`` images itself."""

    build: Callable[[tuple[int, int]], nn.Module]
    loss: Callable[..., Tensor] = l1
    raw_images: bool = True
    size: tuple[int, int] | None = None


ENTRIES = {
    FLOOR: Entry(lambda size: timm.create_model(IRV2, features_only=True), sum_of_means, raw_images=False),
    "irv2_attn": Entry(lambda size: our_net(size, attention=True)),
    "irv2_unet": Entry(lambda size: our_net(size, attention=False)),
    "basic": Entry(lambda size: BasicNet((1e-3, 10.0), size)),
    "smp.Unet, 256x320": Entry(lambda size: smp_unet(), raw_images=False, size=SMP_SIZE),
}


class Bench:
    """One network with its optimizer and a batch."""

    def __init__(self, entry: Entry, options: argparse.Namespace, device: str | None = None) -> None:
        height, width = entry.size or tuple(options.size)
        self.entry = entry
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(options.precision)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        self.steps = max(1, options.images // options.batch)
        self.images = self.steps * options.batch
        self.net = entry.build((height, width)).to(self.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-4)
        batch = torch.randint(0, 256, (options.batch, 3, height, width), dtype=torch.uint8)
        batch = batch if entry.raw_images else batch / 127.5 - 1
        self.batch = batch.to(self.device, memory_format=torch.channels_last)

    def train(self) -> None:
        """Take the training steps of one repeat."""
        self.net.train()
        for _ in range(self.steps):
            self.optimizer.zero_grad(set_to_none=True)
            with self._autocast():
                loss = self.entry.loss(self.net(self.batch))
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()

    @torch.inference_mode()
    def infer(self) -> None:
        """Predict the images of one repeat."""
        self.net.eval()
        for _ in range(self.steps):
            with self._autocast():
                self.net(self.batch)

    def time(self, mode: str) -> float:
        """Return milliseconds an image."""
        self._synchronize()
        start = time.perf_counter()
        getattr(self, mode)()
        self._synchronize()
        return (time.perf_counter() - start) * 1000 / self.images

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def resident_mib(field: str) -> float:
    """Return this process's resident memory [MiB]: ``VmRSS`` now, ``VmHWM`` at its highest."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 1024


def peak_mib(name: str, mode: str, options: argparse.Namespace) -> float:
    """Measure the peak memory of two steps in this process [MiB]."""
    before = resident_mib("VmRSS")
    bench = Bench(ENTRIES[name], options)
    for _ in range(2):
        bench.time(mode)
    if bench.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resident_mib("VmHWM") - before


def peak_elsewhere(name: str, mode: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--peak", name, mode]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def measure_networks(options: argparse.Namespace) -> None:
    names = [name for name in ENTRIES if not options.only or name == FLOOR or any(o in name for o in options.only)]
    if not importable("segmentation_models_pytorch"):
        names = [name for name in names if not name.startswith("smp")]
        print("segmentation_models_pytorch is not installed: its row is left out")
    benches = {name: Bench(ENTRIES[name], options) for name in names}
    times: dict[tuple[str, str], list[float]] = {(name, mode): [] for name in names for mode in ("train", "infer")}
    for repeat in range(options.repeats + 1):
        for (name, mode), taken in times.items():
            milliseconds = benches[name].time(mode)
            if repeat:  # the first one warms up
                taken.append(milliseconds)
    benches.clear()

    print("| network | training step, ms/image | ratio | peak, MiB | inference, ms/image | ratio | peak, MiB |")
    print("| --- " * 7 + "|")
    for name in names:
        cells = []
        for mode in ("train", "infer"):
            taken = times[name, mode]
            ratio = statistics.median(ours / floor for ours, floor in zip(taken, times[FLOOR, mode], strict=True))
            peak = "" if options.no_memory else f"{peak_elsewhere(name, mode):.0f}"
            cells += [f"{statistics.median(taken):.1f} (min {min(taken):.1f})", f"{ratio:.2f}", peak]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


class FixedData(LightningDataModule):
    """One batch, again and again, so that only the loop around the step is measured."""

    def __init__(self, batch: Sample, steps: int) -> None:
        super().__init__()
        self.batches = [batch] * steps

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return the loader."""
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]  # a list is a dataset


class Clock(Callback):
    """Times the steps of a fit without its start and end."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Start with the second step."""
        if batch_idx == 1:
            self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop with the last one so far."""
        self.seconds = time.perf_counter() - self.start if batch_idx else 0.0


def random_batch(count: int, size: tuple[int, int]) -> Sample:
    """Return images of noise with depths of 1 to 6 m."""
    shape = (count, 1, *size)
    image = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8)
    depth, mask = torch.rand(shape) * 5 + 1, torch.ones(shape, dtype=torch.bool)
    return Sample(image, depth, mask, torch.arange(count), torch.full((count, 4), torch.nan))


def bare_step(net: nn.Module, loss: DepthLoss, batch: Sample, optimizer: torch.optim.Optimizer) -> None:
    """Take a training step without a Trainer."""
    optimizer.zero_grad(set_to_none=True)
    total, _ = loss(net(batch.image), batch.depth, batch.mask)
    total.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()


def fit(net: nn.Module, loss: DepthLoss, data: FixedData, folder: str, **options: Any) -> None:
    """Train for the epoch of ``data`` through our Trainer; ``options`` are further ones of its own."""
    trainer = Trainer(
        max_epochs=1,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        default_root_dir=folder,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        **options,
    )
    trainer.fit(DepthModule(net, loss, build_optimizer, one_cycle, [PROTOCOLS["uncropped"].within(RANGE)]), data)


def measure_trainer(options: argparse.Namespace) -> None:
    """Time irv2_attn through our Trainer, with its logging and metrics, against a bare loop of the same step."""
    batch = random_batch(options.batch, tuple(options.size))
    loss = DepthLoss({"silog": 1.0}, RANGE)
    net = our_net(tuple(options.size), attention=True).to(memory_format=torch.channels_last).train()
    steps = max(2, options.images // options.batch) + 1
    times: dict[str, list[float]] = {"bare loop": [], "our Trainer": []}
    for repeat in range(options.repeats + 1):
        optimizer = build_optimizer(net)
        for step in range(steps):
            if step == 1:
                start = time.perf_counter()
            bare_step(net, loss, batch, optimizer)
        bare = time.perf_counter() - start
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            own = {"accelerator": "cpu", "log_every_n_steps": 1, "logger": CSVLogger(folder)}
            fit(net, loss, FixedData(batch, steps), folder, callbacks=[clock, History(folder)], **own)
        if repeat:  # the first one warms up
            times["bare loop"].append(bare)
            times["our Trainer"].append(clock.seconds)
    images = (steps - 1) * options.batch
    ratios = [ours / bare for ours, bare in zip(times["our Trainer"], times["bare loop"], strict=True)]
    print("\n| irv2_attn, a training step | ms/image | ratio |\n| --- | --- | --- |")
    for name, taken in times.items():
        ratio = statistics.median(ratios) if name == "our Trainer" else 1.0
        print(f"| {name} | {statistics.median(taken) * 1000 / images:.1f} | {ratio:.3f} |")


def importable(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4, help="images in each timed repeat")
    parser.add_argument("--batch", type=int, default=4, help="images in a batch")
    parser.add_argument("--repeats", type=int, default=7, help="timed repeats, after one to warm up")
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="only these networks and the floor")
    parser.add_argument("--only-trainer", action="store_true", help="only our Trainer against a bare loop")
    parser.add_argument("--no-memory", action="store_true", help="times only")
    parser.add_argument("--peak", nargs=2, metavar=("NETWORK", "MODE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        print(json.dumps(peak_mib(*options.peak, options)))
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {options.threads} threads"
    print(
        f"{device}; torch {torch.__version__}; batch {options.batch}; {options.precision}; medians of {options.repeats}"
    )
    if not options.only_trainer:
        measure_networks(options)
    if not torch.cuda.is_available():
        quiet_libraries()
        measure_trainer(options)


if __name__ == "__main__":
    main()
