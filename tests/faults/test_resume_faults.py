import json
import math
import os
import shutil
import signal
import time
from functools import partial

import pytest
import torch
from forge import Forge
from kills import RUN, differences, send, survive_kills, whole
from stops import POISON, SLOW, resumes, step_of, stopped, twice


@pytest.fixture(scope="module")
def forge(tmp_path_factory):
    return Forge(tmp_path_factory.mktemp("forge"))


@pytest.fixture(scope="module")
def reference(forge, tmp_path_factory):
    return whole(forge, tmp_path_factory.mktemp("reference"))


def test_killed_runs_end_with_the_same_bits(tmp_path):
    rows = survive_kills(tmp_path, kills=5, seed=3)
    assert rows[-1][2] == 5
    assert all(lost == 0 for *_, lost in rows), rows


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_a_signal_ends_a_run_after_its_step_and_it_resumes_from_there(forge, reference, tmp_path, number, workers):
    ended = stopped(forge, tmp_path / "run", number, b"t", 3, f"data.num_workers={workers}")
    assert ended.code == 128 + number
    assert ended.steps == step_of(tmp_path / "run") == 3  # though a checkpoint is due every second step
    assert f"resume with resume={tmp_path / 'run'}" in ended.output
    assert "Traceback" not in ended.output
    assert resumes(forge, reference, tmp_path / "run", f"data.num_workers={workers}") == []


@pytest.mark.parametrize("every", [2, 1000])
def test_a_signal_in_a_validation_ends_the_run_after_it(forge, reference, tmp_path, every):
    words = ["data.num_workers=0", f"callbacks.last.every_n_steps={every}"]
    ended = stopped(forge, tmp_path / "run", signal.SIGTERM, b"V", 2, *words)
    assert ended.code == 143
    assert step_of(tmp_path / "run") == 12
    assert resumes(forge, reference, tmp_path / "run", *words) == []


def test_a_second_signal_ends_a_run_at_once(forge, tmp_path):
    began = time.monotonic()
    watch = partial(twice, signal.SIGTERM)
    ended = forge.run(tmp_path / "run", *RUN, "data.num_workers=0", before=SLOW, watch=watch)
    assert ended.code == 143
    assert time.monotonic() - began < 18
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_signal_before_training_ends_a_run_at_once(forge, tmp_path):
    slow = (
        "import os, time, depthnet.data.datamodule as m\n"
        "m.DepthDataModule.describe = lambda self: (os.write(tell, b'j'), time.sleep(30))"
    )
    watch = partial(send, signal.SIGTERM, b"j", 1, 0.0)
    ended = forge.run(tmp_path / "run", *RUN, before=slow, watch=watch)
    assert ended.code == 143
    assert "Traceback" not in ended.output


def test_slurm_is_asked_to_run_the_job_again(forge, reference, tmp_path):
    command = tmp_path / "bin/scontrol"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    command.chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_NAME": "depth"}
    job |= {"SLURM_NTASKS": "1", "PATH": f"{command.parent}:{os.environ['PATH']}"}
    run = partial(stopped, forge, tmp_path / "run", signal.SIGUSR1, b"t", 2, "data.num_workers=0")
    ended = run(environment=job)
    assert ended.code == 128 + signal.SIGUSR1
    assert (tmp_path / "asked").read_text() == "requeue 7_3\n"
    assert "job 7_3 is queued again" in ended.output
    assert step_of(tmp_path / "run") == 2
    assert resumes(forge, reference, tmp_path / "run", "data.num_workers=0") == []


@pytest.mark.parametrize(
    ("words", "when", "count"),
    [
        (["trainer.val_check_interval=0.5"], b"t", 9),  # just before a validation in the middle of an epoch
        (["trainer.val_check_interval=0.5"], b"t", 10),
        (["trainer.accumulate_grad_batches=2"], b"t", 9),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.patience=1", "callbacks.last.every_n_steps=2"],
            b"j",
            1,
        ),
    ],
)
def test_other_recipes_are_resumed_to_the_same_bits(forge, tmp_path, words, when, count):
    recipe = [*(word for word in RUN if not word.startswith("callbacks")), "data.num_workers=0", *words]
    assert forge.run(tmp_path / "whole", *recipe).code == 0
    killed = forge.run(tmp_path / "run", *recipe, watch=partial(send, signal.SIGKILL, when, count, 0.0))
    assert killed.code == -signal.SIGKILL
    ended = forge.run(tmp_path / "run", *recipe)
    assert ended.code == 0, ended.output
    assert differences(tmp_path / "whole", tmp_path / "run") == []


