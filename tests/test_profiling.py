import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from depthnet.models.basic import BasicNet
from depthnet.profiling import PARTS, TRACE, StepProfiler, step_flops

ROOT = Path(__file__).resolve().parent.parent
NEXT = "[_TrainingEpochLoop].train_dataloader_next"
BACKWARD = "[Strategy]SingleDeviceStrategy.backward"
STEP = "[LightningModule]DepthModule.optimizer_step"


def take(profiler, clock, wait, backward, optimiser):
    """Play one step as Lightning does: the optimiser's step encloses the backward pass."""
    profiler.start(NEXT)
    clock[0] += wait
    profiler.stop(NEXT)
    profiler.start("run_training_batch")
    profiler.start(STEP)
    profiler.start(BACKWARD)
    clock[0] += backward
    profiler.stop(BACKWARD)
    clock[0] += optimiser
    profiler.stop(STEP)
    profiler.stop("run_training_batch")
    clock[0] += 1.0  # what nothing accounts for


def test_each_part_has_its_own_time_and_the_parts_are_the_step(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("depthnet.profiling.time.perf_counter", lambda: clock[0])
    profiler = StepProfiler(4, torch.device("cpu"))
    for number in range(profiler.total):
        take(profiler, clock, wait=number, backward=20.0, optimiser=3.0)
        profiler.start(NEXT)  # the end of an epoch: no further batch, but the wait counts
        clock[0] += 0.5
        profiler.stop(NEXT)
    profiler.finish()
    assert profiler.whole == [24.5 + number for number in (5, 6, 7, 8)]
    assert profiler.wait == [0.5, 5, 0.5, 6, 0.5, 7, 0.5, 8]
    assert [step["data wait"] for step in profiler.parts] == [9.5, 10.5, 11.5, 12.5]
    for step in profiler.parts:
        assert step["backward"] == 20.0
        assert step["optimiser"] == 3.0
    assert profiler.trace is not None


def test_flops_are_three_times_those_of_forward_and_the_network_stays():
    network = BasicNet((1e-3, 10.0), (8, 8), widths=(4,)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert step_flops(network, (8, 8)) == 3 * 2 * 8 * 8 * (9 * (3 * 4 + 4 * 4) + 4)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    directory = tmp_path_factory.mktemp("profile") / "run"
    words = [
        "mode=profile",
        "data=rooms",
        "model=tiny",
        "logger=none",
        "trainer=cpu",
        "profile_steps=3",
        "data.num_workers=0",
    ]
    size = ["data.frames={train: 4, val: 1, test: 0}", "data.image_size=[32,48]", "data.batch_size=2"]
    command = [sys.executable, "train.py", *words, *size, "callbacks=early_stopping", f"hydra.run.dir={directory}"]
    return directory, subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


def test_a_profile_says_where_the_time_goes(profiled):
    directory, ran = profiled
    assert ran.returncode == 0, ran.stderr
    for part in (*PARTS, "an undisturbed step", "images/s", "GFLOP/s"):
        assert part in ran.stdout
    record = json.loads((directory / "profile.json").read_text())
    assert list(record["parts_ms"]) == list(PARTS)
    assert min(record["parts_ms"].values()) >= 0
    assert record["batch_size"] == 2
    assert record["images_per_second"] == pytest.approx(2000 / record["step_ms"])
    assert 0 <= record["data_wait"] < 1
    assert record["matrix_product_gflops"] > record["achieved_gflops"] > 0


def test_its_trace_holds_the_steps_and_nothing_else_is_written(profiled):
    directory, _ = profiled
    events = json.loads(gzip.decompress((directory / TRACE).read_bytes()))["traceEvents"]
    assert sum("backward" in event.get("name", "") for event in events) > 3
    assert not (directory / "checkpoints").exists()
    assert not (directory / "metrics.json").exists()
