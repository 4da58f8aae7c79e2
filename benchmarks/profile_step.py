"""Where a training step's time goes, and how near the network comes to what the machine can multiply.

    python benchmarks/profile_step.py data=nyu data.root=PATH model=irv2_attn           (any words of train.py)
    python benchmarks/profile_step.py data=rooms model=tiny data.batch_size=32 --steps 50

Two short fits in one process, without validation, checkpoints and loggers, each after five steps to warm up. The first
is undisturbed: images per second, and the share of the time in which there was no batch. In the second, each part is
timed; on a GPU it is waited for, so the parts add up to more than an undisturbed step. The network's FLOP/s, three
times those of forward as `torch.utils.flop_counter` counts them, stand beside those of a large matrix product in the
same precision; on a CPU the convolutions come from another library than the product, and may be faster than it. For a
trace, start train.py with trainer.profiler=pytorch.
"""

from __future__ import annotations

import argparse
import copy
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning import Trainer
from lightning.pytorch.profilers import Profiler
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from depthnet.core.device import describe_device
from depthnet.data.datamodule import DepthDataModule
from depthnet.run.config import register_resolvers
from depthnet.training.batch_size import resolve_batch_size
from depthnet.training.fit import quiet_libraries
from depthnet.training.module import DepthModule

PARTS = ("data wait", "transfer", "forward and loss", "backward", "optimizer", "callbacks", "Trainer")
OWNERS = {
    ".train_dataloader_next": "data wait",
    ".batch_to_device": "transfer",
    ".training_step": "forward and loss",
    ".backward": "backward",
    ".optimizer_step": "optimizer",
}
"""Which part an action of Lightning's belongs to, by the end of its name."""

CONF = Path(__file__).resolve().parent.parent / "conf"
WARMUP = 5  # steps: memory is taken, cuDNN tries its algorithms, the workers fill their queues
LEFT_OUT = ("best", "last", "history", "early_stopping", "progress")  # callbacks that want a validation, or write
PRODUCT = {"cpu": 2048, "cuda": 8192}  # rows and columns
PRODUCT_SECONDS = 0.5


class StepTimes(Profiler):
    """The time of the steps of a fit, and of their parts, after some steps to warm up.

    Args:
        steps: How many are timed.
        waits: Whether each part is waited for on a GPU, which works behind Python's back.
    """

    def __init__(self, steps: int, waits: bool) -> None:
        super().__init__()
        self.last = WARMUP + steps
        self.done = 0
        self.seconds = 0.0  # of all timed steps
        self.parts: Counter[str] = Counter()  # seconds of each part in them
        self._waits = waits
        self._began = 0.0
        self._running: list[list[Any]] = []  # name, start, seconds of what it called

    def start(self, action_name: str) -> None:
        """Begin an action."""
        self._running.append([action_name, self._now(), 0.0])

    def stop(self, action_name: str) -> None:
        """End it; its time is its own, without that of the actions within."""
        if not self._running or self._running[-1][0] != action_name:
            return
        name, start, within = self._running.pop()
        now = self._now(name == "run_training_batch" and self.done + 1 in (WARMUP, self.last))
        if self._running:
            self._running[-1][2] += now - start
        if WARMUP <= self.done < self.last:
            self.parts[self._part(name)] += now - start - within
        if name != "run_training_batch":
            return
        self.done += 1
        if self.done == WARMUP:
            self._began = now
        elif self.done == self.last:
            self.seconds = now - self._began
            self.parts["Trainer"] = self.seconds - sum(self.parts[part] for part in PARTS[:-1])

    def _part(self, action: str) -> str:
        for ending, part in OWNERS.items():
            if action.endswith(ending):
                return part
        return "callbacks" if action.startswith(("[Callback]", "[LightningModule]")) else "Trainer"

    def _now(self, edge: bool = False) -> float:
        if (self._waits or edge) and torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def profile(make_trainer: Callable[..., Trainer], module: Any, data: DepthDataModule, steps: int) -> dict[str, Any]:
    """Fit twice for some steps, and return where their time went.

    Args:
        make_trainer: Takes the Trainer's arguments of one fit.
        module: The DepthModule.
        data: What it learns from.
        steps: How many are timed, in either fit.
    """
    times: list[StepTimes] = []
    for waits in (False, True):
        profiler = StepTimes(steps, waits)
        trainer = make_trainer(profiler=profiler, max_epochs=-1, max_steps=profiler.last, limit_val_batches=0)
        trainer.fit(module, data)
        times.append(profiler)
    whole, apart = times
    device = trainer.strategy.root_device
    parts = {part: apart.parts[part] / steps for part in PARTS}
    network, batch = parts["forward and loss"] + parts["backward"], data.batch_size
    flops = batch * step_flops(module.network, data.image_size)
    return {
        "precision": trainer.precision,
        "batch_size": batch,
        "step_ms": 1000 * whole.seconds / steps,
        "images_per_second": batch * steps / whole.seconds,
        "data_wait": whole.parts["data wait"] / whole.seconds,
        "parts_ms": {part: 1000 * seconds for part, seconds in parts.items()},
        "achieved_gflops": flops / network / 1e9,
        "matrix_product_gflops": product_flops(device, trainer.precision) / 1e9,
    }


