"""Sweeps: what a directory tells of its jobs, and each of conf/sweep with the launchers that people have."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

import train as script
from depthnet.core import atomic_io as durable
from depthnet.core.atomic_io import locked
from depthnet.core.types import InputError
from depthnet.evaluation.runs import read_runs
from depthnet.run.command_line import SweepStart, check_command
from depthnet.run.config import worst_figure
from depthnet.run.naming import job_name
from depthnet.training.module import DepthModule
from depthnet.training.sweep import note_end, note_start

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "data=rooms",
    "data.frames={train:4,val:2,test:1}",
    "data.image_size=[32,48]",
    "data.batch_size=2",
    "data.num_workers=0",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "logger=none",
]


def test_a_directory_is_of_one_job(tmp_path):
    cfg = OmegaConf.create({"watch": "val/delta1", "resume": None, "mode": "fit"})
    note_start(cfg, tmp_path, ["optimizer.lr=1", "seed=1"])
    note_start(cfg, tmp_path, ["seed=1", "optimizer.lr=1", "report=true"])
    with pytest.raises(InputError, match="another job's"):
        note_start(cfg, tmp_path, ["scheduler.lr=1", "seed=1"])  # has the same name


@pytest.mark.parametrize(
    ("outcome", "watch", "told"),
    [
        (0.7, "val/delta1", 0.7),
        (float("nan"), "val/delta1", 0.0),
        ("out of memory", "val/delta1", 0.0),
        (float("inf"), "val/rmse", sys.float_info.max),
        ("out of memory", "val/rmse", sys.float_info.max),
        ("watch=val/nothing", "val/nothing", 0.0),
    ],
)
def test_a_sweeper_is_told_a_finite_figure_and_the_failure_is_noted(tmp_path, outcome, watch, told):
    note_start(OmegaConf.create({"watch": watch, "resume": None, "mode": "fit"}), tmp_path, ["seed=1"])
    assert note_end(tmp_path, outcome) == told
    error = json.loads((tmp_path / "job.json").read_text())["error"]
    assert error == {0.7: None, "out of memory": "out of memory"}.get(outcome, error)
    assert bool(error) == (outcome != 0.7)


def sweep(*words):
    """Run a sweep whose launcher starts processes, as a command line would."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SECRET": "hidden"}
    command = [sys.executable, str(ROOT / "train.py"), "-m", *SMALL, *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800, check=False)


