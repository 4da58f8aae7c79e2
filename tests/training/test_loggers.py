import importlib.util
import json
import logging
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from faults.loggers import Server
from lightning.pytorch.loggers import CSVLogger, Logger
from wandb_files import records

from depthnet.core.types import InputError
from depthnet.run.targets import build
from depthnet.training import loggers
from depthnet.training.loggers import guard, make_loggers, wandb_logger


class Faulty(Logger):
    """Counts its calls and does the same wrong thing in each."""

    def __init__(self, fault):
        super().__init__()
        self.calls = 0
        self.fault = fault

    def _call(self, *args, **kwargs):
        self.calls += 1
        return self.fault()

    log_metrics = log_hyperparams = after_save_checkpoint = save = finalize = _call
    name = version = save_dir = None


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "depthnet"]


def fail():
    raise OSError("no space left")


CALLS = {
    "log_metrics": lambda logger: logger.log_metrics({"a": 1.0}, 3),
    "log_hyperparams": lambda logger: logger.log_hyperparams({"seed": 1}),
    "after_save_checkpoint": lambda logger: logger.after_save_checkpoint(None),
    "save": lambda logger: logger.save(),
    "finalize": lambda logger: logger.finalize("success"),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_a_logger_raises_is_one_line_and_then_it_is_left_alone(caplog, call):
    faulty = Faulty(fail)
    safe = guard(faulty)
    assert CALLS[call](safe) is None
    for later in CALLS.values():
        assert later(safe) is None
    assert faulty.calls == 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for words in ("Faulty", call, "no space left", "the run continues", "history.csv"):
        assert words in record.getMessage()


def test_a_logger_that_ends_the_process_does_not(caplog):
    guard(Faulty(lambda: sys.exit(3))).log_metrics({})
    assert "log_metrics failed (3)" in caplog.text


def test_a_logger_that_hangs_is_left_behind(caplog, monkeypatch):
    monkeypatch.setattr(loggers, "_CALL", 0.2)
    safe = guard(Faulty(lambda: time.sleep(60)))
    start = time.monotonic()
    safe.log_metrics({})
    safe.finalize("success")
    assert time.monotonic() - start < 5
    (line,) = warnings(caplog)
    assert "no answer in 0.2 s" in line


def test_a_sound_logger_works_as_ever(tmp_path):
    safe = guard(CSVLogger(tmp_path, name="n", version="v"))
    assert (safe.name, safe.version, safe.save_dir) == ("n", "v", str(tmp_path))
    safe.log_hyperparams({"seed": 1})
    safe.log_metrics({"loss": 0.5}, 7)
    safe.finalize("success")
    assert (tmp_path / "n/v/metrics.csv").read_text() == "loss,step\n0.5,7\n"


def test_a_config_names_no_logger_one_or_several(tmp_path):
    one, other = CSVLogger(tmp_path), CSVLogger(tmp_path)
    assert make_loggers(None) == make_loggers({}) == make_loggers({"wandb": None}) == []
    assert make_loggers(one) == [one]
    assert make_loggers({"a": one, "b": other}) == [one, other]


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """W&B as on a machine where nobody has logged in, and as in a process that has not used it."""
    pytest.importorskip("wandb")
    loggers._leave_wandb()
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield monkeypatch
    loggers._leave_wandb()


def test_wandb_is_offline_without_an_account_and_says_how_to_send(tmp_path, fresh, caplog):
    with caplog.at_level("INFO", "depthnet"):
        logger = wandb_logger(tmp_path, "p", finish_timeout=7.0)
    settings = logger.experiment.settings
    assert (settings.mode, settings.init_timeout, settings.finish_timeout) == ("offline", 10.0, 7.0)
    assert "no account" in caplog.text
    assert f"wandb sync {tmp_path}/wandb/offline-run-*" in caplog.text


@pytest.mark.parametrize("manner", ["silent", "fails", "gone"])
def test_wandb_is_offline_when_its_server_does_not_answer(tmp_path, fresh, caplog, manner):
    server = Server(manner)
    if manner == "gone":
        server.die()
    fresh.setenv("WANDB_API_KEY", "0" * 40)
    fresh.setenv("WANDB_BASE_URL", server.url)
    start = time.monotonic()
    with caplog.at_level("INFO", "depthnet"):
        logger = wandb_logger(tmp_path, "p", init_timeout=1.0)
    assert time.monotonic() - start < 15
    assert logger.experiment.settings.mode == "offline"
    assert logger.version == (tmp_path / "wandb/id").read_text()
    (line,) = warnings(caplog)
    assert "W&B: offline, " in line
    assert "no account" not in line


def test_a_run_that_is_online_tells_its_address_and_takes_project_and_entity_of_the_environment(
    tmp_path, fresh, capsys
):
    server = Server("good")
    fresh.setenv("WANDB_API_KEY", "0" * 40)
    fresh.setenv("WANDB_BASE_URL", server.url)
    (tmp_path / "run.json").write_text('{"resumed": []}')
    for given, project in ((None, "depthnet"), (None, "theirs"), ("mine", "mine")):
        if project == "theirs":
            fresh.setenv("WANDB_PROJECT", "theirs")
            fresh.setenv("WANDB_ENTITY", "team")
        server.asked.clear()
        loggers._leave_wandb()  # it reads the environment at its start
        safe = guard(wandb_logger(tmp_path, given, finish_timeout=3.0))
        safe.finish("success")
        identity = (tmp_path / "wandb/id").read_text()
        url = f"{server.url}/e/{project}/runs/{identity}"  # the server decides on the entity
        assert f"wandb: {url}\n" in capsys.readouterr().out
        assert json.loads((tmp_path / "run.json").read_text()) == {"resumed": [], "url": url}
        assert server.asked[0]["entity"] == ("team" if project != "depthnet" else None)


def test_tensorboard_is_a_logger_or_a_line(tmp_path):
    node = {"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "save_dir": str(tmp_path), "name": ""}
    if importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(InputError, match=r"logger: needs a package that is not installed .*tensorboard"):
            build(node, "logger")
        return
    safe = guard(build({**node, "version": "tensorboard", "default_hp_metric": False}, "logger"))
    safe.log_hyperparams({"seed": 1, "data": {"root": None}})
    safe.log_metrics({"val/delta1": 0.5}, 3)
    safe.finalize("success")
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_where_wandb_cannot_write_a_run_continues(tmp_path, fresh, caplog):
    (tmp_path / "wandb").write_text("in the way")
    assert wandb_logger(tmp_path, "p") is None
    (line,) = warnings(caplog)
    assert "W&B: cannot start" in line


def test_each_job_is_a_run_of_its_own_and_shows_pictures(tmp_path, fresh):
    for job in ("0", "1"):
        safe = guard(wandb_logger(tmp_path / job, "p"))
        safe.log_image("panels/val", [np.full((20, 30, 3), gray, np.uint8) for gray in (0, 9)], 0, caption=["a", "b"])
        safe.finish("success")
        (run,) = (tmp_path / job / "wandb").glob("offline-run-*")
        assert len(list(run.glob("files/media/images/panels/*.png"))) == 2
    assert (tmp_path / "0/wandb/id").read_text() != (tmp_path / "1/wandb/id").read_text()


def test_a_table_that_cannot_be_made_stops_nothing(tmp_path, fresh, caplog):
    safe = guard(wandb_logger(tmp_path, "p"))
    safe.log_table("rows", ["a", "b"], [[1]])
    assert warnings(caplog)[-1].startswith("W&B: log_table failed")
    safe.finish("success")


def test_a_full_disk_is_told_because_wandb_does_not(tmp_path, fresh, caplog):
    caplog.set_level("WARNING", "depthnet")  # a run of an earlier test leaves Hydra's INFO
    safe = guard(wandb_logger(tmp_path, "p"))
    fresh.setattr(loggers, "_ROOM", 2**62)
    safe.log_metrics({"a": 1.0})
    safe.finish("success")
    (line,) = warnings(caplog)
    assert "No space left" in line
    assert f"wandb sync {tmp_path}/wandb/offline-run-" in line
    fresh.setattr(loggers, "_ROOM", 0)
    again = guard(wandb_logger(tmp_path / "next", "p"))  # W&B itself was ended, and starts anew
    again.log_metrics({"a": 1.0})
    assert again.version == (tmp_path / "next/wandb/id").read_text()
    again.finish("success")


KILLED = """
import os, pathlib, sys
from depthnet.training.loggers import guard, wandb_logger
safe = guard(wandb_logger(sys.argv[1], "p"))
while not any(path.stat().st_size > 10000 for path in pathlib.Path(sys.argv[1]).rglob("*.wandb")):
    safe.log_metrics({"loss": 1.0, "filling": "x" * 10000})
os.kill(os.getpid(), 9)
"""


def test_a_run_that_was_killed_is_the_same_run_in_wandb_when_it_resumes(tmp_path, fresh):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    guard(wandb_logger(tmp_path, "p")).finish("success")
    identity = (tmp_path / "wandb/id").read_text()
    logs = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(logs) == 2
    for path in logs:
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        runs = [record["run"] for record in map(json.loads, lines) if record["type"] == "run"]
        assert runs
        assert {run["run_id"] for run in runs} == {identity}


@pytest.mark.parametrize(("tags", "kept"), [("base", ["base"]), ([1, "b"], ["1", "b"])])
def test_names_that_a_config_reads_as_something_else_are_text(tmp_path, fresh, tags, kept):
    safe = guard(wandb_logger(tmp_path, project=2026, name=5, group=1.5, tags=tags))
    safe.finish("success")
    ((run,),) = (found["run"] for found in records(tmp_path))
    assert (run["project"], run["display_name"], run["run_group"], run["tags"]) == ("2026", "5", "1.5", kept)


def test_a_hanging_call_within_another_is_one_line(caplog, monkeypatch):
    monkeypatch.setattr(loggers, "_CALL", 0.2)

    class Nested(Faulty):
        def log_hyperparams(self, params):
            self.log_metrics({})

    safe = guard(Nested(lambda: time.sleep(1)))
    safe.log_hyperparams({})
    time.sleep(0.5)
    assert len(warnings(caplog)) == 1
