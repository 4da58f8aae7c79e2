"""The whole: train.py from the command line to the files, as a user runs it."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mat_file import random_frames, write_mat
from omegaconf import OmegaConf
from PIL import Image

import depthnet
from depthnet.data.layouts.official import TEST_FRAMES
from depthnet.evaluation.runs import read_runs
from depthnet.training.module import DepthModule

ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    "model=tiny",
    "trainer=cpu",
    "logger=none",
    "data.image_size=[48,64]",
    "data.batch_size=2",
    "data.num_workers=0",
]
EVALUATED = ["trainer=cpu", "logger=none", "data.num_workers=0"]  # the words of SMALL that mode=test uses
ROOMS = ["data=rooms", "data.frames={train: 6, val: 3, test: 2}", *SMALL]


def test_a_mini_run_on_a_true_form_kaggle_tree_writes_everything(train, make_kaggle, tmp_path):
    root = make_kaggle(scenes=4, frames=3, test=2)
    done = train("data=nyu", f"data.root={root}", "trainer.max_epochs=2", *SMALL)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("device: CPU (")
    assert lines[0].endswith("), float32")
    assert lines[1] == "encoder: test_resnet, from scratch: model.pretrained=false"
    assert lines[2].startswith(f"data: NYU, kaggle layout, {root} (")
    assert any(line.startswith("run:  ") for line in lines[3:8])
    assert "fit:  2 epochs of 4 steps, 2 images each" in lines
    assert "mean map" in done.out
    assert "uncropped" in done.out
    run = (tmp_path / "runs/nyu_tiny/latest").resolve()
    found = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "metrics.json",
        "history.csv",
        "per_image.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "train.log",
    } <= found
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"split", "images", "expected", "seed", "commit", "versions", "data", "protocols"} <= set(metrics)
    assert metrics["split"] == "val"
    assert metrics["images"] == metrics["expected"] == 3
    assert set(metrics["protocols"]) == {"uncropped"}
    rows = list(csv.DictReader((run / "per_image.csv").open()))
    mean = np.mean([float(row["delta1"]) for row in rows])
    assert mean == pytest.approx(metrics["protocols"]["uncropped"]["delta1"], abs=1e-12)
    history = list(csv.DictReader((run / "history.csv").open()))
    assert [row["epoch"] for row in history] == ["0", "1"]
    assert max(float(row["val/delta1"]) for row in history) == pytest.approx(mean, abs=1e-6)
    assert len(list((run / "panels").glob("*.png"))) == 3
    config = OmegaConf.load(run / "config.yaml")
    assert config.model.pretrained is False
    assert config.data.root == str(root)


@pytest.mark.parametrize("ground_truth", ["filled", "raw"])
def test_one_mat_file_is_trained_validated_and_tested_on(train, tmp_path, ground_truth):
    frames = random_frames(24, per_scene=4)
    for number in TEST_FRAMES & set(range(24)):
        frames[number] = frames[number]._replace(scene=f"store_{number:04d}")
    mat = tmp_path / "nyu_depth_v2_labeled.mat"
    write_mat(mat, frames)
    data = ["data=nyu", f"data.root={mat}", f"data.ground_truth={ground_truth}"]
    done = train(*data, *SMALL, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert done.code == 0, done.err
    assert f"NYU, labelled layout, {mat}" in done.out
    record = json.loads((tmp_path / "run/metrics.json").read_text())
    assert (record["data"]["ground_truth"], record["split"]) == (ground_truth, "val")
    assert sum(record["data"]["frames"].values()) == 24
    data += EVALUATED
    test = ["mode=test", "split=test", "ckpt=run/checkpoints/best.ckpt", "hydra.run.dir=evaluated"]
    refused = train(*data, *test)
    assert refused.code == 2
    assert "official frames" in refused.err  # the fixture has a few of the 654
    done = train(*data, *test, "data.allow=[test_list]", "hydra.run.dir=again")
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "again/metrics.json").read_text())
    official = len(TEST_FRAMES & set(range(24)))
    assert (record["split"], record["images"], record["data"]["allowed"]) == ("test", official, ["test_list"])
    assert record["test_evaluations"] == 1
    assert "evaluation number 1" in done.err
    done = train(*data, *test, "data.allow=[test_list]", "hydra.run.dir=twice")
    assert json.loads((tmp_path / "twice/metrics.json").read_text())["test_evaluations"] == 2
    done = train(
        *data, "mode=test", "split=keras_frames", "ckpt=run/checkpoints/best.ckpt", "hydra.run.dir=keras_frames"
    )
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "keras_frames/metrics.json").read_text())["images"] == 24  # frames 0 to 653, of 24
    counted = json.loads((tmp_path / "run/checkpoints/best.ckpt.tests.json").read_text())
    assert [Path(entry["directory"]).name for entry in counted] == ["again", "twice", "keras_frames"]


def test_a_report_is_written_when_it_is_asked_for(train, tmp_path):
    done = train(*ROOMS, "trainer.max_epochs=1", "report=true", "hydra.run.dir=run")
    assert done.code == 0, done.err
    assert "run/report.html" in done.out.splitlines()[-1]
    text = (tmp_path / "run/report.html").read_text()
    assert "built-in rooms" in text
    assert "<script src" not in text


def test_unsound_data_stops_a_run_with_one_line(train, make_lists):
    root = make_lists(train=6, val=3)
    path = root / "train/sync_depth_00003.png"
    path.write_bytes(path.read_bytes()[:300])
    done = train("data=nyu", f"data.root={root}", "trainer.max_epochs=1", *SMALL)
    assert done.code == 2
    (line,) = done.err.strip().splitlines()
    assert "files_with_gt.txt:4: " in line
    assert "sync_depth_00003.png" in line
    assert "check ROOT lists all that is wrong" in line


def test_a_short_run_on_rooms_lowers_the_loss(train, tmp_path):
    frames = "data.frames={train: 48, val: 4, test: 1}"
    done = train(*ROOMS, frames, "trainer.max_epochs=4", "optimizer.lr=2e-3", "hydra.run.dir=run", "augment=none")
    assert done.code == 0, done.err
    history = list(csv.DictReader((tmp_path / "run/history.csv").open()))
    losses = [float(row["train/loss"]) for row in history]
    assert losses[-1] < 0.9 * losses[0]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_resume_at_an_epochs_end_equals_the_run_that_was_not_stopped(train, make_lists, tmp_path, monkeypatch, workers):
    source = ["data=nyu", f"data.root={make_lists()}"]
    recipe = [*source, *SMALL, "trainer.max_epochs=3", "augment=standard", f"data.num_workers={workers}"]
    assert train(*recipe, "hydra.run.dir=whole").code == 0

    start = DepthModule.on_train_batch_start

    def stop(self, batch, batch_idx):
        if (self.current_epoch, batch_idx) == (2, 1):
            raise RuntimeError("the power fails")
        start(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(DepthModule, "on_train_batch_start", stop)
        assert train(*recipe, "hydra.run.dir=stopped").code == 1
    assert "the power fails" in (tmp_path / "stopped/train.log").read_text()
    (tmp_path / "stopped").rename(tmp_path / "moved")
    resumed = train("resume=moved")
    assert resumed.code == 0, resumed.err

    one, other = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True) for name in ("whole", "moved")
    )
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert equal(one[part], other[part]), part
    assert one["global_step"] == other["global_step"]
    for name in ("history.csv", "per_image.csv"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "moved" / name).read_text()
    figures = [json.loads((tmp_path / name / "metrics.json").read_text())["protocols"] for name in ("whole", "moved")]
    assert figures[0] == figures[1]
    started, ended = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "moved"))
    assert started["overrides"] == ended["overrides"] == recipe
    assert all(0 < sum(run["seconds"].values()) < 60 for run in (started, ended))


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def test_a_checkpoint_is_evaluated_fine_tuned_and_never_overwritten(train, tmp_path):
    assert train(*ROOMS, "trainer.max_epochs=1", "hydra.run.dir=first", "protocols=all").code == 0
    first = json.loads((tmp_path / "first/metrics.json").read_text())
    assert {"uncropped", "median_scaled"} <= set(first["protocols"])

    rooms = [*ROOMS[:2], *EVALUATED]
    again = train(*rooms, "mode=test", "ckpt=first/checkpoints/best.ckpt", "hydra.run.dir=evaluated")
    assert again.code == 0, again.err
    evaluated = json.loads((tmp_path / "evaluated/metrics.json").read_text())
    assert evaluated["protocols"]["uncropped"]["rmse"] == pytest.approx(
        first["protocols"]["uncropped"]["rmse"], rel=1e-6
    )
    assert not (tmp_path / "evaluated/checkpoints").exists()

    test = train(*rooms, "mode=test", "ckpt=first/checkpoints/best.ckpt", "split=test", "hydra.run.dir=tested")
    assert json.loads((tmp_path / "tested/metrics.json").read_text())["images"] == 2, test.err

    tuned = train(
        *ROOMS,
        "ckpt=first/checkpoints/best.ckpt",
        "trainer.max_epochs=1",
        "hydra.run.dir=tuned",
        "data.depth_range.max=8",
    )
    assert tuned.code == 0, tuned.err
    assert "started from first/checkpoints/best.ckpt; all weights loaded" in tuned.err

    wider = train(
        *ROOMS,
        "ckpt=first/checkpoints/best.ckpt",
        "model.decoder_widths=[32,24,16,16,8]",
        "debug=fast",
        "hydra.run.dir=wide",
    )
    assert wider.code == 0, wider.err
    assert "in the checkpoint" in wider.err

    other = train(*ROOMS, "model=basic", "ckpt=first/checkpoints/best.ckpt", "hydra.run.dir=other")
    assert (other.code, "tensors fit this network" in other.err) == (2, True)

    before = (tmp_path / "first/metrics.json").read_bytes()
    over = train(*ROOMS, "hydra.run.dir=first")
    assert (over.code, "holds a run already" in over.err) == (2, True)
    changed = train("resume=first", "seed=4")
    assert (changed.code, "leave out seed=4" in changed.err) == (2, True)
    assert (tmp_path / "first/metrics.json").read_bytes() == before


@pytest.mark.parametrize("word", ["+trainer.fast_dev_run=true", "trainer.limit_val_batches=0"])
def test_a_run_without_a_best_checkpoint_logs_it(train, word):
    done = train(*ROOMS, "data.frames={train: 2, val: 1, test: 1}", "trainer.max_epochs=1", word)
    assert done.code == 0, done.err
    assert "no best checkpoint was kept, so the last weights are evaluated" in done.err


def test_resume_auto_starts_and_then_resumes(train, tmp_path):
    command = [*ROOMS, "trainer.max_epochs=1", "hydra.run.dir=run", "resume=auto"]
    first = train(*command)
    assert first.code == 0, first.err
    saved = (tmp_path / "run/checkpoints/last.ckpt").read_bytes()
    assert train(*command).code == 0
    assert (tmp_path / "run/checkpoints/last.ckpt").read_bytes() == saved


MISTAKES = {
    "a mistyped key": (["trainer.max_epoch=3"], "max_epoch"),
    "a mistyped group": (["modle=tiny"], "modle"),
    "an unknown option": (["model=resnet"], "resnet"),
    "an unknown recipe": (["experiment=nope"], "nope"),
    "broken syntax": (["data.image_size=[48,"], "[48,"),
    "an impossible seed": (["seed=-1"], "seed=-1"),
    "an impossible split": (["split=train"], "split=train"),
    "an impossible mode": (["mode=fti"], "mode=fti"),
    "an unknown metric": (["watch=val/loss"], "watch=val/loss"),
    "an unknown protocol": (["protocols=nyu_eigne"], "nyu_eigen"),
    "a protocol for another size": (["protocols=nyu_eigen_filled"], "nyu_eigen_filled"),
    "an impossible batch": (["data.batch_size=0"], "data.batch_size=0"),
    "an impossible size": (["data.image_size=[48]"], "data.image_size"),
    "an impossible range": (["data.depth_range.min=20"], "depth_range"),
    "an unknown encoder": (["model=unet_attn", "model.encoder=resnet5"], "resnet50"),
    "an encoder that is missing": (["model=unet_attn"], "model.encoder"),
    "too small an image": (["model=irv2_attn", "model.pretrained=false"], "data.image_size"),
    "an unknown loss term": (["+loss.terms.ssmi=1"], "ssmi"),
    "an impossible rate": (["optimizer.lr=-1"], "optimizer.lr=-1"),
    "an unknown optimizer": (["optimizer.algorithm=Adamm"], "Adamm"),
    "an impossible number of epochs": (["trainer.max_epochs=-3"], "max_epochs"),
    "an unknown precision": (["trainer.precision=7"], "precision"),
    "a precision that nothing learns in": (["trainer.precision=bf16-true"], "trainer.precision=bf16-true"),
    "a batch of one that is one pixel": (["data.batch_size=1", "data.image_size=[32,32]"], "data.batch_size"),
    "early stopping by no validation": (
        ["callbacks=early_stopping", "trainer.limit_val_batches=0"],
        "limit_val_batches",
    ),
    "an average of constants": (
        ["+callbacks.a._target_=lightning.pytorch.callbacks.EMAWeightAveraging"],
        "callbacks=ema",
    ),
    "pretrained weights nobody has": (["model=irv2_attn", "model.pretrained=true"], "model.pretrained=true"),
    "a weights file that is missing": (["model.pretrained=none.safetensors"], "none.safetensors"),
    "a checkpoint that is missing": (["ckpt=none.ckpt"], "none.ckpt"),
    "a test without a checkpoint": (["mode=test"], "ckpt=PATH"),
    "a run that is missing": (["resume=nowhere"], "no run there"),
    "a root that is missing": (["data=nyu", "~data.frames", "data.root=nowhere"], "data.root=nowhere"),
    "a target outside the list": (["loss._target_=os.system"], "os.system"),
    "a nested target outside the list": (["+data.augment.x={_target_: torch.load}"], "torch.load"),
    "a group that is null": (["scheduler=null"], "scheduler is one of constant"),
    "a callback without a class": (["+callbacks.x.patience=3"], "callbacks.x={patience:3}: has no _target_"),
    "another split than val": (["split=test"], "mode=test ckpt=PATH"),
    "a word that is no boolean": (["model.attention=flase"], "model.attention=flase: it is true or false"),
    "a number for an image's size": (["data.image_size=240"], "data.image_size=240: it is [height,width]"),
    "a key of other data": (["data.root=x"], "data.root=x: there is no such key"),
    "a key that nothing reads": (["+foo=1"], "foo=1: there is no such key"),
    "an argument of nothing": (["+data.foo=1"], "data.foo=1: depthnet.data.datamodule.DepthDataModule.rooms takes no"),
    "a network where a loss belongs": (["loss._target_=depthnet.models.basic.BasicNet"], "it is no loss"),
    "a setting of the run's own": (["+trainer.logger=true"], "trainer.logger=true: the run sets it itself"),
    "an impossible schedule": (["scheduler=linear", "scheduler.end=3"], "scheduler.end=3: it is a share"),
    "a mistake where W&B would log": (["logger=wandb", "optimizer.weight_decay=-1"], "optimizer.weight_decay=-1"),
    "a directory that cannot be written": (["hydra.run.dir=/proc/run"], "/proc/run"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(train, tmp_path, name):
    overrides, words = MISTAKES[name]
    base = [word for word in ROOMS if not (word == "model=tiny" and any(w.startswith("model=") for w in overrides))]
    if "data=nyu" in overrides:
        base, overrides = SMALL, [word for word in overrides if not word.startswith("~")]
    done = train(*base, *overrides)
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert done.code == 2, done
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert "Traceback" not in done.out + done.err
    assert not (tmp_path / "runs").exists(), "it leaves no run directory behind"


def test_a_mistake_leaves_what_was_there(train, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/notes.txt").touch()
    assert train(*ROOMS, "seed=x", "hydra.run.dir=kept").code == 2
    assert (tmp_path / "kept/notes.txt").exists()
    done = train("-m", *ROOMS, "loss=l1,3", "hydra.sweep.dir=sweep")
    assert (done.code, "loss=3: there are berhu, l1" in done.err, (tmp_path / "sweep").exists()) == (2, True, False)


def test_the_version_is_ours(train):
    assert train("--version") == (0, f"depthnet {depthnet.__version__}\n", "")


def test_a_named_root_never_becomes_rooms(train, monkeypatch):
    monkeypatch.setenv("NYU_ROOT", "/nowhere/nyu")
    done = train(*SMALL)
    assert done.code == 2
    assert "/nowhere/nyu" in done.err


def test_a_torn_image_is_told_by_row_from_a_worker_too(train, make_lists):
    root = make_lists()
    path = root / "train/rgb_00002.jpg"
    path.write_bytes(path.read_bytes()[:300])
    for workers in (0, 1):
        done = train("data=nyu", f"data.root={root}", *SMALL, f"data.num_workers={workers}", "trainer.max_epochs=1")
        lines = done.err.strip().splitlines()
        assert (done.code, len(lines)) == (2, 1), done.err
        assert "nyudepthv2_train_files_with_gt.txt:3" in lines[0]
        assert "rgb_00002.jpg" in lines[0]


def test_filled_truth_under_a_raw_protocol_is_refused(train, make_lists):
    root = make_lists(size=(480, 640), train=2, val=1)
    done = train("data=nyu", f"data.root={root}", *SMALL, "protocols=nyu_eigen")
    assert (done.code, "nyu_eigen_filled" in done.err) == (2, True), done.err
    Image.open(root / "train/rgb_00000.jpg").close()


def test_in_a_sweep_a_mistake_fails_its_own_job_only(train, tmp_path):
    done = train("-m", *ROOMS, "trainer.max_epochs=1", "optimizer.lr=-1,1e-3", "hydra.sweep.dir=sweep")
    assert done.code == 1
    failed, sound = sorted(read_runs(tmp_path / "sweep"), key=lambda job: job.overrides["optimizer.lr"])
    assert "optimizer.lr=-1" in (failed.path / "train.log").read_text()
    assert not (failed.path / "metrics.json").exists()
    assert (sound.path / "metrics.json").exists()


def test_in_a_sweep_a_crash_leaves_its_traceback_and_the_others_go_on(train, tmp_path, monkeypatch):
    start = DepthModule.on_train_batch_start

    def crash(self, batch, batch_idx):
        if self._seed == 0:
            raise ZeroDivisionError("a fault of the program")
        start(self, batch, batch_idx)

    monkeypatch.setattr(DepthModule, "on_train_batch_start", crash)
    done = train("-m", *ROOMS, "trainer.max_epochs=1", "seed=0,1", "hydra.sweep.dir=sweep")
    assert done.code == 1
    failed, sound = sorted(read_runs(tmp_path / "sweep"), key=lambda job: job.overrides["seed"])
    log = (failed.path / "train.log").read_text()
    assert "Traceback" in log
    assert "ZeroDivisionError: a fault of the program" in log
    assert (sound.path / "metrics.json").exists()


def test_help_is_quick_and_true():
    program = [sys.executable, str(ROOT / "train.py"), "--help"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=environment)
    assert "experiment" in done.stdout
    assert "model: basic, irv2_attn" in done.stdout
    ended = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    ended.stdout.close()  # as head does
    assert (ended.wait(60), ended.stderr.read()) == (0, b"")
