"""What logging adds to a training step: our Trainer with W&B and the dashboard, without a logger, and a bare loop.

    python benchmarks/logging_cost.py            (a minute or two on two cores; a GPU is used where there is one)

The network is that of the small models (mobilenetv2_100 and our decoder) with the whole of a step: loss, gradients,
clipping, AdamW, running averages. W&B is offline and writes its file; every tenth step has a row, as in a run. All are
measured in one run, ten steps each in turn and the order turned from round to round, so that a machine that slows down
slows them alike; a ratio is the median over the rounds of the time taken to the Trainer's without a logger in the same
round. Beside the clock's ratio stands that of the processor's time in this process, which other work on the machine
disturbs less, and shows nothing about a GPU. The last line is what the dashboard's hooks and the calls of W&B take
of it by themselves, which no noise of the steps hides. W&B's own process, which writes the file, is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning import Callback, Trainer
from train_step import RANGE, FixedData, bare_step, fit, random_batch

from depthnet.core.types import Sample
from depthnet.models.depth_net import DepthNet
from depthnet.training.callbacks.dashboard import Dashboard
from depthnet.training.callbacks.finite import FiniteSteps
from depthnet.training.callbacks.history import History
from depthnet.training.fit import quiet_libraries
from depthnet.training.loggers import WandbRun, guard, wandb_logger
from depthnet.training.losses import DepthLoss
from depthnet.training.optimizers import build_optimizer
from depthnet.training.schedules import one_cycle

BARE, PLAIN, LOGGED = "bare loop", "our Trainer, no logger", "our Trainer, W&B"


class Clock(Callback):
    """Times the steps of a fit from the end of its first to the end of its last, what they log included."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Look at the clocks: Lightning logs a step's row before the next one starts."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append((time.perf_counter(), time.process_time()))

    def spent(self) -> tuple[float, float]:
        """Return the seconds by the wall clock and of the processor."""
        (wall, own), (last_wall, last_own) = self.ends[1], self.ends[-1]
        return last_wall - wall, last_own - own


class Meter:
    """Adds up the processor's time that some methods of objects take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self, thing: Any, *names: str) -> None:
        """Watch methods that do not call each other."""
        for name in names:
            setattr(thing, name, self._timed(getattr(thing, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            start = time.process_time()
            result = method(*args, **options)
            self.seconds += time.process_time() - start
            return result

        return timed


def through_trainer(
    net: DepthNet, loss: DepthLoss, batch: Sample, steps: int, board: WandbRun | None, meter: Meter
) -> tuple[float, float]:
    clock, dashboard = Clock(), Dashboard(RANGE)
    if board:
        meter.watch(dashboard, "on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end")
    with tempfile.TemporaryDirectory() as folder:
        fit(
            net,
            loss,
            FixedData(batch, steps + 2),  # the first warms up, the last only starts
            folder,
            accelerator="auto",
            devices=1,
            log_every_n_steps=10,
            callbacks=[FiniteSteps(folder), History(folder), dashboard, clock],
            logger=board or False,
        )
    return clock.spent()


def loop(net: DepthNet, loss: DepthLoss, batch: Sample, steps: int) -> tuple[float, float]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = Sample(*(part.to(device) for part in batch))  # type: ignore[union-attr]  # a batch's frames are a tensor
    net.to(device).train()
    optimizer, clock = build_optimizer(net), Clock()
    schedule = one_cycle(optimizer, steps)
    for _ in range(steps + 1):
        clock.on_train_batch_start(None, None, None, 0)  # type: ignore[arg-type]  # it looks at none of them
        bare_step(net, loss, batch, optimizer)
        schedule.step()
    clock.on_train_batch_start(None, None, None, 0)  # type: ignore[arg-type]
    return clock.spent()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="timed steps in each round")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, after one to warm up")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch")
    parser.add_argument("--size", type=int, nargs=2, default=(120, 160), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ["WANDB_MODE"] = "offline"
    quiet_libraries()
    height, width = options.size
    batch = random_batch(options.batch, (height, width))
    loss = DepthLoss({"silog": 1.0, "l1": 1.0}, RANGE)
    net = DepthNet("mobilenetv2_100", depth_range=RANGE, image_size=(height, width))
    net = net.to(memory_format=torch.channels_last)
    times: dict[str, list[tuple[float, float]]] = {BARE: [], PLAIN: [], LOGGED: []}
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter()
        board: Any = guard(wandb_logger(folder, "benchmark"))  # type: ignore[arg-type]  # it is installed
        meter.watch(board, "log_metrics")
        ways: dict[str, Callable[[], tuple[float, float]]] = {
            BARE: lambda: loop(net, loss, batch, options.steps),
            PLAIN: lambda: through_trainer(net, loss, batch, options.steps, None, meter),
            LOGGED: lambda: through_trainer(net, loss, batch, options.steps, board, meter),
        }
        for number in range(options.rounds + 1):
            names = list(ways)
            for name in names[number % 3 :] + names[: number % 3]:
                spent = ways[name]()
                if number:  # the first round warms up
                    times[name].append(spent)
        board.finish("success")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {options.threads} threads"
    print(f"{device}; torch {torch.__version__}; batch {options.batch}, {height}x{width}; {options.rounds} rounds\n")
    print("| a training step | ms | ratio | range of the ratio | ratio of processor time |")
    print("| --- " * 5 + "|")
    for name, taken in times.items():
        walls, owns = (
            sorted(ours[kind] / plain[kind] for ours, plain in zip(taken, times[PLAIN], strict=True)) for kind in (0, 1)
        )
        median = statistics.median(wall for wall, _ in taken) * 1000 / options.steps
        spread = f"{walls[0]:.3f} to {walls[-1]:.3f}"
        print(f"| {name} | {median:.1f} | {statistics.median(walls):.3f} | {spread} | {statistics.median(owns):.3f} |")
    own = meter.seconds / (options.rounds + 1) / (options.steps + 2)
    whole = statistics.median(seconds for _, seconds in times[LOGGED]) / options.steps
    print(f"\nin the dashboard and W&B's calls: {own * 1000:.2f} ms a step, {own / whole:.2%} of its processor time")


if __name__ == "__main__":
    main()
