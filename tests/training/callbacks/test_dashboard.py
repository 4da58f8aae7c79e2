"""What a dashboard would show: measured rightly, and read back from the files that W&B wrote."""

import json
import math
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from wandb_files import records, summary

from depthnet.core.types import Sample
from depthnet.training import loggers
from depthnet.training.callbacks import dashboard
from depthnet.training.callbacks.dashboard import Dashboard
from depthnet.training.module import DepthModule
from depthnet.training.optimizers import build_optimizer

ROOMS = [
    "data=rooms",
    "data.frames={train: 4, val: 3, test: 2}",
    "data.image_size=[32,48]",
    "data.batch_size=2",
    "data.num_workers=0",
    "model=tiny",
    "loss=l1",
    "augment=none",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "optimizer.encoder_lr_scale=0.1",
]


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = nn.Linear(3, 2), nn.Linear(2, 1)


class Module:
    def __init__(self):
        self.network, self.rows = Network(), []

    def log_dict(self, row, **options):
        assert options["on_step"]
        assert options["rank_zero_only"]
        self.rows.append({name: float(value) for name, value in row.items()})


class Board(loggers.WandbRun):
    """A logger that keeps what is logged."""

    def __init__(self):
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((metrics, step))


def trainer_of(module, *boards, **more):
    usual = {
        "loggers": list(boards),
        "optimizers": [build_optimizer(module.network, "SGD", lr=0.5, encoder_lr_scale=0.1)],
        "global_step": 0,
        "is_last_batch": False,
        "accumulate_grad_batches": 1,
        "log_every_n_steps": 2,
        "world_size": 2,
        "is_global_zero": True,
        "sanity_checking": False,
        "testing": False,
    }
    return SimpleNamespace(**usual | more)


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    hand = SimpleNamespace(now=100.0)
    monkeypatch.setattr(dashboard.time, "perf_counter", lambda: hand.now)
    return hand


def steps(board, trainer, module, clock, seconds):
    """Take optimiser steps of four images; each is (waiting for data, at work) in seconds."""
    batch = Sample(torch.zeros(4, 3, 2, 2), *[None] * 3)
    for number, (waiting, working) in enumerate(seconds):
        clock.now += waiting
        board.on_train_batch_start(trainer, module, batch, number)
        for parameter in module.network.parameters():
            parameter.grad = torch.full_like(parameter, float(number + 1))
        board.on_before_optimizer_step(trainer, module, trainer.optimizers[0])
        for group in trainer.optimizers[0].param_groups:
            group["lr"] /= 2  # the schedule moves on before the row is logged
        trainer.global_step += 1
        clock.now += working
        board.on_train_batch_end(trainer, module, None, batch, number)


def test_a_row_holds_the_step_as_it_was_taken_and_the_time_since_the_last_row(clock):
    module = Module()
    trainer, board = trainer_of(module, Board()), Dashboard((1e-3, 10.0))
    board.on_train_start(trainer, module)
    steps(board, trainer, module, clock, [(1.0, 3.0), (0.5, 3.5)])
    clock.now += 50.0  # a validation
    board.on_validation_end(trainer, module)
    steps(board, trainer, module, clock, [(0.0, 1.0), (1.0, 2.0)])
    clock.now += 60.0  # other things between two epochs
    board.on_train_epoch_start(trainer, module)
    steps(board, trainer, module, clock, [(1.0, 1.0)])
    parameters = sum(parameter.numel() for parameter in module.network.parameters())
    first, second = module.rows
    assert first["step/gradient_norm"] == pytest.approx(2 * math.sqrt(parameters))
    assert (first["lr/decoder"], first["lr/encoder"]) == (0.25, pytest.approx(0.025))
    assert first["speed/images_per_second"] == pytest.approx(2 * 4 * 2 / 8.0)  # on two processes
    assert first["speed/waiting"] == pytest.approx(1.5 / 8.0)
    assert second["speed/images_per_second"] == pytest.approx(2 * 4 * 2 / 4.0)
    assert second["speed/waiting"] == pytest.approx(1.0 / 4.0)


