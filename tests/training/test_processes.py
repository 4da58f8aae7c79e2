"""Several processes are one run: what one process would learn, in one directory, whoever starts them."""

import contextlib
import csv
import ctypes
import functools
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forked import Forked, forks
from omegaconf import OmegaConf
from torch import nn
from torch.distributed.run import main as torchrun

import train as script
from depthnet.core.types import InputError
from depthnet.models.checkpoint import load_plain
from depthnet.run.distributed import check_processes
from depthnet.training.module import DepthModule
from depthnet.training.sweep import check_job

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "data=rooms",
    "data.frames={train: 9, val: 5, test: 2}",  # of two processes, neither share is even
    "data.image_size=[32,48]",
    "data.num_workers=0",
    "data.eval_batch_size=1",
    "model=tiny",
    "logger=none",
    "trainer.max_epochs=2",
    "callbacks.last.every_n_steps=1",
]
UNUSED = ("model", "data.batch_size", "trainer.max_epochs", "callbacks.last")  # by mode=test, which refuses them
TWO = [*SMALL, "trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=32-true", "data.batch_size=2"]


def run(words, environment, name, program="train.py"):
    """Run train.py in this process; what it says goes to ``<name>.out`` and ``<name>.err``."""
    for left in ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"):  # by another test
        os.environ.pop(left, None)
    os.environ.update(environment)
    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    sys.argv = [str(program), *words]
    script.main()


def srun(rank):
    """What srun tells a task of two on one host."""
    told = {"JOB_ID": 12, "JOB_NAME": "depth", "NTASKS": 2, "NTASKS_PER_NODE": 2, "STEP_NUM_TASKS": 2, "NNODES": 1}
    told |= {"NODEID": 0, "PROCID": rank, "LOCALID": rank}
    return {f"SLURM_{name}": str(value) for name, value in told.items()}


def by_hand(rank):
    """What torchrun tells a process of two on one host, without its agent."""
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}


def start(launcher, *words, victim=None, number=signal.SIGKILL):
    """Run train.py in two processes as a launcher would start them, of which one gets a signal; return exit codes."""
    port = {"MASTER_PORT": str(free_port())}

    def member(rank):
        if rank == victim:
            send_at(3, number)
        run(words, launcher(rank) | port, f"rank_{rank}")
        assert not torch.distributed.is_initialized(), "a process that ends with its group may be aborted"

    return [process.code() for process in [Forked(functools.partial(member, rank)) for rank in range(2)]]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def send_at(step, number):
    """Let this process be sent a signal as it begins a step."""
    begin = DepthModule.on_train_batch_start

    def on_train_batch_start(module, batch, batch_idx):
        if module.global_step == step:
            os.kill(os.getpid(), number)
        begin(module, batch, batch_idx)

    DepthModule.on_train_batch_start = on_train_batch_start


def weights(directory):
    return load_plain(Path(directory, "checkpoints/last.ckpt"))["state_dict"]


def difference(a, b):
    """The largest difference of two networks' tensors, relative to the tensor's largest value."""
    assert a.keys() == b.keys()
    floats = [name for name, value in a.items() if value.is_floating_point()]
    return max(float((a[name] - b[name]).abs().max() / a[name].abs().max().clamp(min=1e-30)) for name in floats)


