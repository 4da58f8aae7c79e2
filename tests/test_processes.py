"""Several processes are one run: what one process would learn, in one directory, with one end, whoever starts them."""

import contextlib
import csv
import ctypes
import functools
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forked import PATIENCE, Forked, forks
from lightning.pytorch.plugins.environments import SLURMEnvironment
from torch import nn
from torch.distributed.run import main as torchrun

import train as script
from depthnet import processes
from depthnet.checkpoint import load_plain
from depthnet.module import DepthModule
from depthnet.run import first_process
from depthnet.sweep import read_jobs
from depthnet.types import InputError

ROOT = Path(__file__).resolve().parent.parent
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


def run(words, environment, name):
    """Run train.py in this process; what it says goes to ``<name>.out`` and ``<name>.err``."""
    os.environ.update(environment)
    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    sys.argv = ["train.py", *words]
    script.main()


def srun(rank):
    """What srun tells a task of two on one host."""
    told = {"JOB_ID": 12, "JOB_NAME": "depth", "NTASKS": 2, "NTASKS_PER_NODE": 2, "STEP_NUM_TASKS": 2, "NNODES": 1}
    told |= {"NODEID": 0, "PROCID": rank, "LOCALID": rank}
    return {f"SLURM_{name}": str(value) for name, value in told.items()}


def by_hand(rank):
    """What torchrun tells a process of two on one host, without its agent."""
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}


def start(launcher, *words, victim=None):
    """Run train.py in two processes as a launcher would start them, of which one may die; return the exit codes."""
    port = {"MASTER_PORT": str(free_port())}

    def member(rank):
        if rank == victim:
            die_at(3, lambda trainer: os.kill(os.getpid(), signal.SIGKILL))
        run(words, launcher(rank) | port, f"rank_{rank}")
        assert not torch.distributed.is_initialized(), "a process that ends with its group may be aborted"

    return [process.code() for process in [Forked(functools.partial(member, rank)) for rank in range(2)]]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def die_at(step, end, job=10):
    """Let a process that begins a step come to some end; in a sweep over ``log_every_n_steps``, in one job."""
    begin = DepthModule.on_train_batch_start

    def on_train_batch_start(module, batch, batch_idx):
        if (module.global_step, module.run["trainer"]["log_every_n_steps"]) == (step, job):
            end(module.trainer)
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
        assert start(srun, *TWO, "hydra.run.dir=two") == [0, 0], Path("rank_0.err").read_text()
    return folder / "two"


@forks
def test_two_processes_learn_and_judge_as_one_with_twice_the_batch(train, monkeypatch):
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
def test_processes_agree_on_a_new_directory_and_judge_to_the_bits_of_one(train, two):
    judge = ["mode=test", "split=val", f"ckpt={two}/checkpoints/best.ckpt"]
    small, processes = ([word for word in words if not word.startswith(UNUSED)] for words in (SMALL, TWO))
    assert start(srun, *processes, *judge) == [0, 0], Path("rank_0.err").read_text()
    (found,) = Path("runs/rooms_test").iterdir()
    done = train(*small, "trainer=cpu", *judge, "hydra.run.dir=one")
    assert done.code == 0, done.err
    rows = {path.read_text() for path in (found / "per_image.csv", Path("one/per_image.csv"), two / "per_image.csv")}
    assert len(rows) == 1


@forks
def test_a_trainer_that_does_not_take_the_processes_ends_them_and_leaves_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert start(srun, *SMALL, "trainer=cpu", "hydra.run.dir=run") == [2, 0]
    (line,) = Path("rank_0.err").read_text().splitlines()
    assert "2 processes were started, and the trainer has 1 on 1 hosts; give trainer=ddp" in line
    assert not Path("run/config.yaml").exists()


