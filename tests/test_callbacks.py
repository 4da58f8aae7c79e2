import csv
import json
import socket
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from depthnet import callbacks
from depthnet.callbacks import Checkpoint, History, Panels, wandb_logger
from depthnet.data.roots import open_root
from depthnet.types import Sample


def epoch(number, **metrics):
    return SimpleNamespace(
        current_epoch=number,
        max_epochs=3,
        global_step=10 * number,
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}, {"lr": 0.01}])],
        callback_metrics={name: torch.tensor(value) for name, value in metrics.items()},
    )


def test_history_has_a_row_an_epoch_and_goes_on_after_a_stop(tmp_path):
    first = History(tmp_path)
    first.on_train_epoch_end(epoch(0, **{"train/loss": 2.0, "step/loss": 1.0}), None)
    second = History(tmp_path)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    second.on_train_epoch_end(epoch(1, **{"train/loss": 1.0, "val/delta1": 0.5}), None)
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [(row["epoch"], row["lr"], row["train/loss"], row["val/delta1"]) for row in rows] == [
        ("0", "0.1", "2.0", ""),
        ("1", "0.1", "1.0", "0.5"),
    ]
    assert "step/loss" not in rows[0]


def test_panels_show_evenly_spaced_frames(tmp_path, make_lists):
    layout = open_root(make_lists(val=5))
    panels = Panels(tmp_path, layout, "val", count=2)
    batch = Sample(
        torch.zeros(5, 3, 24, 32, dtype=torch.uint8),
        torch.full((5, 1, 48, 64), 2.0),
        torch.ones(5, 1, 48, 64, dtype=torch.bool),
        torch.arange(5),
    )
    panels.on_test_batch_end(SimpleNamespace(logger=None), None, torch.full((5, 1, 24, 32), 2.5), batch, 0)
    names = sorted(path.name for path in (tmp_path / "panels").iterdir())
    assert names == ["train_rgb_00007.png", "train_rgb_00009.png"]
    picture = np.asarray(Image.open(tmp_path / "panels" / names[0]))
    assert picture.shape[1] > 4 * 32
    assert picture.std() > 10


def test_a_moved_run_keeps_its_best_score(tmp_path):
    old = Checkpoint(dirpath=tmp_path / "old", filename="best", monitor="val/delta1", mode="max")
    old.best_model_score = torch.tensor(0.9)
    old.best_model_path = str(tmp_path / "old" / "best.ckpt")
    old.best_k_models = {old.best_model_path: old.best_model_score}
    new = Checkpoint(dirpath=tmp_path / "new", filename="best", monitor="val/delta1", mode="max")
    new.load_state_dict(old.state_dict())
    assert new.best_model_score == 0.9
    assert new.best_model_path == str(tmp_path / "new" / "best.ckpt")


def test_wandb_is_offline_without_an_account_and_says_how_to_send(tmp_path, monkeypatch, caplog):
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with caplog.at_level("INFO", "depthnet"):
        logger = wandb_logger(tmp_path, "p")
    assert logger is not None
    assert logger._offline
    assert "wandb sync" in caplog.text


def test_wandb_is_offline_when_its_server_does_not_answer(tmp_path, monkeypatch, caplog):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    with caplog.at_level("INFO", "depthnet"):
        logger = wandb_logger(tmp_path, "p")
    assert logger._offline
    assert "does not answer" in caplog.text


def test_without_wandb_a_run_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with caplog.at_level("INFO", "depthnet"):
        assert wandb_logger(tmp_path, "p") is None
    assert "not installed" in caplog.text


def test_a_server_that_listens_answers():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert callbacks._answers(f"http://127.0.0.1:{server.getsockname()[1]}")
