import csv
import json
from types import SimpleNamespace

import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf
from PIL import Image

from depthnet.core.types import Sample
from depthnet.data.datamodule import DepthDataModule
from depthnet.data.layouts.registry import open_root
from depthnet.evaluation.evaluator import Evaluation
from depthnet.evaluation.protocols import choose_protocols
from depthnet.training.callbacks.best_checkpoint import BestCheckpoint
from depthnet.training.callbacks.history import History
from depthnet.training.callbacks.panels import Panels
from depthnet.training.callbacks.results import Results
from depthnet.training.loggers import WandbRun
from depthnet.training.resume import finished


def epoch(number, **metrics):
    return SimpleNamespace(
        current_epoch=number,
        max_epochs=3,
        global_step=10 * number,
        loggers=[],
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}, {"lr": 0.01}])],
        callback_metrics={name: torch.tensor(value) for name, value in metrics.items()},
    )


def test_history_has_a_row_an_epoch_and_continues_after_a_stop(tmp_path):
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
    data = SimpleNamespace(layout=open_root(make_lists(val=5)), test_split="val")
    panels = Panels(tmp_path, count=2)
    batch = Sample(
        torch.zeros(5, 3, 24, 32, dtype=torch.uint8),
        torch.full((5, 1, 48, 64), 2.0),
        torch.ones(5, 1, 48, 64, dtype=torch.bool),
        torch.arange(5),
    )
    trainer = SimpleNamespace(datamodule=data, loggers=[], testing=True, global_step=3)
    panels.on_test_batch_end(trainer, None, torch.full((5, 1, 24, 32), 2.5), batch, 0)
    panels.on_test_epoch_end(trainer, None)
    names = sorted(path.name for path in (tmp_path / "panels").iterdir())
    assert names == ["train_rgb_00007.png", "train_rgb_00009.png"]
    picture = np.asarray(Image.open(tmp_path / "panels" / names[0]))
    assert picture.shape[1] > 4 * 32
    assert picture.std() > 10


class Board(WandbRun):
    """A logger that keeps what it is sent."""

    def __init__(self):
        self.sent = []

    def log_image(self, key, images, step, caption):
        self.sent.append((key, len(images), step, caption))


def test_panels_go_to_every_logger_that_shows_pictures(tmp_path, make_lists):
    boards = [Board(), Board()]
    data, loggers = SimpleNamespace(layout=open_root(make_lists(val=2))), [CSVLogger(tmp_path), *boards]
    trainer = SimpleNamespace(datamodule=data, loggers=loggers, sanity_checking=False, testing=False, global_step=3)
    panels = Panels(tmp_path, count=2)
    batch = Sample(
        torch.zeros(2, 3, 24, 32, dtype=torch.uint8),
        torch.full((2, 1, 48, 64), 2.0),
        torch.ones(2, 1, 48, 64, dtype=torch.bool),
        torch.arange(2),
    )
    panels.on_validation_batch_end(trainer, None, torch.full((2, 1, 24, 32), 2.5), batch, 0)
    panels.on_validation_epoch_end(trainer, None)
    for board in boards:
        assert board.sent == [("panels/val", 2, 2, ["train/rgb_00007", "train/rgb_00008"])]


def test_a_moved_run_keeps_its_best_score(tmp_path):
    old = BestCheckpoint(dirpath=tmp_path / "old", filename="best", monitor="val/delta1", mode="max")
    old.best_model_score = torch.tensor(0.9)
    old.best_model_path = str(tmp_path / "old" / "best.ckpt")
    old.best_k_models = {old.best_model_path: old.best_model_score}
    new = BestCheckpoint(dirpath=tmp_path / "new", filename="best", monitor="val/delta1", mode="max")
    new.load_state_dict(old.state_dict())
    assert new.best_model_score == 0.9
    assert new.best_model_path == str(tmp_path / "new" / "best.ckpt")


def test_a_table_says_how_many_images_it_is_of(tmp_path, capsys):
    data = DepthDataModule.rooms({"val": 4}, image_size=(48, 64), batch_size=2, num_workers=0)
    evaluation = Evaluation(choose_protocols("uncropped", data.layout, "val"))
    for frame in range(2):  # as with trainer.limit_test_batches=1
        depth = torch.from_numpy(data.layout.read("val", frame)[1])[None, None]
        evaluation.update(depth, depth, depth > 0, frame)
    data.test_split = "val"
    Results(tmp_path).on_test_end(
        SimpleNamespace(datamodule=data, is_global_zero=True, testing=True, global_step=0, loggers=[]),
        SimpleNamespace(evaluation=evaluation, run={"seed": 0}),
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["images"], metrics["expected"]) == (2, 4)
    assert "val: 2 of 4 images, filled ground truth" in " ".join(capsys.readouterr().out.split())
    cfg = {"resume": "auto", "resume_allow": [], "watch": "val/delta1", "directory": str(tmp_path)}
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(cfg)))
    assert finished(OmegaConf.create(cfg), tmp_path) == 1.0
    assert "val: 2 of 4 images" in " ".join(capsys.readouterr().out.split())