@pytest.mark.filterwarnings("ignore:.*declarative_base")
def test_lr_searches_for_the_lowest_error_with_joblib_and_finds_its_jobs_again(train, tmp_path, monkeypatch):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    directory = tmp_path / "sweep"
    words = ["sweep=lr", "model=tiny", "watch=val/rmse", f"hydra.sweep.dir={directory}"]
    words += ["hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", "optimizer.weight_decay=0.01", "data.num_workers=1"]
    done = sweep(*words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert done.returncode == 0, done.stderr
    assert "alembic" not in done.stdout + done.stderr
    assert "no-name" not in done.stderr
    jobs = read_runs(directory)
    assert [job.status for job in jobs] == ["finished"] * 4
    rates = {float(job.overrides["optimizer.lr"]) for job in jobs}
    assert len(rates) == 4
    assert all(3e-5 <= rate <= 1e-2 for rate in rates)
    assert {job.overrides["optimizer.weight_decay"] for job in jobs} == {"0.01"}
    best = yaml.safe_load((directory / "optimization_results.yaml").read_text())["best_value"]
    assert best == min(job.figures["rmse"] for job in jobs)
    assert "by val/rmse" in done.stdout

    def never(*_):
        raise AssertionError("it trains again")

    monkeypatch.setattr(DepthModule, "on_train_batch_start", never)
    again = train("-m", *SMALL, *reversed(words))  # the sampler draws the same, whatever launches the jobs
    assert again.code == 0, again.err
    assert again.out.count("already finished") == 4
    assert [job.path for job in read_runs(directory)] == [job.path for job in jobs]


FOUR = {
    "lr": ["model=tiny", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2"],
    "encoders": [
        "model.encoder=test_resnet,test_efficientnet",
        "model.decoder_widths=[16,16,8,8,8]",
        "model.pretrained=false",
        "seed=0,1",
    ],
    "losses": ["model=tiny", "loss=silog,l1", "seed=0,1"],
    "ablation": ["model=tiny", "model.context=false", "model.encoder_pad=default", "augment=none", "seed=0,1"],
}
"""What makes each of conf/sweep one of four tiny jobs."""


def test_every_space_is_tried():
    assert FOUR.keys() == {path.stem for path in ROOT.glob("conf/sweep/*.yaml")}


@pytest.mark.parametrize(
    ("name", "launcher"),  # lr with joblib is the test above
    [
        ("ablation", "joblib"),
        ("losses", "submitit_local"),
        *(
            pytest.param(name, launcher, marks=pytest.mark.exhaustive)
            for name, launcher in (
                ("lr", "submitit_local"),
                ("encoders", "joblib"),
                ("encoders", "submitit_local"),
                ("losses", "joblib"),
                ("ablation", "submitit_local"),
            )
        ),
    ],
)
def test_each_space_with_each_launcher(tmp_path, name, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper" if name == "lr" else "hydra")
    words = [f"sweep={name}", *FOUR[name], f"hydra.sweep.dir={tmp_path / 'sweep'}", f"hydra/launcher={launcher}"]
    done = sweep(*words, *(["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []))
    assert done.returncode == 0, done.stderr
    jobs = read_runs(tmp_path / "sweep")
    assert [job.status for job in jobs] == ["finished"] * 4
    assert "4 finished" in done.stdout
    assert len(list(csv.DictReader((tmp_path / "sweep/sweep.csv").open()))) == 4
    assert done.stdout.count("±") == (0 if name == "lr" else 2)
    chosen = {"lr": "optimizer.lr", "encoders": "model.encoder", "losses": "loss", "ablation": "model.attention"}[name]
    assert len({job.overrides[chosen] for job in jobs}) == (4 if name == "lr" else 2)
    if name == "encoders":
        assert json.loads((jobs[0].path / "run.json").read_text())["overrides"][0] == "model=unet_attn"


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_the_guard_goes_along_to_a_launchers_processes(tmp_path, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    words = ["model=tiny", "seed=${oc.env:SECRET}", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    done = sweep(*words, f"hydra/launcher={launcher}")
    assert done.returncode == 1
    (job,) = read_runs(tmp_path / "sweep")
    assert "may not read the environment variable SECRET" in job.error
    assert "hidden" not in done.stdout + done.stderr


def test_a_sweep_that_was_stopped_resumes_where_it_was(train, tmp_path, monkeypatch):
    words = ["sweep=ablation", "model=tiny", "model.context=false", "model.encoder_pad=default", "augment=none"]
    words = ["-m", *words, *SMALL, "trainer.max_epochs=2", "seed=0,1", "hydra.sweep.dir=sweep"]
    start, steps = DepthModule.on_train_batch_start, []

    def stop(self, batch, batch_idx):
        steps.append(batch_idx)
        if len(steps) == 7:  # in the second job's second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        start(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(DepthModule, "on_train_batch_start", stop)
        stopped = train(*words)
    assert stopped.code == 143
    assert "1 finished, 1 unfinished" in stopped.out
    assert "failed" not in stopped.out
    assert len(list(csv.DictReader((tmp_path / "sweep/sweep.csv").open()))) == 2
    (job,) = (job for job in read_runs(tmp_path / "sweep") if job.status == "unfinished")
    done = train(*words)
    assert done.code == 0, done.err
    assert "4 finished" in done.out
    assert len(json.loads((job.path / "run.json").read_text())["resumed"]) == 1
    assert len(list(csv.DictReader((job.path / "history.csv").open()))) == 2


def test_a_job_waits_for_the_same_one_in_another_process(train, tmp_path, monkeypatch):
    directory, ready, release = tmp_path / "sweep" / job_name([*SMALL, "model=tiny", "seed=0"]), os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        with locked(directory):
            os.write(ready[1], b"x")
            os.read(release[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    said = []

    def say(*words):
        said.append(words)
        os.write(release[1], b"x")

    monkeypatch.setattr(durable.log, "warning", say)
    done = train("-m", *SMALL, "model=tiny", "seed=0,0", "hydra.sweep.dir=sweep")  # a sampler may draw one job twice
    assert os.waitpid(child, 0)[1] == 0
    assert done.code == 0, done.err
    assert "waiting" in said[0][0]
    assert "already finished" in done.out  # the second of the two
    assert [job.path for job in read_runs(tmp_path / "sweep")] == [directory]


def test_a_sweep_of_which_every_job_fails_says_so(train, tmp_path):
    done = train(*SMALL, "model=tiny", "ckpt=nowhere.ckpt", "seed=0,1", "hydra.sweep.dir=sweep", "-m")
    assert done.code == 1
    assert "error: every job of the sweep has failed: nowhere.ckpt" in done.err
    assert [job.status for job in read_runs(tmp_path / "sweep")] == ["failed"] * 2


def test_a_mistake_in_every_job_stops_a_sweep_before_the_first(train, tmp_path):
    done = train("-m", *SMALL, "model=tiny", "trainer.max_epoch=1", "seed=0,1", "hydra.sweep.dir=sweep")
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1)
    assert "max_epoch" in done.err
    assert not list(tmp_path.glob("sweep/*/"))


def test_a_mistyped_choice_of_a_search_stops_it_before_the_first_job(train, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ["sweep=lr", "data.batch_size=range(1,3)", "hydra.sweep.dir=sweep"]
    Path("notes").mkdir()
    Path("notes/notes.log").write_text("mine")
    os.utime("notes/notes.log", (1, 1))
    assert train("-m", "data=rooms", "loss=l1,3", "hydra.sweep.dir=notes").code == 2
    assert Path("notes/notes.log").exists(), "what was there before a sweep is not its to remove"
    for word, told in (
        ("loss=choice(l1,silgo)", "loss=silgo: did you mean silog"),
        ("loss=glob(s*)", "loss=glob(s*): Optuna takes no glob"),
    ):
        done = train("-m", *SMALL, "model=tiny", *words, word)
        assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done.err
        assert told in done.err
        assert not list(tmp_path.glob("sweep/*/"))


@pytest.mark.parametrize(
    ("words", "direction"),
    [([], "maximize"), (["watch=val/rmse"], "minimize")],
)
def test_a_search_goes_where_its_figure_is_better(words, direction):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    with initialize_config_dir(str(script.CONF), version_base="1.3"):
        config = compose("train", ["hydra.mode=MULTIRUN", "sweep=lr", *words], return_hydra_config=True)
    SweepStart().on_multirun_start(config)
    assert config.hydra.sweeper.direction == direction


def test_the_commands_of_the_documentation_compose():
    text = (ROOT / "docs/cluster.md").read_text().partition("## Sweeps")[2].partition("\n## ")[0]
    commands = re.findall(r"^    python train\.py -m (.*?)(?: {3,}.*)?$", text, re.MULTILINE)
    assert len(commands) >= 12
    with initialize_config_dir(str(script.CONF), version_base="1.3"):
        for words in map(shlex.split, commands):
            check_command(["-m", *words], script.CONF)
            GlobalHydra.instance().config_loader().load_configuration("train", words, RunMode.MULTIRUN)


def test_the_worst_is_worse_than_anything():
    assert worst_figure("val/delta1") <= 0
    assert worst_figure("val/rmse") > 1e9