def test_a_step_that_is_not_taken_has_no_norm(clock):
    module = Module()
    trainer, board = trainer_of(module, Board(), log_every_n_steps=1), Dashboard((1e-3, 10.0))
    board.on_train_start(trainer, module)
    board.on_before_optimizer_step(trainer, module, trainer.optimizers[0])  # no gradient is left
    trainer.global_step = 1
    clock.now += 1.0
    board.on_train_batch_end(trainer, module, None, Sample(torch.zeros(4, 3, 2, 2), *[None] * 3), 0)
    assert math.isnan(module.rows[0]["step/gradient_norm"])


def test_without_a_logger_nothing_is_measured(clock, monkeypatch):
    module = Module()
    trainer, board = trainer_of(module), Dashboard((1e-3, 10.0))
    for name in ("get_total_norm", "clip_grad_norm_"):
        monkeypatch.setattr(torch.nn.utils, name, None)
    monkeypatch.setattr(dashboard, "interpolate", None)
    board.on_train_start(trainer, module)
    steps(board, trainer, module, clock, [(1.0, 1.0)] * 4)
    batch = Sample(torch.zeros(1, 3, 2, 2), torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2, dtype=torch.bool), 0)
    board.on_validation_batch_end(trainer, module, torch.ones(1, 1, 2, 2), batch, 0)
    board.on_validation_epoch_end(trainer, module)
    assert module.rows == []


def test_histograms_count_the_valid_pixels():
    pytest.importorskip("wandb")
    generator = np.random.default_rng(0)
    pred, depth = (generator.uniform(0.2, 9.8, (3, 1, 6, 8)).astype(np.float32) for _ in range(2))
    mask = generator.random((3, 1, 6, 8)) < 0.7
    large = [
        np.kron(array, np.ones((2, 2), array.dtype)) for array in (depth, mask)
    ]  # ground truth of the file's own size
    board = Board()
    trainer, callback = trainer_of(Module(), board, global_step=20), Dashboard((1e-3, 10.0))
    for frame in range(3):
        one = slice(frame, frame + 1)
        batch = Sample(None, *(torch.from_numpy(array[one]) for array in large), frame)
        callback.on_validation_batch_end(trainer, None, torch.from_numpy(pred[one]), batch, frame)
    callback.on_validation_epoch_end(trainer, None)
    callback.on_validation_epoch_end(trainer, None)  # nothing is left of it
    ((found, step),) = board.rows
    assert step == 19
    for name, values in (("prediction", pred), ("ground_truth", depth)):
        histogram = found[f"depth/{name}"]
        assert histogram.histogram == np.histogram(values[mask], histogram.bins)[0].tolist()


def complete(job, seed, group):
    """Check that a job's W&B run tells all of the job, and return its records."""
    (found,) = records(job)
    (run,) = found["run"]
    config = {key: value for record in found["config"] for key, value in record["update"].items()}
    assert config["seed"] == seed
    assert config["model"]["encoder"] == "test_resnet"
    assert (run["run_group"], run["job_type"]) == (group, "fit")
    assert run["display_name"].startswith(f"rooms tiny l1 none seed={seed} ")
    assert {"data=rooms", "model=tiny", "loss=l1", f"seed={seed}"} <= set(run["tags"])
    rows = [row["item"] for row in found["history"]]
    steps = [row for row in rows if "step/loss" in row]
    assert [row["trainer/global_step"] for row in steps] == list(range(len(steps)))
    for row in steps:
        assert row["lr/encoder"] == pytest.approx(0.1 * row["lr/decoder"])
        for name in ("step/gradient_norm", "speed/images_per_second"):
            assert row[name] > 0
        assert 0 <= row["speed/waiting"] < 1
    kept = summary(found)
    figures = [row for row in rows if "val/delta1" in row]
    averages = [row for row in rows if "train/loss" in row]
    assert [row["epoch"] for row in figures] == [row["epoch"] for row in averages] == list(range(len(figures)))
    for metric, best in (("delta1", max), ("abs_rel", min), ("rmse", min)):
        assert kept[f"val/{metric}"] == best(row[f"val/{metric}"] for row in figures)
    evaluated = json.loads((job / "metrics.json").read_text())["protocols"]["uncropped"]
    assert kept["val/uncropped/delta1"] == pytest.approx(evaluated["delta1"], rel=1e-6)
    drawn = [row for row in rows if "depth/ground_truth.bins" in row]
    assert len(drawn) == len(figures)
    for row in drawn:
        assert sum(row["depth/ground_truth.values"]) == sum(row["depth/prediction.values"]) == 3 * 32 * 48
    for key, count in (("panels/val", len(figures)), ("panels/evaluated_val", 1)):
        shown = [row for row in rows if f"{key}.count" in row]
        assert [row[f"{key}.count"] for row in shown] == [3] * count
        for row in shown:
            assert all(list(job.glob(f"wandb/offline-run-*/files/{name}")) for name in row[f"{key}.filenames"])
    assert found["exit"][0].get("exit_code", 0) == 0
    return found


