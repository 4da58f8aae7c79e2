"""One W&B run over several starts, read back from the files that W&B wrote."""

import json
from collections import Counter

import pytest
from wandb_files import records, summary

from depthnet import loggers
from depthnet.loggers import SafeLogger, wandb_logger

pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    loggers._abandon_wandb()
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    yield
    loggers._abandon_wandb()


def epoch(safe, number, **figures):
    safe.log_metrics({"step/loss": 1.0, "epoch": number}, 10 * number + 9)
    safe.log_metrics({f"val/{name}": value for name, value in figures.items()} | {"epoch": number}, 10 * number + 9)
    safe.log_metrics({"train/loss": 1.0 / (number + 1), "epoch": number}, 10 * number + 9)


def test_a_run_that_goes_on_logs_nothing_twice_and_keeps_its_best(tmp_path):
    first = SafeLogger(wandb_logger(tmp_path, "p"))
    for number, (delta1, rmse) in enumerate([(float("nan"), float("nan")), (0.1, 2.0), (0.5, 1.0), (0.3, 3.0)]):
        epoch(first, number, delta1=delta1, rmse=rmse)
    first.histograms({"depth/truth": [1, 2]}, [0, 5, 10], 39)
    first.end("failed")
    second = SafeLogger(wandb_logger(tmp_path, "p"))
    for number, (delta1, rmse) in enumerate([(0.3, 3.0), (0.2, 1.5)], 3):  # the last epoch is trained again
        epoch(second, number, delta1=delta1, rmse=rmse)
        second.histograms({"depth/truth": [1, 2]}, [0, 5, 10], 10 * number + 9)
    second.log_metrics({"val/uncropped/delta1": 0.5}, 49)
    second.end("success")

    before, after = records(tmp_path)
    assert before["run"][0]["run_id"] == after["run"][0]["run_id"]
    rows = [row["item"] for found in (before, after) for row in found["history"]]
    logged = Counter(
        (key, row["trainer/global_step"]) for row in rows for key in row if key[0] != "_" and "/global" not in key
    )
    doubled = {key for (key, _), count in logged.items() if count > 1}
    assert doubled == {"epoch"}  # it stands in every row
    steps = [9, 19, 29, 39, 49]
    for key in ("step/loss", "val/delta1", "train/loss"):
        assert sorted(step for name, step in logged if name == key) == steps
    assert sorted(step for name, step in logged if name == "depth/truth.bins") == [39, 49]
    for found in (before, after):
        assert (summary(found)["val/delta1"], summary(found)["val/rmse"]) == (0.5, 1.0)
        axes = {metric.get("name", metric.get("glob_name")): metric.get("step_metric") for metric in found["metric"]}
        assert axes["val/delta1"] == axes["train/loss"] == "epoch"
        assert axes["*"] == "trainer/global_step"
        assert "val/uncropped/delta1" not in axes


def test_a_table_is_recorded_when_it_is_asked_for(tmp_path):
    columns, rows = ("frame", "label", "delta1"), [(0, "a", 0.5), (1, "b", float("nan"))]
    for asked in (False, True):
        safe = SafeLogger(wandb_logger(tmp_path / str(asked), "p", log_per_image=asked))
        safe.table("per_image/val", columns, rows, 3)
        safe.end("success")
    assert not list((tmp_path / "False").rglob("*.table.json"))
    (table,) = (tmp_path / "True").rglob("*.table.json")
    assert json.loads(table.read_text()) | {"columns": list(columns)} == {
        "columns": list(columns),
        "data": [[0, "a", 0.5], [1, "b", None]],
    }


def test_an_agent_s_run_is_the_one_that_its_sweep_knows(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "merged")
    alone = SafeLogger(wandb_logger(tmp_path / "alone", "p"))
    assert alone.version != "merged"  # all jobs of a sweep of ours would be one run
    alone.end("success")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    loggers._abandon_wandb()  # an agent's run is a process of its own
    agent = SafeLogger(wandb_logger(tmp_path / "agent", "p"))
    assert agent.version == "merged"
    agent.end("success")
    ((run,),) = (found["run"] for found in records(tmp_path / "agent"))
    assert (run["run_id"], run["sweep_id"]) == ("merged", "sweep")