def test_a_run_that_has_ended_tells_its_figures(forge, reference):
    before = {path: path.stat().st_mtime_ns for path in reference.rglob("*") if path.name not in (".lock", "train.log")}
    ended = forge.run(reference, *RUN, "data.num_workers=2")
    assert ended.code == 0, ended.output
    assert "already finished" in ended.output
    assert (
        f"{json.loads((reference / 'metrics.json').read_text())['protocols']['uncropped']['delta1']:.3f}"
        in ended.output
    )
    assert ended.steps == 0
    after = {path: path.stat().st_mtime_ns for path in reference.rglob("*") if path.name not in (".lock", "train.log")}
    assert after == before


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_taken(forge, reference, tmp_path):
    run = tmp_path / "run"
    assert stopped(forge, run, signal.SIGKILL, b"t", 6, "data.num_workers=0").code == -signal.SIGKILL
    damaged = bytearray((run / "checkpoints/last.ckpt").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (run / "checkpoints/last.ckpt").write_bytes(damaged)
    ended = forge.run(run, *RUN, "data.num_workers=0")
    assert ended.code == 0, ended.output
    assert "not taken" in ended.output
    assert "last.ckpt" in ended.output
    assert ended.steps == 18 - 2
    assert differences(reference, run) == []


def test_a_run_without_a_whole_checkpoint_says_so(forge, tmp_path):
    run = tmp_path / "run"
    assert stopped(forge, run, signal.SIGKILL, b"t", 6, "data.num_workers=0").code == -signal.SIGKILL
    for name in ("last.ckpt", "last.previous.ckpt"):
        (run / "checkpoints" / name).write_bytes(b"PK")
    ended = forge.run(run, *RUN, "data.num_workers=0")
    assert ended.code == 2
    assert "none of its checkpoints is whole" in ended.output


def test_two_runs_in_one_directory_are_refused(forge, tmp_path):
    second = []

    def watch(process, hear):
        told = send(0, b"t", 1, 0.0, process, hear)
        second.append(Forge(tmp_path / "second").run(tmp_path / "run", *RUN, "data.num_workers=0"))
        os.kill(process, signal.SIGKILL)
        return told

    forge.run(tmp_path / "run", *RUN, "data.num_workers=0", before=SLOW, watch=watch)
    assert second[0].code == 2
    assert "another run" in second[0].output


def test_poisoned_samples_are_named_their_step_is_left_out_and_the_batch_is_kept(forge, tmp_path):
    run = tmp_path / "run"
    poison = POISON.format(frames={5}, epochs={1})
    ended = forge.run(run, *RUN, "data.num_workers=0", before=poison)
    assert ended.code == 0, ended.output
    warnings = [line for line in ended.output.splitlines() if "not finite" in line]
    assert len(warnings) == 1
    assert "epoch 2" in warnings[0]
    assert "train_000005" in warnings[0]
    kept = next((run / "nonfinite").glob("*.pt"))
    batch = torch.load(kept, weights_only=True)
    assert 5 in next(value for key, value in batch.items() if key.startswith("batch_"))["frame"]
    rows = (run / "history.csv").read_text().splitlines()
    assert all(math.isfinite(float(value)) for row in rows[1:] for value in row.split(","))


def test_a_run_whose_losses_stay_nan_is_stopped_and_keeps_its_last_good_weights(forge, tmp_path):
    run = tmp_path / "run"
    poison = POISON.format(frames=set(range(26)), epochs={1})
    ended = forge.run(run, *RUN, "data.num_workers=0", before=poison)
    assert ended.code == 2
    assert "3 times in this epoch" in ended.output.splitlines()[-1]
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert all(value.isfinite().all() for value in state["state_dict"].values() if value.is_floating_point())
    assert len(list((run / "nonfinite").glob("*.pt"))) == 3


def test_other_data_and_another_config_are_named(forge, tmp_path):
    run = tmp_path / "run"
    assert stopped(forge, run, signal.SIGKILL, b"t", 6, "data.num_workers=0").code == -signal.SIGKILL
    ended = forge.run(run, *RUN, "data.num_workers=0", "optimizer.lr=0.01", "data.scene_seed=4")
    assert ended.code == 2
    assert "optimizer.lr=0.01 (was 0.0005)" in ended.output
    record = json.loads((run / "run.json").read_text())
    record["data"]["contents"] = "0" * 64
    (run / "run.json").write_text(json.dumps(record))
    ended = forge.run(run, *RUN, "data.num_workers=0")
    assert ended.code == 2
    assert "its data has changed" in ended.output
    assert forge.run(run, *RUN, "data.num_workers=0", "resume_allow=[data]").code == 0


def test_a_directory_that_cannot_be_written_is_told_before_any_data_is_read(forge, tmp_path):
    (tmp_path / "file").write_text("")
    ended = forge.run(tmp_path / "file/run", "data=nyu", "data.root=/nowhere")
    assert ended.code == 2
    assert str(tmp_path / "file/run") in ended.output
    assert "/nowhere" not in ended.output


def test_a_run_that_was_moved_resumes_where_it_is_now(forge, reference, tmp_path):
    name = "a run of november with a rather long name so that the lines of its config would be folded"
    old, new = tmp_path / name / "a", tmp_path / "moved"
    assert stopped(forge, old, signal.SIGTERM, b"t", 3, "data.num_workers=0").code == 143
    old.rename(new)
    ended = forge.run(new, f"resume={new}")
    assert ended.code == 0, ended.output
    assert not old.exists()
    assert differences(reference, new) == []
    assert "already finished" in forge.run(new, f"resume={new}").output


def test_a_change_that_cannot_work_is_a_line_and_leaves_the_run_as_it_was(forge, tmp_path):
    run = tmp_path / "run"
    assert stopped(forge, run, signal.SIGTERM, b"t", 3, "data.num_workers=0").code == 143
    before = (run / "config.yaml").read_bytes()
    ended = forge.run(run, *RUN, "data.num_workers=0", "model.decoder_widths=[8,8,8,8,8]", "resume_allow=[config]")
    assert ended.code == 2, ended.output
    assert "its weights do not fit this model" in ended.output
    assert (run / "config.yaml").read_bytes() == before


def test_a_run_that_is_allowed_another_config_resumes_with_it(forge, tmp_path):
    run = tmp_path / "run"
    words = [*(word for word in RUN if "max_epochs" not in word), "data.num_workers=0", "scheduler=constant"]
    assert forge.run(run, *words, "trainer.max_epochs=1").code == 0
    assert forge.run(run, *words, "trainer.max_epochs=2").code == 2
    ended = forge.run(run, *words, "trainer.max_epochs=2", "resume_allow=[config]")
    assert (ended.code, ended.steps) == (0, 6), ended.output
    assert (run / "metrics.previous.json").exists()
    assert len((run / "history.csv").read_text().splitlines()) == 3


def test_a_lost_best_checkpoint_is_not_replaced_by_another(forge, reference, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    (run / "metrics.json").unlink()
    (run / "checkpoints/best.ckpt").unlink()
    ended = forge.run(run, f"resume={run}")
    assert ended.code == 2
    assert "best.ckpt: is missing" in ended.output
    assert not (run / "metrics.json").exists()


def test_checkpoints_without_a_config_are_no_new_run(forge, reference, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    (run / "config.yaml").unlink()
    ended = forge.run(run, *RUN, "seed=7")
    assert ended.code == 2
    assert "holds checkpoints, but no config.yaml" in ended.output


def test_a_resumed_run_is_the_one_that_is_named(forge, reference, tmp_path):
    ended = forge.run(tmp_path / "other", f"resume={reference}")
    assert ended.code == 2
    assert "leave out hydra.run.dir" in ended.output


def test_slurm_is_asked_also_before_training(forge, tmp_path):
    command = tmp_path / "bin/scontrol"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    command.chmod(0o755)
    slow = "import time, depthnet.data.datamodule as m; m.DepthDataModule.describe = lambda self: time.sleep(30)"
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "PATH": f"{command.parent}:{os.environ['PATH']}"}
    watch = partial(send, signal.SIGUSR1, b"", 0, 6.0)  # imports and config take seconds on a busy machine
    ended = forge.run(tmp_path / "run", *RUN, before=slow, watch=watch, environment=job)
    assert ended.code == 128 + signal.SIGUSR1
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