def by_seed(sweep):
    return {OmegaConf.load(path).seed: path.parent for path in sweep.glob("*/config.yaml")}


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Let W&B start afresh in this process, and keep to this test's folder."""
    pytest.importorskip("wandb")
    loggers._leave_wandb()
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    yield
    loggers._leave_wandb()


def test_the_jobs_of_a_sweep_are_complete_runs_of_their_own(train, tmp_path, offline, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):  # as on a machine where nobody has logged in
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_RUN_ID", "merged")
    asked = ["logger.log_per_image=true", "logger.log_model=true"]
    done = train("-m", *ROOMS, *asked, "seed=0,1", "hydra.sweep.dir=sweep")
    assert done.code == 0, done.err
    jobs = by_seed(tmp_path / "sweep")
    assert set(jobs) == {0, 1}
    identities = set()
    for seed, job in jobs.items():
        found = complete(job, seed, "sweep")
        identities.add(found["run"][0]["run_id"])
        artifacts = {artifact["type"]: artifact for artifact in found["artifact"]}
        assert set(artifacts) == {"model", "run_table"}
        (file,) = artifacts["model"]["manifest"]["contents"]
        assert Path(file["local_path"]) == job / "checkpoints/best.ckpt"
        (table,) = (job / "wandb").rglob("*.table.json")
        content = json.loads(table.read_text())
        mean = np.mean([row[content["columns"].index("delta1")] for row in content["data"]])
        assert mean == pytest.approx(summary(found)["val/uncropped/delta1"], rel=1e-6)
    assert len(identities) == 2
    assert "merged" not in identities


@pytest.mark.parametrize(("killed", "code", "saved"), [(True, 1, 2), (False, 143, 3)])
def test_a_run_that_was_stopped_in_an_epoch_is_whole_in_wandb(
    train, tmp_path, offline, monkeypatch, killed, code, saved
):
    start = DepthModule.on_train_batch_start

    def stop(self, batch, batch_idx):
        if self.global_step == 2 + killed and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            if killed:
                raise ZeroDivisionError("after a step that no checkpoint holds")
            os.kill(os.getpid(), signal.SIGTERM)
        start(self, batch, batch_idx)

    monkeypatch.setattr(DepthModule, "on_train_batch_start", stop)
    assert train(*ROOMS, "hydra.run.dir=run").code == code
    done = train("resume=run")
    assert done.code == 0, done.err
    assert f"resumed in epoch 2 after step {saved}" in done.err
    first, second = (
        [row["item"] for row in found["history"] if "step/loss" in row["item"]] for found in records(tmp_path / "run")
    )
    assert [row["trainer/global_step"] for row in first] == [0, 1, 2]
    assert [row["trainer/global_step"] for row in second] == ([2, 3] if killed else [3])
    again = {row["_step"]: row["step/loss"] for row in first} | {row["_step"]: row["step/loss"] for row in second}
    assert again[2] == first[2]["step/loss"]  # what was taken twice stands at the same place with the same figure


@pytest.mark.slow
def test_jobs_side_by_side_are_complete_runs_of_their_own(train, tmp_path, offline):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    side = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = train("-m", *ROOMS, *side, "trainer.max_epochs=1", "seed=0,1", "hydra.sweep.dir=sweep")
    assert done.code == 0, done.err
    jobs = by_seed(tmp_path / "sweep")
    first, second = (complete(jobs[seed], seed, "sweep") for seed in (0, 1))
    assert first["run"][0]["run_id"] != second["run"][0]["run_id"]
