"""benchmarks/profile_step.py: its clock by a played fit, and that it runs with words of train.py."""

import sys
from pathlib import Path

import pytest
import torch

from depthnet.models.basic import BasicNet

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
import profile_step
from profile_step import PARTS, WARMUP, StepTimes

NEXT = "[_TrainingEpochLoop].train_dataloader_next"
BACKWARD = "[Strategy]SingleDeviceStrategy.backward"
STEP = "[LightningModule]DepthModule.optimizer_step"
CALLBACK = "[Callback]History.on_train_batch_end"


def test_each_part_has_its_own_time_and_the_parts_are_the_step(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(profile_step.time, "perf_counter", lambda: clock[0])
    times = StepTimes(4, waits=True)

    def play(name, seconds, *inner):
        times.start(name)
        for one in inner:
            play(*one)
        clock[0] += seconds
        times.stop(name)

    for number in range(times.last + 2):  # what comes after the last step does not count
        play(NEXT, number)
        play("run_training_batch", 0.5, (STEP, 3.0, (BACKWARD, 20.0)))
        play(CALLBACK, 2.0)
        clock[0] += 1.0  # what nothing accounts for
    assert times.seconds == sum(range(WARMUP, WARMUP + 4)) + 4 * 26.5
    assert times.parts == {
        "data wait": sum(range(WARMUP, WARMUP + 4)),
        "backward": 80.0,
        "optimizer": 12.0,
        "callbacks": 8.0,
        "Trainer": 6.0,
    }


def test_flops_are_three_times_those_of_forward_and_the_network_stays():
    network = BasicNet((1e-3, 10.0), (8, 8), widths=(4,)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert profile_step.step_flops(network, (8, 8)) == 3 * 2 * 8 * 8 * (9 * (3 * 4 + 4 * 4) + 4)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training


@pytest.mark.filterwarnings("ignore")
def test_it_takes_the_words_of_train_py_and_prints_every_part(monkeypatch, capsys):
    monkeypatch.setattr(profile_step, "PRODUCT_SECONDS", 0.0)
    words = ["data=rooms", "data.frames={train: 4, val: 1}", "data.image_size=[32,48]", "data.batch_size=2"]
    profile_step.main([*words, "model=tiny", "trainer=cpu", "data.num_workers=0", "data.cache=none", "--steps", "2"])
    out = capsys.readouterr().out
    assert "a training step of 2 images on CPU" in out
    for part in (*PARTS, "an undisturbed step", "images/s; waiting for data", "of a matrix product's"):
        assert part in out
