"""Several processes are one run: what one process would learn, in one directory, with one end, whoever starts them."""

import contextlib
import functools
import os
import signal
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import Forked, forks
from torch import nn
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import train as script
from depthnet.checkpoint import load_plain
from depthnet.module import DepthModule

ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    "data=rooms",
    "data.frames={train: 9, val: 5, test: 2}",  # of two processes, neither share is even
    "data.image_size=[32,48]",
    "data.num_workers=0",
    "data.cache=none",
    "data.eval_batch_size=1",
    "model=tiny",
    "logger=none",
    "trainer.max_epochs=2",
    "callbacks.last.every_n_steps=1",
]
TWO = [*SMALL, "trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=32-true", "data.batch_size=2"]
STEPS = 4  # of such a run


def run(words, environment, name):
    """Run train.py in this process, which tells nobody else; what it says goes to ``<name>.out`` and ``<name>.err``."""
    os.environ.update(environment)
    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    sys.argv = ["train.py", *words]
    script.main()


def srun(*words):
    """Run train.py in two processes, as srun starts them on one host; return the exit codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = {"JOB_ID": 12, "JOB_NAME": "depth", "NTASKS": 2, "NTASKS_PER_NODE": 2, "NNODES": 1, "NODEID": 0}
    told |= {"NODELIST": "127.0.0.1"}
    members = []
    for rank in range(2):
        environment = {f"SLURM_{name}": str(value) for name, value in (told | {"PROCID": rank, "LOCALID": rank}).items()}
        environment |= {"MASTER_PORT": str(port)}
        members.append(Forked(functools.partial(run, words, environment, f"rank_{rank}")))
    return [member.code() for member in members]


def elastic(*words, victim=None):
    """Run train.py in two processes under torchrun's agent; return whether it says that they failed."""

    def member():
        rank = int(os.environ["RANK"])
        if rank == victim:
            die_at(3, lambda trainer: os.kill(os.getpid(), signal.SIGKILL))
        run(words, {}, f"rank_{rank}")

    def agent():
        # what the command torchrun does, but its processes are forks
        config = LaunchConfig(1, 1, 2, run_id="test", rdzv_backend="c10d", start_method="fork", monitor_interval=0.1)
        try:
            elastic_launch(config, member)()
        except torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
            return False
        return True

    return Forked(agent).answer()


def die_at(step, end):
    """Let a process that has begun the step with this number come to some end."""
    start = DepthModule.on_train_batch_start

    def on_train_batch_start(module, batch, batch_idx):
        if module.global_step == step:
            end(module.trainer)
        start(module, batch, batch_idx)

    DepthModule.on_train_batch_start = on_train_batch_start


def weights(directory):
    return load_plain(Path(directory, "checkpoints/last.ckpt"))["state_dict"]


def difference(a, b):
    """The largest difference of two networks' tensors, relative to the tensor's largest value."""
    assert a.keys() == b.keys()
    floats = [name for name, value in a.items() if value.is_floating_point()]
    return max(float((a[name] - b[name]).abs().max() / a[name].abs().max().clamp(min=1e-30)) for name in floats)


def table(path):
    """The numbers of a CSV file."""
    rows = [line.split(",") for line in Path(path).read_text().splitlines()[1:]]
    return np.array([[float(cell) for cell in row if cell.replace("-", "").replace(".", "").replace("e", "").isdigit()] for row in rows])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The directory of a run of two processes that nothing befell."""
    if not hasattr(os, "fork"):
        pytest.skip("fork saves imports of torch")
    folder = tmp_path_factory.mktemp("two")
    with contextlib.chdir(folder):
        assert srun(*TWO, "hydra.run.dir=two") == [0, 0], Path("rank_0.err").read_text()
    return folder / "two"


@forks
def test_two_processes_learn_and_judge_as_one_with_twice_the_batch(train, tmp_path, monkeypatch):
    monkeypatch.setattr(nn.BatchNorm2d, "train", lambda module, mode=True: nn.Module.train(module, False))
    double = "trainer.precision=64-true"
    assert srun(*TWO, double, "hydra.run.dir=two") == [0, 0], Path("rank_0.err").read_text()
    one = train(*SMALL, "trainer=cpu", double, "data.batch_size=4", "hydra.run.dir=one")
    assert one.code == 0, one.err
    assert difference(weights("one"), weights("two")) < 1e-9
    found, wanted = (table(f"{name}/per_image.csv") for name in ("two", "one"))
    assert found.shape == wanted.shape == (5, 10)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)  # figures are of float32 depth
    np.testing.assert_allclose(table("two/history.csv"), table("one/history.csv"), rtol=1e-6)
    assert len(Path("rank_1.out").read_text()) == 0
