import csv
import json
from types import SimpleNamespace

import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from depthnet.callbacks import Checkpoint, History, Panels
from depthnet.data.roots import open_root
from depthnet.loggers import SafeLogger
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


def test_panels_go_to_every_logger_that_shows_pictures(tmp_path, make_lists, monkeypatch):
    first, second, third = (SafeLogger(CSVLogger(tmp_path)) for _ in range(3))
    monkeypatch.setattr(SafeLogger, "shows_images", property(lambda logger: logger is not first))
    sent = []
    monkeypatch.setattr(SafeLogger, "images", lambda logger, key, drawn, step: sent.append((logger, key, len(drawn))))
    trainer = SimpleNamespace(loggers=[first, second, third], sanity_checking=False, global_step=3)
    panels = Panels(tmp_path, open_root(make_lists(val=2)), "val", count=2)
    batch = Sample(
        torch.zeros(2, 3, 24, 32, dtype=torch.uint8),
        torch.full((2, 1, 48, 64), 2.0),
        torch.ones(2, 1, 48, 64, dtype=torch.bool),
        torch.arange(2),
    )
    panels.on_validation_batch_end(trainer, None, torch.full((2, 1, 24, 32), 2.5), batch, 0)
    panels.on_validation_epoch_end(trainer, None)
    assert [entry for entry in sent if entry[0] is not first] == [(second, "panels/val", 2), (third, "panels/val", 2)]


def test_a_moved_run_keeps_its_best_score(tmp_path):
    old = Checkpoint(dirpath=tmp_path / "old", filename="best", monitor="val/delta1", mode="max")
    old.best_model_score = torch.tensor(0.9)
    old.best_model_path = str(tmp_path / "old" / "best.ckpt")
    old.best_k_models = {old.best_model_path: old.best_model_score}
    new = Checkpoint(dirpath=tmp_path / "new", filename="best", monitor="val/delta1", mode="max")
    new.load_state_dict(old.state_dict())
    assert new.best_model_score == 0.9
    assert new.best_model_path == str(tmp_path / "new" / "best.ckpt")
