"""One W&B run over several starts, read back from the files that W&B wrote."""

from types import SimpleNamespace

import pytest
import torch
from faults.loggers import Server
from wandb_files import records, summary

from depthnet.training import loggers
from depthnet.training.callbacks.history import History
from depthnet.training.loggers import guard, wandb_logger

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    loggers._leave_wandb()
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    yield
    loggers._leave_wandb()


def epoch(safe, number, **figures):
    safe.log_metrics({"step/loss": 1.0, "epoch": number}, 10 * number + 4)
    safe.log_metrics({"step/loss": 1.0, "epoch": number}, 10 * number + 9)
    histogram = wandb.Histogram(np_histogram=([1, 2], [0, 5, 10]))
    safe.log_metrics({"depth/ground_truth": histogram}, 10 * number + 9)
    safe.log_metrics({f"val/{name}": value for name, value in figures.items()} | {"epoch": number}, 10 * number + 9)
    safe.log_metrics({"train/loss": 1.0 / (number + 1), "epoch": number}, 10 * number + 9)


def test_a_run_that_resumes_logs_nothing_twice_and_keeps_its_best(tmp_path, monkeypatch):
    server = Server("good")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    history = History(tmp_path)
    for numbers in ((0, 1, 2), (2, 3)):  # the last epoch is trained again
        safe = guard(wandb_logger(tmp_path, "p", finish_timeout=3.0))
        trainer = SimpleNamespace(current_epoch=0, max_epochs=4, global_step=0, loggers=[safe], callback_metrics={})
        trainer.optimizers = [SimpleNamespace(param_groups=[{"lr": 0.1}])]
        for number in numbers:
            figures = {"delta1": [float("nan"), 0.5, 0.3, 0.2][number], "rmse": [float("nan"), 3.0, 2.0, 2.5][number]}
            epoch(safe, number, **figures)
            trainer.callback_metrics = {f"val/{name}": torch.tensor(value) for name, value in figures.items()}
            history.on_train_epoch_end(trainer, None)
        if numbers == (2, 3):
            safe.log_metrics({"val/uncropped/delta1": 0.5}, 40)
        safe.finish("success")
        server.last_step = 29

    before, after = records(tmp_path)
    assert before["run"][0]["run_id"] == after["run"][0]["run_id"]
    for found, steps in ((before, [4, 9, 14, 19, 24, 29]), (after, [34, 39, 40])):
        rows = [row["item"] for row in found["history"]]
        assert [row["trainer/global_step"] for row in rows] == [row["_step"] for row in rows] == steps
        assert [row["trainer/global_step"] for row in rows if "step/loss" in row] == [
            step for step in steps if step % 5 == 4
        ]
        for key in ("val/delta1", "train/loss", "depth/ground_truth.bins"):
            assert [row["trainer/global_step"] for row in rows if key in row] == [s for s in steps if s % 10 == 9]
        assert summary(found)["val/delta1"] == 0.5
        assert summary(found)["val/rmse"] == 2.0
        axes = {metric.get("name", metric.get("glob_name")): metric.get("step_metric") for metric in found["metric"]}
        assert axes["val/delta1"] == axes["train/*"] == "epoch"
        assert axes["*"] == "trainer/global_step"
        assert "val/uncropped/delta1" not in axes
    assert summary(after)["val/uncropped/delta1"] == 0.5


def test_an_agent_s_run_is_the_one_that_its_sweep_knows(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "merged")
    alone = guard(wandb_logger(tmp_path / "alone", "p"))
    assert alone.version != "merged"  # all jobs of a sweep of ours would be one run
    alone.finish("success")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    loggers._leave_wandb()  # an agent's run is a process of its own
    agent = guard(wandb_logger(tmp_path / "agent", "p"))
    assert agent.version == "merged"
    agent.finish("success")
    ((run,),) = (found["run"] for found in records(tmp_path / "agent"))
    assert (run["run_id"], run["sweep_id"]) == ("merged", "sweep")