def table(path):
    """The columns of a CSV file that hold numbers."""
    rows = list(csv.reader(Path(path).read_text().splitlines()[1:]))
    return np.array([[float(cell) for cell in row if re.fullmatch(r"[-+.\de]+", cell)] for row in rows])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The directory of a run of two processes that nothing befell."""
    if not hasattr(os, "fork"):
        pytest.skip("fork saves imports of torch")
    folder = tmp_path_factory.mktemp("two")
    with contextlib.chdir(folder):
        codes = start(srun, *TWO, "hydra.run.dir=two")
        assert codes == [0, 0], [path.read_text() for path in Path().glob("rank_*.err")]
    return folder / "two"


@forks
def test_two_processes_learn_and_evaluate_as_one_with_twice_the_batch(train, monkeypatch):
    monkeypatch.setattr(nn.BatchNorm2d, "train", lambda module, mode=True: nn.Module.train(module, False))
    double = "trainer.precision=64-true"
    assert start(srun, *TWO, double, "hydra.run.dir=two") == [0, 0], Path("rank_0.err").read_text()
    one = train(*SMALL, "trainer=cpu", double, "data.batch_size=4", "hydra.run.dir=one")
    assert one.code == 0, one.err
    assert difference(weights("one"), weights("two")) < 1e-9
    found, wanted = (table(f"{name}/per_image.csv") for name in ("two", "one"))
    assert found.shape == wanted.shape == (5, 10)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)  # figures are of float32 depth
    np.testing.assert_allclose(table("two/history.csv"), table("one/history.csv"), rtol=1e-6)
    assert Path("rank_1.out").read_text() == ""


@forks
def test_processes_evaluate_to_the_bits_of_one(train, two):
    evaluate = ["mode=test", "split=val", f"ckpt={two}/checkpoints/best.ckpt"]
    small, processes = ([word for word in words if not word.startswith(UNUSED)] for words in (SMALL, TWO))
    assert start(srun, *processes, *evaluate, "hydra.run.dir=two") == [0, 0], Path("rank_0.err").read_text()
    done = train(*small, "trainer=cpu", *evaluate, "hydra.run.dir=one")
    assert done.code == 0, done.err
    assert len({Path(folder, "per_image.csv").read_text() for folder in ("one", "two", two)}) == 1


@forks
def test_processes_that_cannot_be_one_run_end_with_a_line_and_leave_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, line in (
        (TWO, "2 processes were started, and each would name another directory: add hydra.run.dir=DIR"),
        ([*SMALL, "trainer=cpu", "hydra.run.dir=run"], "and the trainer has 1 on 1 hosts; give trainer=ddp"),
        (["-m", *TWO, "seed=0,1"], "a sweep starts its own jobs, outside torchrun and srun"),
    ):
        assert start(srun, *words) == [2, 2]
        for err in Path("rank_0.err"), Path("rank_1.err"):
            (told,) = err.read_text().splitlines()
            assert line in told
            err.unlink()
    assert not list(tmp_path.rglob("config.yaml"))


@forks
def test_a_run_of_which_one_process_was_killed_or_stopped_resumes_bit_exactly(tmp_path, monkeypatch, two):
    monkeypatch.chdir(tmp_path)
    begin = [*TWO, "hydra.run.dir=run", "resume=auto"]
    assert start(by_hand, *begin, victim=1) == [1, -signal.SIGKILL]
    assert start(by_hand, *begin, victim=0) == [-signal.SIGKILL, 1]
    assert "resumed in epoch 2 after step 3" in Path("rank_0.err").read_text()
    for err in Path("rank_0.err"), Path("rank_1.err"):
        err.unlink()
    assert start(by_hand, *begin, victim=1, number=signal.SIGTERM) == [143, 0]
    assert "stopped in epoch 2, step 4; resume with resume=" in Path("rank_0.out").read_text()
    assert start(by_hand, *begin) == [0, 0], Path("rank_0.err").read_text()
    assert "Traceback" not in Path("rank_0.err").read_text() + Path("rank_1.err").read_text()
    assert difference(weights("run"), weights(two)) == 0
    for name in ("history.csv", "steps.csv"):
        assert Path("run", name).read_text() == (two / name).read_text()
    assert start(by_hand, *begin) == [0, 0]
    assert Path("rank_0.out").read_text().count("already finished; metrics from") == 1
    assert Path("rank_1.out").read_text() == ""


@forks
def test_lightnings_launcher_starts_the_second_process_in_the_directory_of_the_first(tmp_path, monkeypatch, two):
    monkeypatch.chdir(tmp_path)

    def command_line():
        sys.modules["__main__"].__spec__ = None  # as of a script
        run(TWO, {}, "both", ROOT / "train.py")

    assert Forked(command_line).code() == 0, Path("both.err").read_text()
    found = Path("runs/rooms_tiny/latest").resolve()
    assert (found / "train_ddp_process_1.log").exists()
    assert Path("both.out").read_text().count("run:  ") == 1, "one process speaks"
    assert difference(weights(found), weights(two)) == 0
    for name in ("config.yaml", "per_image.csv", "history.csv", "steps.csv"):
        assert (found / name).read_text() == (two / name).read_text()


def test_a_sweep_whose_jobs_would_start_processes_is_refused(train):
    done = train("-m", *TWO, "seed=0,1")
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert "a job of a sweep is one process, so write trainer.devices=1; several need hydra/launcher=submitit" in line
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("devices", "launcher", "fits"),
    [
        (1, "BasicLauncher", True),
        ([3], "JoblibLauncher", True),
        (2, "SlurmLauncher", True),
        ([0, 1], "BasicLauncher", False),
        ("auto", "JoblibLauncher", False),
        (-1, "LocalLauncher", False),
    ],
)
def test_a_sweeps_job_is_one_process_unless_slurm_starts_more(devices, launcher, fits):
    about = OmegaConf.create({"_target_": f"a.{launcher}"})
    with contextlib.nullcontext() if fits else pytest.raises(InputError, match=r"a job of a sweep is one process"):
        check_job(OmegaConf.create({"devices": devices}), about)


@pytest.mark.parametrize(
    ("started", "devices", "nodes", "starts", "words"),
    [
        (1, 2, 1, True, None),
        (2, 2, 1, False, None),  # Lightning's child
        (4, 2, 2, False, None),
        (1, 1, 1, None, None),
        (2, 1, 2, False, r"trainer\.devices=1, trainer\.num_nodes=2: one host, says SLURM"),
        (1, 2, 2, True, r"trainer\.num_nodes=2: start it on every host"),
        (1, 4, 1, False, r"1 processes were started \(torchrun and srun start several\), and the trainer has 4 on 1"),
        (2, 1, 1, None, "2 processes were started .* give trainer=ddp"),
    ],
)
def test_a_trainer_of_other_processes_than_were_started_is_refused(monkeypatch, started, devices, nodes, starts, words):
    monkeypatch.setenv("WORLD_SIZE", str(started))

    def validate_settings(num_devices, num_nodes):
        if (num_devices, num_nodes) == (1, 2):
            raise ValueError("one host, says SLURM")

    environment = SimpleNamespace(validate_settings=validate_settings, creates_processes_externally=not starts)
    strategy = SimpleNamespace(cluster_environment=None if starts is None else environment)
    trainer = SimpleNamespace(num_devices=devices, num_nodes=nodes, strategy=strategy)
    with pytest.raises(InputError, match=words) if words else contextlib.nullcontext():
        check_processes(trainer)


@pytest.fixture
def hosts():
    """Two network namespaces with a cable between them: the names, which are those of the ends of the cable too."""
    names = [f"depth{secrets.token_hex(3)}{end}" for end in "ab"]

    def ip(*words):
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no network namespaces here: {done.stderr.strip()}")

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", names[0], "netns", names[0], "type", "veth", "peer", "name", names[1], "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", name)
            ip("-n", name, "link", "set", name, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    except FileNotFoundError:
        pytest.skip("no network namespaces here: there is no command ip")
    finally:
        for name in names:
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@forks
def test_two_hosts_learn_what_two_processes_on_one_learn(hosts, tmp_path, monkeypatch, two):
    monkeypatch.chdir(tmp_path)
    words = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=10.77.0.1", "--master-port=29500"]
    command = [str(ROOT / "train.py"), *TWO, "trainer.devices=1", "trainer.num_nodes=2", "hydra.run.dir=run"]

    def host(number):
        with Path("/var/run/netns", hosts[number]).open() as place:
            assert ctypes.CDLL(None).setns(place.fileno(), 0) == 0
        os.environ["GLOO_SOCKET_IFNAME"] = hosts[number]
        for stream in (1, 2):
            os.dup2(os.open(f"host_{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        torchrun([*words, f"--node-rank={number}", *command])

    members = [Forked(functools.partial(host, number)) for number in range(2)]
    assert [member.code() for member in members] == [0, 0], Path("host_0").read_text()
    assert difference(weights("run"), weights(two)) == 0
    assert Path("run/per_image.csv").read_text() == (two / "per_image.csv").read_text()
