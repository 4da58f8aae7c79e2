"""What one GPU does, in at most eight minutes: run it once wherever there is one, and keep what it prints.

    python benchmarks/gpu.py                     (one GPU; every part prints its table as soon as it is done)
    python benchmarks/gpu.py --only resume ema   (some parts: see below)
    python benchmarks/gpu.py --tiny              (a small network for a step or two, also on a CPU: does it run at all)

precision: images/s of irv2_attn in training and inference, beside the bare Inception-ResNet-v2 in the same precision,
and peak memory; 32 is float32 without TF32. trainer: a run's own steps with data, by its Trainer: images/s, share of
the time in which there was no batch, memory. resume: with trainer.deterministic, whether a run, the same run again, and
one that is resumed half-way end with the same bits. ema: an epoch with and without an average of the weights, and
whether the checkpoint holds what was validated. prediction: the shipped model on photographs of 640x480. compile:
torch.compile on and off; it takes minutes and comes last. A part that fails is a row, and the others continue.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for the same bits; it is read when CUDA starts

import numpy as np
import timm
import torch
from lightning import Trainer, seed_everything
from PIL import Image
from profile_step import profile
from train_step import ENTRIES, FLOOR, RANGE, Bench, Entry, sum_of_means

from depthnet.core.device import BF16, describe_device, find_gpu
from depthnet.data.datamodule import DepthDataModule
from depthnet.evaluation.protocols import PROTOCOLS
from depthnet.inference.predict import predict_files
from depthnet.models.checkpoint import read_checkpoint
from depthnet.models.depth_net import DepthNet, load_network
from depthnet.training.callbacks.best_checkpoint import BestCheckpoint
from depthnet.training.callbacks.ema import WeightEMA
from depthnet.training.callbacks.resume_checkpoint import ResumeCheckpoint
from depthnet.training.checkpoint_io import DurableCheckpointIO
from depthnet.training.fit import quiet_libraries
from depthnet.training.losses import DepthLoss
from depthnet.training.module import DepthModule
from depthnet.training.optimizers import build_optimizer
from depthnet.training.schedules import constant

PRECISIONS = {"32": "fp32", "tf32": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16"}
TINY = "test_resnet"


class Table:
    """Rows that are printed under their heads when all are there."""

    def __init__(self, title: str, *heads: str) -> None:
        self.title, self.heads = title, heads
        self.rows: list[list[str]] = []

    def add(self, *cells: object) -> None:
        """Add a row."""
        self.rows.append([f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells])

    @contextlib.contextmanager
    def row(self, name: str) -> Iterator[None]:
        """Let a failure of the block become a row."""
        try:
            yield
        except Exception as error:  # whatever it is, the other rows are wanted
            self.add(name, f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}")

    def print(self) -> None:
        """Print the table."""
        print(f"\n{self.title}\n\n| {' | '.join(self.heads)} |\n{'| --- ' * len(self.heads)}|")
        for row in self.rows:
            print(f"| {' | '.join(row + [''] * (len(self.heads) - len(row)))} |")
        print(end="", flush=True)


class Settings:
    """What all parts share.

    Attributes:
        folder: Of the cache of pairs.
        device: The GPU, or the CPU.
        precision: The one that ``trainer=auto`` takes here.
    """

    def __init__(self, folder: str, tiny: bool, batch: int, size: tuple[int, int], repeats: int) -> None:
        self.folder = folder
        self.tiny, self.batch, self.size, self.repeats = tiny, batch, size, repeats
        gpu = find_gpu()
        self.device = torch.device("cpu" if gpu.reason else "cuda")
        self.precision = "32-true" if gpu.reason else "bf16-mixed" if gpu.capability >= BF16 else "16-mixed"
        self.encoder = TINY if tiny else "inception_resnet_v2"
        self.entries = {name: ENTRIES[name] for name in (FLOOR, "irv2_attn")}
        if tiny:
            self.entries = {
                FLOOR: Entry(lambda _: timm.create_model(TINY, features_only=True), sum_of_means, raw_images=False),
                TINY: Entry(lambda _: self.network()),
            }

    def network(self) -> DepthNet:
        """Build the network, always with the same weights."""
        torch.manual_seed(0)
        widths = (16,) * 5 if self.tiny else (256, 192, 128, 64, 32)
        return DepthNet(self.encoder, decoder_widths=widths, depth_range=RANGE, image_size=self.size)

    def module(self) -> DepthModule:
        """Build what learns."""
        loss, protocol = DepthLoss({"silog": 1.0, "l1": 0.1}, RANGE), PROTOCOLS["uncropped"].within(RANGE)
        return DepthModule(self.network(), loss, functools.partial(build_optimizer, lr=1e-4), constant, [protocol])

    def data(self, frames: int) -> DepthDataModule:
        """Return built-in rooms from the cache."""
        workers = 0 if self.tiny else "auto"
        options = {"batch_size": self.batch, "num_workers": workers, "cache": "disk", "cache_dir": self.folder}
        return DepthDataModule.rooms({"train": frames, "val": 2, "test": 1}, self.size, RANGE, **options)

    def trainer(self, folder: str | Path, callbacks: Sequence[Any] = (), **options: Any) -> Trainer:
        """Return a Trainer on the device, in its precision."""
        seed_everything(0, verbose=False)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        mine = {"accelerator": "cpu" if self.device.type == "cpu" else "gpu", "devices": 1, "precision": self.precision}
        plain = {"gradient_clip_val": 1.0, "num_sanity_val_steps": 0, "use_distributed_sampler": False}
        plugins = [DurableCheckpointIO()]
        every = {"default_root_dir": str(folder), "plugins": plugins, "callbacks": list(callbacks)}
        return Trainer(**quiet | mine | plain | every | {"enable_checkpointing": bool(callbacks)} | options)

    def peak(self) -> str:
        """Return the most memory that was allocated since the last call [MiB]."""
        if self.device.type == "cpu":
            return "-"
        peak = torch.cuda.max_memory_allocated() / 2**20
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return f"{peak:.0f}"


@contextlib.contextmanager
def tf32(wanted: bool) -> Iterator[None]:
    """Let float32 products and convolutions be computed in TF32, or not."""
    former = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = wanted
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = former


def speed(bench: Bench, mode: str, repeats: int) -> float:
    """Return images/s: the median of some repeats, after two to warm up."""
    for _ in range(min(repeats, 2)):
        bench.time(mode)
    return 1000 / statistics.median(bench.time(mode) for _ in range(repeats))


def bench_options(settings: Settings, precision: str) -> argparse.Namespace:
    images = settings.batch * (1 if settings.tiny else 8)
    return argparse.Namespace(size=settings.size, precision=PRECISIONS[precision], images=images, batch=settings.batch)


def measure_precisions(settings: Settings, table: Table) -> None:
    for precision in PRECISIONS:
        floor: dict[str, float] = {}
        for name, entry in settings.entries.items():
            with table.row(f"{precision}, {name}"), tf32(precision != "32"):
                bench = Bench(entry, bench_options(settings, precision), str(settings.device))
                cells: list[object] = [precision, name]
                for mode in ("train", "infer"):
                    settings.peak()
                    rate = speed(bench, mode, settings.repeats)
                    cells += [rate, f"{rate / floor.setdefault(mode, rate):.2f}", settings.peak()]
                table.add(*cells)
            bench = None  # its memory


def measure_compile(settings: Settings, table: Table) -> None:
    precision = "32" if settings.precision == "32-true" else settings.precision
    for name in ("as it is", "compiled"):
        with table.row(name):
            bench = Bench(list(settings.entries.values())[-1], bench_options(settings, precision), str(settings.device))
            if name == "compiled":
                bench.net.compile(backend="eager" if settings.tiny else "inductor")
            cells: list[object] = [f"{name}, {precision}"]
            for mode in ("train", "infer"):
                settings.peak()
                cells += [bench.time(mode) * bench.images / 1000, speed(bench, mode, settings.repeats), settings.peak()]
            table.add(*cells)
        bench = None


def measure_trainer(settings: Settings, table: Table) -> None:
    steps = 1 if settings.tiny else 20
    with table.row("profile"), tempfile.TemporaryDirectory() as folder:
        settings.peak()
        frames = settings.batch * (2 if settings.tiny else 16)
        make_trainer = functools.partial(settings.trainer, folder, benchmark=settings.device.type == "cuda")
        record = profile(make_trainer, settings.module(), settings.data(frames), steps)
        table.add("precision", record["precision"])
        table.add("images/s", record["images_per_second"])
        table.add("waiting for data", f"{record['data_wait']:.1%}")
        for part, milliseconds in record["parts_ms"].items():
            table.add(f"{part}, ms", milliseconds)
        table.add("GFLOP/s", record["achieved_gflops"])
        table.add("of a matrix product's", f"{record['achieved_gflops'] / record['matrix_product_gflops']:.0%}")
        table.add("peak, MiB", settings.peak())


def check_resume(settings: Settings, table: Table) -> None:
    steps = 4 if settings.tiny else 8

    def fitted(folder: str, start: Path | None = None) -> dict[str, torch.Tensor]:
        """Train in a folder, saving half-way, from the start or a checkpoint; return the weights."""
        options = {"deterministic": True, "benchmark": False, "limit_val_batches": 0, "max_epochs": 1}
        trainer = settings.trainer(folder, [ResumeCheckpoint(folder, every_n_steps=steps // 2)], **options)
        module = settings.module()
        trainer.fit(module, settings.data(steps * settings.batch), ckpt_path=start, weights_only=True)
        return {name: value.cpu() for name, value in module.network.state_dict().items()}

    try:
        with tempfile.TemporaryDirectory() as one:
            first: dict[str, torch.Tensor] = {}
            with table.row("a run"):
                first = fitted(one)
            for name, start in (("the same again", None), ("resumed half-way", Path(one, "last.previous.ckpt"))):
                with table.row(name), tempfile.TemporaryDirectory() as other:
                    found = fitted(other, start)
                    apart = max(float((found[key].double() - first[key].double()).abs().max()) for key in first)
                    table.add(name, "the same, to the bit" if apart == 0 else "DIFFERENT", apart)
    finally:
        torch.use_deterministic_algorithms(False)


def measure_ema(settings: Settings, table: Table) -> None:
    steps = 2 if settings.tiny else 20
    for name in ("without", "with"):
        with table.row(name), tempfile.TemporaryDirectory() as folder:
            settings.peak()
            average = WeightEMA(decay=0.5)
            best = BestCheckpoint(
                dirpath=folder, filename="best", monitor="val/delta1", mode="max", save_weights_only=True
            )
            trainer = settings.trainer(folder, [best] if name == "without" else [average, best], max_epochs=1)
            module, data = settings.module(), settings.data(steps * settings.batch)
            start = time.perf_counter()
            trainer.fit(module, data)
            seconds, peak = time.perf_counter() - start, settings.peak()
            figures = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
            module.network.load_state_dict(read_checkpoint(best.best_model_path).state)
            again = settings.trainer(folder)
            again.validate(module, data, verbose=False)
            apart = max(abs(float(again.callback_metrics[key]) - value) for key, value in figures.items())
            table.add(name, seconds, peak, "the same, to the bit" if apart == 0 else "DIFFERENT", apart)


def measure_prediction(settings: Settings, table: Table) -> None:
    count = 1 if settings.tiny else 40
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    with table.row("infer"):
        network = load_network("nyu_small", settings.device)
        network.infer(pixels)
        start = time.perf_counter()
        for _ in range(count):
            network.infer(pixels)
        table.add("infer", count / (time.perf_counter() - start))
    with table.row("predict_files"), tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            Image.fromarray(np.roll(pixels, number, axis=1)).save(Path(folder, f"{number}.jpg"))
        start = time.perf_counter()
        predict_files(folder, "nyu_small", Path(folder, "out"), device=settings.device.type)
        table.add("predict_files", count / (time.perf_counter() - start))


RATES = ("training, images/s", "of the encoder's", "peak, MiB", "inference, images/s", "of the encoder's", "peak, MiB")
SAME = ("weights", "largest difference")
PARTS: dict[str, tuple[Callable[[Settings, Table], None], str, tuple[str, ...]]] = {
    "precision": (measure_precisions, "Precisions, beside the bare encoder", ("precision", "network", *RATES)),
    "trainer": (measure_trainer, "Steps of a run, with data from the cache", ("", "")),
    "resume": (check_resume, "Bits (trainer.deterministic=true trainer.benchmark=false)", ("run", *SAME)),
    "ema": (
        measure_ema,
        "An average of the weights",
        ("", "epoch, s", "peak, MiB", "best.ckpt against what was validated", "largest difference"),
    ),
    "prediction": (measure_prediction, "Prediction by nyu_small, photographs of 640x480", ("", "images/s")),
    "compile": (
        measure_compile,
        "torch.compile",
        ("network", "first training, s", *RATES[:3:2], "first inference, s", *RATES[3::2]),
    ),
}


class TimeIsUp(BaseException):
    """No error: what was measured so far is printed."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`TimeIsUp` in the block after so many seconds, on systems that can."""

    def stop(*_: object) -> None:
        raise TimeIsUp

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.0))  # 0: none
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def run(settings: Settings, names: Sequence[str], seconds: float) -> None:
    """Carry out some parts, each of them to its end or to that of the time, and print their tables."""
    until = time.monotonic() + seconds
    for name in names:
        measure, title, heads = PARTS[name]
        table, left = Table(title, *heads), until - time.monotonic()
        try:
            with time_limit(left), table.row(name):
                if left > 0:
                    measure(settings, table)
                else:
                    table.add(name, "left out: the time is up")
        except TimeIsUp:
            table.add(name, "stopped: the time is up")
        table.print()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a small network for a few steps, also on a CPU")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--batch", type=int, default=16, help="images in a batch")
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats, after two to warm up")
    parser.add_argument("--minutes", type=float, default=8.0, help="the most that it may take")
    options = parser.parse_args(arguments)
    if options.tiny:
        options.batch, options.size, options.repeats = 2, (48, 64), 1
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        settings = Settings(folder, options.tiny, options.batch, tuple(options.size), options.repeats)
        if settings.device.type == "cpu" and not options.tiny:
            parser.error(f"{find_gpu().reason}; --tiny runs on a CPU")
        kind = "gpu" if settings.device.type == "cuda" else "cpu"
        device = describe_device({"accelerator": kind, "devices": 1, "precision": settings.precision})
        size = "x".join(map(str, settings.size))
        print(f"{device}; torch {torch.__version__}; {settings.encoder}, {size}, batch {settings.batch}", flush=True)
        run(settings, options.only, 60 * options.minutes)


if __name__ == "__main__":
    main()
