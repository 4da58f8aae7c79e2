"""Where a training step's time goes, and how near the network comes to what the machine can multiply."""

from __future__ import annotations

import copy
import json
import math
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.profilers import Profiler
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from depthnet.data.datamodule import DepthDataModule
from depthnet.durable import write_text
from depthnet.loggers import logged
from depthnet.run import PROFILE
from depthnet.saving import Last

__all__ = ["PARTS", "TRACE", "StepProfiler", "profile_steps"]

PARTS = ("data wait", "transfer", "forward and loss", "backward", "optimiser", "callbacks, logging", "Trainer")
"""The parts of a step, in order."""

TRACE = "trace.json.gz"
_WARMUP = 5  # steps: memory is taken, cuDNN tries its algorithms, the workers fill their queues
_TRACED = 3  # steps; a trace of more is too large to look at
_NEXT = ".train_dataloader_next"
_OWNERS = {
    ".batch_to_device": "transfer",
    ".training_step": "forward and loss",
    ".backward": "backward",
    ".optimizer_step": "optimiser",
    _NEXT: "data wait",
}
_PRODUCT = {"cpu": 2048, "cuda": 8192}  # rows and columns
_PRODUCT_SECONDS = 0.5


class StepProfiler(Profiler):
    """Sums up the steps of a fit in three phases, after some to warm up: undisturbed, part by part, traced.

    A GPU works behind Python's back, so its steps are timed as a whole in the first phase and only in the second is
    each part waited for; the sum of the parts is then more than a whole step.

    Args:
        steps: Steps of each of the first two phases.
        device: On which the network runs.
    """

    def __init__(self, steps: int, device: torch.device) -> None:
        super().__init__()
        self.whole: list[float] = []  # seconds of each undisturbed step
        self.wait: list[float] = []  # of them in which there was no batch
        self.parts: list[dict[str, float]] = []  # of each step that was taken apart
        self.trace: Any = None
        self._ends = [_WARMUP, _WARMUP + steps, _WARMUP + 2 * steps, _WARMUP + 2 * steps + _TRACED]
        self._device = device
        self._step = -1
        self._began = 0.0
        self._running: list[list[Any]] = []  # name, start, seconds of what it called
        self._trained = True  # since the last step began

    @property
    def total(self) -> int:
        """Return the number of steps to take; one more begins the next and so ends the last."""
        return self._ends[-1]

    def start(self, action_name: str) -> None:
        """Begin an action of Lightning's; the first that asks for a batch after one was trained on begins a step."""
        if action_name.endswith(_NEXT) and self._trained:
            self._next_step()
        if self._phase == 2:
            self._running.append([action_name, self._now(), 0.0])
        elif action_name.endswith(_NEXT):
            self._running = [[action_name, time.perf_counter(), 0.0]]

    def stop(self, action_name: str) -> None:
        """End it; its time is its own, without that of the actions within."""
        self._trained = self._trained or action_name == "run_training_batch"
        if self._phase == 1 and action_name.endswith(_NEXT) and self._running:
            self.wait.append(time.perf_counter() - self._running.pop()[1])
        if self._phase != 2 or not self._running or self._running[-1][0] != action_name:
            return
        name, start, within = self._running.pop()
        taken = self._now() - start
        if self._running:
            self._running[-1][2] += taken
        step = self.parts[-1]
        step[part_of(name)] = step.get(part_of(name), 0.0) + taken - within

    def finish(self) -> None:
        """End the last step."""
        self._next_step()

    @property
    def _phase(self) -> int:
        return sum(self._step >= end for end in self._ends)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _next_step(self) -> None:
        former, self._trained = self._phase, False
        # only between phases is a GPU waited for: within one, its queue stays as training leaves it
        edge = self._step + 1 in self._ends or former == 2
        now = self._now() if edge else time.perf_counter()
        if former == 1:
            self.whole.append(now - self._began)
        elif former == 2:
            step = self.parts[-1]
            step["Trainer"] = step.get("Trainer", 0.0) + now - self._began - sum(step.values())
        self._step += 1
        phase = self._phase
        if phase == 3 and former == 2:
            kinds = torch.profiler.ProfilerActivity
            activities = [kinds.CPU, kinds.CUDA] if self._device.type == "cuda" else [kinds.CPU]
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it tells of its start and stop, and of GPUs not there
            self.trace = torch.profiler.profile(activities=activities)
            self.trace.start()
        elif phase == 4 and former == 3:
            self.trace.stop()
        elif phase == 2:
            self.parts.append({})
            self._running = []
        self._began = time.perf_counter()


class _Counter(Callback):
    """Counts images: a batch may hold fewer than it may hold at most."""

    def __init__(self) -> None:
        self.images = self.batches = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.images += len(batch.image)
        self.batches += 1


def part_of(action: str) -> str:
    """Return which of :data:`PARTS` an action belongs to, by the name that Lightning gives it.

    Example:
        >>> part_of("[Strategy]SingleDeviceStrategy.backward"), part_of("[Callback]History.on_train_batch_end")
        ('backward', 'callbacks, logging')
    """
    for ending, part in _OWNERS.items():
        if action.endswith(ending):
            return part
    return "callbacks, logging" if action.startswith(("[Callback]", "[LightningModule]")) else "Trainer"