def step_flops(network: nn.Module, image_size: tuple[int, int]) -> int:
    """Return the floating point operations of forward and backward for one image: three times those of forward alone.

    The count of backward is too high by far where convolutions have groups.
    """
    twin = copy.deepcopy(network).eval()
    image = torch.zeros((1, 3, *image_size), dtype=torch.uint8, device=next(twin.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin.forward(image)  # compiled, it would not be counted
    return 3 * int(counter.get_total_flops())


def product_flops(device: torch.device, precision: Any) -> float:
    """Measure the floating point operations per second of a large square matrix product, the fastest of several."""
    kinds = {"bf16": torch.bfloat16, "16-": torch.float16, "64": torch.float64}
    dtype = next((kind for name, kind in kinds.items() if str(precision).startswith(name)), torch.float32)
    size = PRODUCT.get(device.type, 2048)
    one = torch.randn(size, size, device=device).to(dtype)
    fastest, until = math.inf, time.perf_counter() + PRODUCT_SECONDS
    while fastest == math.inf or time.perf_counter() < until:
        start = time.perf_counter()
        torch.mm(one, one)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * size**3 / fastest


def print_profile(found: dict[str, Any], device: str) -> None:
    parts = found["parts_ms"]
    table = Table("part", "ms", "share", box=box.MARKDOWN)
    for part, ms in parts.items():
        table.add_row(part, f"{ms:.1f}", f"{ms / sum(parts.values()):.1%}")
    table.add_row("sum of the parts", f"{sum(parts.values()):.1f}", "100.0%")
    table.add_row("an undisturbed step", f"{found['step_ms']:.1f}", "")
    print(f"a training step of {found['batch_size']} images on {device}:")
    Console().print(table)
    share = found["achieved_gflops"] / found["matrix_product_gflops"]
    print(
        f"{found['images_per_second']:.1f} images/s; waiting for data {found['data_wait']:.1%} of the undisturbed "
        f"steps\nnetwork: {found['achieved_gflops']:.1f} GFLOP/s forward and backward, {share:.0%} of a matrix "
        f"product's {found['matrix_product_gflops']:.1f}"
    )


def compose_config(words: Sequence[str], folder: str) -> DictConfig:
    """Return the config of train.py with these words, on one process, its files in a folder."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*words, f"directory={folder}"])
    OmegaConf.set_struct(cfg, False)
    if "pretrained" in cfg.model:
        cfg.model.pretrained = False  # the time does not depend on the weights
    cfg.trainer.update({"devices": 1, "num_nodes": 1, "strategy": "auto"})
    resolve_batch_size(cfg)
    return cfg


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="as on train.py's command line")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed, in each of two fits")
    options = parser.parse_intermixed_args(arguments)
    if not OmegaConf.has_resolver("default_data"):
        register_resolvers()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        cfg = compose_config(options.words, folder)
        network = instantiate(cfg.model, _convert_="all")
        data = instantiate(cfg.data, _convert_="all", size_for=network.size_for)
        parts = {part: instantiate(cfg[part], _convert_="all") for part in ("loss", "optimizer", "scheduler")}
        module = DepthModule(network, protocols=[], seed=cfg.seed, compile=cfg.compile, **parts)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}

        def make_trainer(**given: Any) -> Trainer:
            wanted = [part for name, part in cfg.callbacks.items() if name not in LEFT_OUT]
            callbacks = [instantiate(part, _convert_="all") for part in wanted if part]
            every = {"default_root_dir": folder, "callbacks": callbacks, **quiet, **given}
            trainer: Trainer = instantiate(cfg.trainer, _convert_="all", **every)
            return trainer

        print(data.describe(), flush=True)
        print_profile(profile(make_trainer, module, data, options.steps), describe_device(cfg.trainer))


if __name__ == "__main__":
    main()