@forks
def test_where_one_process_dies_the_other_ends_and_the_run_goes_on(tmp_path, monkeypatch, two):
    monkeypatch.chdir(tmp_path)
    begin = [*TWO, "hydra.run.dir=run", "resume=auto"]
    assert start(by_hand, *begin, victim=1) == [2, -signal.SIGKILL]
    told = Path("rank_0.err").read_text().splitlines()[-1]
    assert told.startswith("error: another process of this run has ended (")
    assert told.endswith(f"; go on with resume={tmp_path}/run")
    assert start(by_hand, *begin, victim=0) == [-signal.SIGKILL, 1]
    assert Path("run/process_1.log").read_text().count("another process of this run has ended") == 1
    assert start(by_hand, *begin) == [0, 0], Path("rank_0.err").read_text()
    assert "Traceback" not in Path("rank_0.err").read_text() + Path("rank_1.err").read_text()
    assert difference(weights("run"), weights(two)) == 0
    assert Path("run/history.csv").read_text() == (two / "history.csv").read_text()
    assert start(by_hand, *begin) == [0, 0]
    assert Path("rank_0.out").read_text().count("it has ended; its figures") == 1


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep with Lightning's launcher, in whose second job a child dies: exit code, what it left behind, folder."""
    if not hasattr(os, "fork"):
        pytest.skip("fork saves imports of torch")

    def whole():
        die_at(3, lambda trainer: trainer.strategy.launcher.procs[0].kill(), job=11)
        with pytest.raises(SystemExit) as stop:
            run(["-m", *TWO, "trainer.log_every_n_steps=10,11", "hydra.sweep.dir=all"], {}, "sweep")
        names = {"LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "DEPTHNET_RUN"}
        return stop.value.code, names & set(os.environ), torch.distributed.is_initialized()

    folder = tmp_path_factory.mktemp("sweep")
    with contextlib.chdir(folder):
        return *Forked(whole).answer(), folder


def jobs_of(folder):
    return sorted(read_jobs(folder / "all"), key=lambda job: job.overrides["trainer.log_every_n_steps"])


@forks
def test_a_sweep_is_a_folder_a_job_with_processes_of_its_own(sweep, two):
    _, variables, group, folder = sweep
    assert not variables
    assert not group
    assert {path.name for path in folder.iterdir()} == {"all", "sweep.out", "sweep.err"}
    sound, killed = jobs_of(folder)
    names = {sound.path.name, killed.path.name, "multirun.yaml", "sweep.csv"}
    assert {path.name for path in (folder / "all").iterdir()} == names
    assert (sound.status, killed.status) == ("finished", "failed")
    out, err = ((folder / f"sweep.{stream}").read_text() for stream in ("out", "err"))
    for job in (sound, killed):
        assert (job.path / "process_1.log").exists()
        assert out.count(f"run:  {job.path}\n") == 1, "one process speaks"
    assert "sync_dist" not in err
    assert json.loads((sound.path / "metrics.json").read_text())["images"] == 5
    assert difference(weights(sound.path), weights(two)) == 0, "Lightning's processes learn what srun's do"


@forks
def test_a_killed_child_and_then_a_killed_first_process_end_the_run_and_it_goes_on(sweep, monkeypatch, two):
    code, _, _, folder = sweep
    monkeypatch.chdir(folder)
    job = jobs_of(folder)[1].path
    way_on = f"go on with resume={job}"
    assert code == 1
    told = Path("sweep.err").read_text()
    assert told.splitlines()[-1] == f"error: process 1 of 2 was ended by SIGKILL; {way_on}"

    def first_dies():
        def end(trainer):
            Path("child").write_text(str(trainer.strategy.launcher.procs[0].pid))
            os.kill(os.getpid(), signal.SIGKILL)

        die_at(3, end, job=11)
        run([f"resume={job}"], {}, "resumed")

    assert Forked(first_dies).code() == -signal.SIGKILL
    wait_for_end(int(Path("child").read_text()))
    lines = Path("resumed.err").read_text().splitlines()
    assert lines[-1] == f"error: the first process of this run was killed; {way_on}"
    assert "resumed in epoch 2 after step 3" in lines
    assert start(srun, f"resume={job}") == [0, 0], Path("rank_0.err").read_text()
    assert difference(weights(job), weights(two)) == 0


@forks
@pytest.mark.parametrize(
    ("how", "code", "status", "line"),
    [
        ("sys.exit(130)", 130, "unfinished", "process 1 of 2 ended with code 130 (see process_1.log)"),
        ("os.kill(os.getpid(), 9)", 1, "failed", "process 1 of 2 was ended by SIGKILL"),
    ],
)
def test_a_child_that_ends_before_the_processes_meet_ends_the_sweep_and_it_is_told(
    tmp_path, monkeypatch, how, code, status, line
):
    monkeypatch.chdir(tmp_path)

    def whole():
        processes._LOOK, processes._STOP, processes._GRACE = 0.1, 0.1, 0.2
        processes._command = lambda local_rank: ([sys.executable, "-c", f"import os, sys; {how}"], ".")
        run(["-m", *TWO, "trainer.log_every_n_steps=10,11", "hydra.sweep.dir=all"], {}, "sweep")

    assert Forked(whole).code() == code
    (job,) = read_jobs(Path("all"))
    assert job.status == status
    assert status == "unfinished" or job.error == f"{line}; nothing was saved yet"
    assert f"error: {line}; nothing was saved yet" in Path("sweep.err").read_text().splitlines()
    assert len(Path("all/sweep.csv").read_text().splitlines()) == 2
    assert f"1 {status}" in Path("sweep.out").read_text()


def child(folder, parent, work, wait=time.sleep):
    """Start what Lightning's second process does from where it joins the others, and return its exit code."""

    def joined():
        os.dup2(os.open(folder / "err", os.O_WRONLY | os.O_CREAT), 2)
        sys.stderr = sys.__stderr__
        os.environ |= {"LOCAL_RANK": "1", "DEPTHNET_PARENT": str(parent)}
        strategy = SimpleNamespace(launcher=SimpleNamespace(procs=[]))
        with (
            contextlib.suppress(InputError),
            processes.together(SimpleNamespace(strategy=strategy, default_root_dir="run")),
        ):
            work()
        wait(int(PATIENCE))

    return Forked(joined).code()


@forks
def test_a_child_whose_first_process_died_while_it_was_starting_ends_too(tmp_path):
    assert child(tmp_path, 0, lambda: time.sleep(PATIENCE)) == 1
    assert (tmp_path / "err").read_text() == "error: the first process of this run was killed; nothing was saved yet\n"


@forks
def test_a_child_that_has_failed_ends_even_where_it_cannot_leave_its_group(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_END", 0.1)

    def fail():
        raise InputError("memory is full")

    # no thread of Python's runs meanwhile, as at the interpreter's end
    assert child(tmp_path, os.getpid(), fail, ctypes.PyDLL(None).sleep) == 1


@pytest.mark.parametrize(("words", "stop", "code"), [([], 0, 2), (["-m"], 0, 1), ([], 2, 130)])
def test_a_first_process_that_gives_up_ends_with_the_code_of_its_kind(monkeypatch, words, stop, code):
    said = []
    monkeypatch.setattr(processes, "_exit", lambda *words: said.append(words))
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    processes._give_up(Path(), "a child died", stop)
    assert said == [("", code)]


def wait_for_end(process):
    """Wait until a process that is nobody's child has ended."""
    until = time.monotonic() + PATIENCE
    with contextlib.suppress(OSError):
        while Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < until, "it hangs"
            time.sleep(0.1)


class Store(dict):
    """What processes.py asks of torch's."""

    def check(self, keys):
        return all(key in self for key in keys)

    set = dict.__setitem__

    def get(self, key):
        return super().get(key).encode()


def waits(word, seen=0.0):
    """What the second process makes of the first one's word."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "_SEEN", seen)
        return processes._await_word(Store({processes._word: word}), 1)


def test_the_second_process_follows_the_first_to_a_directory_that_both_see(tmp_path):
    word = json.dumps([str(tmp_path), "host_a"])
    with pytest.raises(InputError, match=r"process 0 on host_a runs there, and process 1 on .* hydra\.run\.dir=DIR$"):
        waits(word)
    (tmp_path / "config.yaml").touch()
    assert waits(word) == str(tmp_path)
    with pytest.raises(SystemExit) as stop:
        waits("")  # the first had nothing to do
    assert stop.value.code == 0


def test_processes_that_do_not_meet_are_a_line(monkeypatch, tmp_path):
    class Gone(Store):
        def check(self, keys):
            raise torch.distributed.DistNetworkError("Connection was likely closed")

    with pytest.raises(InputError, match="the first process has ended before the run began"):
        processes._await_word(Gone(), 1)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(InputError, match="MASTER_ADDR is not set; start by torchrun or srun"):
        enter(processes.gathered("train.py"))
    monkeypatch.setattr("sys.argv", ["train.py", "-m", "seed=0,1"])
    with pytest.raises(InputError, match="a sweep starts its own processes, and here are 2: start it by python train"):
        enter(processes.gathered("train.py"))


def enter(context):
    with context:
        pass


@pytest.mark.parametrize(
    ("started", "devices", "nodes", "launcher", "words"),
    [
        (None, 2, 1, True, None),
        ((0, 4), 2, 2, True, None),
        ((0, 2), 1, 2, True, r"trainer\.devices=1, trainer\.num_nodes=2: one host, says SLURM"),
        (None, 2, 2, True, r"trainer\.num_nodes=2: start it on every host"),
        ((1, 2), 1, 1, True, "2 processes were started, and the trainer has 1 on 1 hosts"),
        ((0, 2), 2, 1, False, "2 processes were started, .* give trainer=ddp"),
    ],
)
def test_a_trainer_of_other_processes_than_were_started_is_refused(
    monkeypatch, started, devices, nodes, launcher, words
):
    for name, value in zip(("RANK", "WORLD_SIZE"), started or (), strict=False):
        monkeypatch.setenv(name, str(value))

    def validate_settings(num_devices, num_nodes):
        if (num_devices, num_nodes) == (1, 2):
            raise ValueError("one host, says SLURM")

    environment = SimpleNamespace(validate_settings=validate_settings)
    strategy = SimpleNamespace(launcher=object() if launcher else None, cluster_environment=environment)
    trainer = SimpleNamespace(num_devices=devices, num_nodes=nodes, strategy=strategy)
    with pytest.raises(InputError, match=words) if words else contextlib.nullcontext():
        processes.check_processes(trainer)


@pytest.mark.parametrize(
    "told",
    [
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a batch script without srun
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},  # one that srun's shell has submitted
        {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},  # srun's one task, with several GPUs
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_JOB_NAME": "bash"},  # a shell
    ],
)
@pytest.mark.filterwarnings("ignore:The `srun` command")
def test_where_srun_has_not_started_several_processes_lightning_starts_them(monkeypatch, told):
    for name in ("SLURM_STEP_NUM_TASKS", "SLURM_JOB_NAME", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "depth", **told}.items():
        monkeypatch.setenv(name, value)
    enter(processes.gathered("train.py"))
    assert processes._started() is None
    assert first_process()
    assert not SLURMEnvironment.detect()


def test_a_first_process_has_a_directory_of_its_own(monkeypatch):
    monkeypatch.setenv("DEPTHNET_RUN", "elsewhere")
    enter(processes.gathered("train.py"))
    assert "DEPTHNET_RUN" not in os.environ


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
    command = [str(ROOT / "train.py"), *TWO, "trainer.devices=1", "trainer.num_nodes=2"]

    def host(number):
        with Path("/var/run/netns", hosts[number]).open() as place:
            assert ctypes.CDLL(None).setns(place.fileno(), 0) == 0
        os.environ["GLOO_SOCKET_IFNAME"] = hosts[number]
        for stream in (1, 2):
            os.dup2(os.open(f"host_{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        torchrun([*words, f"--node-rank={number}", *command])

    members = [Forked(functools.partial(host, number)) for number in range(2)]
    assert [member.code() for member in members] == [0, 0], Path("host_0").read_text()
    (found,) = Path("runs/rooms_tiny").iterdir()
    assert difference(weights(found), weights(two)) == 0
    assert (found / "per_image.csv").read_text() == (two / "per_image.csv").read_text()