def profile_steps(trainer: Trainer, module: Any, data: DepthDataModule, directory: Path, steps: int) -> float:
    """Train for some steps, print where their time went, and write ``profile.json`` and a trace.

    Nothing is validated and no checkpoint is written. The trace is read by ``chrome://tracing`` and by Perfetto.

    Args:
        trainer: As a run's; its limits are changed.
        module: The DepthModule.
        data: What it learns from.
        directory: Where the files go.
        steps: How many steps are timed as a whole, and as many part by part.

    Returns:
        Images per second, of all processes.
    """
    device = trainer.strategy.root_device
    flops = step_flops(module.network, data.image_size)
    product = product_flops(device, trainer.precision)
    profiler = StepProfiler(steps, device)
    trainer.profiler = profiler  # type: ignore[attr-defined]  # Lightning's types leave these out
    trainer.limit_val_batches = 0
    trainer.fit_loop.max_epochs, trainer.fit_loop.epoch_loop.max_steps = -1, profiler.total
    apart = ModelCheckpoint, EarlyStopping, Last  # they want a validation, or write what nobody goes on from
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, apart)]  # type: ignore[attr-defined]
    cuda, counter = device.type == "cuda", _Counter()
    trainer.callbacks.append(counter)  # type: ignore[attr-defined]
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    with logged(trainer.loggers, module.run):
        trainer.fit(module, data)
    profiler.finish()
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if cuda else None
    product = max(product, product_flops(device, trainer.precision))  # what else the machine did may have ended
    # means, not medians: where gradients are accumulated, few steps have an optimiser's part
    batch, step, wait = counter.images / counter.batches, statistics.fmean(profiler.whole), sum(profiler.wait)
    parts = {part: statistics.fmean(taken.get(part, 0.0) for taken in profiler.parts) for part in PARTS}
    network = parts["forward and loss"] + parts["backward"]
    speed = trainer.world_size * batch / step
    where = torch.cuda.get_device_name(device) if cuda else f"CPU, {torch.get_num_threads()} threads"
    record = {
        "device": where,
        "precision": trainer.precision,
        "batch_size": batch,
        "processes": trainer.world_size,
        "steps": steps,
        "step_ms": 1000 * step,
        "images_per_second": speed,
        "data_wait": wait / sum(profiler.whole),
        "parts_ms": {part: 1000 * seconds for part, seconds in parts.items()},
        "gflops_per_image": flops / 1e9,
        "achieved_gflops": batch * flops / network / 1e9,
        "matrix_product_gflops": product / 1e9,
        "memory_mib": memory,
    }
    if trainer.is_global_zero:
        profiler.trace.export_chrome_trace(str(directory / TRACE))
        write_text(directory / PROFILE, json.dumps(record, indent=2) + "\n")
        _print(record, directory)
    return speed


def step_flops(network: nn.Module, image_size: tuple[int, int]) -> int:
    """Return the floating point operations of forward and backward for one image: three times those of forward alone.

    Forward is what ``torch.utils.flop_counter`` counts; its count of backward is too high by far where convolutions
    have groups.

    Args:
        network: Takes ``uint8`` images ``(B, 3, H, W)``; it is left as it is.
        image_size: (height, width).
    """
    twin = copy.deepcopy(network).eval()
    image = torch.zeros((1, 3, *image_size), dtype=torch.uint8, device=next(twin.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin.forward(image)  # compiled, it would not be counted
    forward: int = counter.get_total_flops()
    return 3 * forward


def product_flops(device: torch.device, precision: Any) -> float:
    """Measure the floating point operations per second of a large square matrix product, the fastest of several.

    Args:
        device: Where.
        precision: Lightning's name of the precision that the network is multiplied in.
    """
    kinds = {"bf16": torch.bfloat16, "16-": torch.float16, "64": torch.float64}
    dtype = next((kind for name, kind in kinds.items() if str(precision).startswith(name)), torch.float32)
    size = _PRODUCT.get(device.type, 2048)
    one = torch.randn(size, size, device=device).to(dtype)
    fastest, until = math.inf, time.perf_counter() + _PRODUCT_SECONDS
    while fastest == math.inf or time.perf_counter() < until:
        start = time.perf_counter()
        torch.mm(one, one)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * size**3 / fastest


def _print(record: dict[str, Any], directory: Path) -> None:
    parts = record["parts_ms"]
    print(f"a training step of {record['batch_size']:g} images, {record['precision']}, {record['device']}:")
    table = Table()
    for column in ("part", "ms", "share"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for part, ms in parts.items():
        table.add_row(part, f"{ms:.1f}", f"{ms / sum(parts.values()):.1%}")
    table.add_section()
    table.add_row("sum of the parts", f"{sum(parts.values()):.1f}", "100.0%")
    table.add_row("an undisturbed step", f"{record['step_ms']:.1f}", "")
    Console().print(table)
    share = record["achieved_gflops"] / record["matrix_product_gflops"]
    of_all = f" of {record['processes']} processes together" if record["processes"] > 1 else ""
    print(
        f"{record['images_per_second']:.1f} images/s{of_all}; waiting for data {record['data_wait']:.1%} of the "
        "undisturbed steps\n"
        f"network: {record['achieved_gflops']:.1f} GFLOP/s forward and backward, {share:.0%} of a matrix product's "
        f"{record['matrix_product_gflops']:.1f}\n"
        f"trace: {directory / TRACE} (open in Perfetto or chrome://tracing); figures: {directory / PROFILE}"
    )
