"""The average of the weights: what is averaged, and that a run's figures are those of its best checkpoint."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_train import ROOMS
from torch import nn

from depthnet.core.types import InputError
from depthnet.run.targets import build
from depthnet.training.callbacks.ema import WeightEMA
from depthnet.training.module import DepthModule


class Net(nn.Module):
    """A weight, batch normalization in training, and constants of both kinds."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.frozen = nn.Parameter(torch.tensor([0.1, 0.3]), requires_grad=False)
        self.register_buffer("mean", torch.tensor([123.675, 116.28, 0.1]), persistent=False)
        self.register_buffer("table", torch.tensor([0.7, 1 / 3]))

    def step(self):
        with torch.no_grad():
            self.norm(self.conv(torch.randn(2, 3, 4, 4)))
            self.conv.weight.add_(0.01 * torch.randn_like(self.conv.weight))


def updated(average, net, steps, first=0):
    trainer = SimpleNamespace(global_step=first, num_training_batches=10_000, accumulate_grad_batches=2)
    trainer.is_last_batch = False
    average.on_fit_start(trainer, net)
    average.on_train_start(trainer, net)
    for _ in range(steps):
        average.on_train_batch_end(trainer, net, None, None, 0)  # gradients were gathered; no step
        net.step()
        trainer.global_step += 1
        average.on_train_batch_end(trainer, net, None, None, 1)
    return trainer


def test_weights_and_statistics_are_averaged_and_constants_are_copied():
    net, average = Net(), WeightEMA(decay=0.999)
    constants = {name: getattr(net, name).clone() for name in ("mean", "table", "frozen")}
    names = ("conv.weight", "norm.running_mean", "norm.running_var")
    wanted = {}
    trainer = updated(average, net, 0)
    for number in range(1000):
        net.step()
        trainer.global_step += 1
        average.on_train_batch_end(trainer, net, None, None, 1)
        for name in names:
            value = net.state_dict()[name].double()
            wanted[name] = 0.999 * wanted[name] + 0.001 * value if number else value
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    checkpoint = {"state_dict": net.state_dict()}
    average.on_save_checkpoint(trainer, net, checkpoint)
    stored = {name: value.clone() for name, value in checkpoint["state_dict"].items()}
    assert stored.keys() == weights.keys()
    for name in names:
        torch.testing.assert_close(stored[name].double(), wanted[name], rtol=1e-4, atol=1e-6)
        assert not torch.equal(stored[name], weights[name])
    assert stored["norm.num_batches_tracked"] == 1000
    average.on_validation_epoch_start(trainer, net)
    assert all(torch.equal(getattr(net, name), value) for name, value in constants.items())
    assert all(torch.equal(value, stored[name]) for name, value in net.state_dict().items())
    average.on_validation_epoch_end(trainer, net)
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    average.on_fit_end(trainer, net)
    assert all(torch.equal(value, stored[name]) for name, value in net.state_dict().items())
    assert all(torch.equal(getattr(net, name), value) for name, value in constants.items())


def test_a_resumed_average_resumes_bit_exactly():
    whole, parts, resumed = Net(), Net(), Net()
    torch.manual_seed(1)
    average = WeightEMA(decay=0.9, warm_up=True)
    updated(average, whole, 7)
    torch.manual_seed(1)
    first = WeightEMA(decay=0.9, warm_up=True)
    updated(first, parts, 4)
    checkpoint = {"state_dict": parts.state_dict()}
    first.on_save_checkpoint(None, parts, checkpoint)
    second = WeightEMA(decay=0.9, warm_up=True)
    resumed.load_state_dict(checkpoint["state_dict"])  # as Lightning does first
    second.on_load_checkpoint(None, resumed, checkpoint)
    updated(second, resumed, 3, first=4)
    assert all(torch.equal(value, second.average[name]) for name, value in average.average.items())
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_warm_up_forgets_the_first_steps_sooner():
    values = []
    for warm_up in (False, True):
        net, average = Net(), WeightEMA(decay=0.99, warm_up=warm_up)
        trainer = updated(average, net, 1)
        with torch.no_grad():
            net.frozen.fill_(1.0)
        trainer.global_step += 1
        average.on_train_batch_end(trainer, net, None, None, 1)
        values.append(average.average["frozen"][0].item())
    assert values == pytest.approx([0.1 + 0.01 * 0.9, 0.1 + (1 - 2 / 11) * 0.9])


def test_the_average_is_on_the_device_of_the_weights():
    average = WeightEMA()
    average.on_fit_start(None, Net().to("meta"))  # stands for a GPU
    assert {value.device.type for value in average.average.values()} == {"meta"}


@pytest.mark.parametrize(
    ("options", "batches", "gathered", "steps"),
    [
        ({"decay": 0.99}, 43, 1, 43),
        ({"decay": 0.99}, 199, 4, 50),
        ({"decay": 0.99}, 100, 1, None),
        ({"decay": 0.99, "warm_up": True}, 43, 1, None),
    ],
)
def test_an_average_longer_than_an_epoch_is_logged(caplog, options, batches, gathered, steps):
    trainer = SimpleNamespace(global_step=0, num_training_batches=batches, accumulate_grad_batches=gathered)
    with caplog.at_level("WARNING", "depthnet"):
        WeightEMA(**options).on_train_start(trainer, None)
    assert len(caplog.messages) == (steps is not None)
    if steps:
        fitting = {43: 0.976, 50: 0.98}[steps]
        assert f"remembers about 100 optimizer steps and an epoch has {steps}" in caplog.messages[0]
        assert f"callbacks.average.decay={fitting} fits an epoch" in caplog.messages[0]


@pytest.mark.parametrize("decay", [1, -0.1, float("nan")])
def test_impossible_averages_are_refused(decay):
    node = {"_target_": "depthnet.training.callbacks.ema.WeightEMA", "decay": decay}
    with pytest.raises(InputError, match=r"callbacks\.average\.decay=.*: it is a number, at least 0 and below 1"):
        build({"average": node}, "callbacks")


def test_figures_are_those_of_the_best_checkpoint_and_of_a_resumed_run(train, tmp_path, monkeypatch):
    recipe = [*ROOMS, "callbacks=ema", "callbacks.average.decay=0.9", "callbacks.last.every_n_steps=1"]
    recipe += ["trainer.max_epochs=2", "optimizer.lr=2e-3", "data.frames={train: 8, val: 3, test: 2}"]
    whole = train(*recipe, "hydra.run.dir=whole")
    assert whole.code == 0, whole.err
    assert whole.err.count("fits an epoch") == 1
    kept = ("data=", "data.frames", "data.num_workers", "data.cache", "logger", "trainer=")
    data = [word for word in recipe if word.startswith(kept)]
    tested = train(*data, "mode=test", "ckpt=whole/checkpoints/best.ckpt", "hydra.run.dir=tested")
    assert tested.code == 0, tested.err

    start = DepthModule.on_train_batch_start

    def stop(self, batch, batch_idx):
        if (self.current_epoch, batch_idx) == (1, 3):
            raise RuntimeError("the power fails")
        start(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(DepthModule, "on_train_batch_start", stop)
        assert train(*recipe, "hydra.run.dir=stopped").code == 1
    resumed = train("resume=stopped")
    assert resumed.code == 0, resumed.err

    for name in ("metrics.json", "per_image.csv"):
        texts = {(tmp_path / run / name).read_text() for run in ("whole", "tested", "stopped")}
        assert len(texts) == 1, name
    for name in ("best.ckpt", "last.ckpt"):
        states = [torch.load(tmp_path / run / "checkpoints" / name, weights_only=True) for run in ("whole", "stopped")]
        for key in ("state_dict", "current_model_state") if name == "last.ckpt" else ("state_dict",):
            assert all(torch.equal(value, states[1][key][place]) for place, value in states[0][key].items())
    history = [row.split(",") for row in (tmp_path / "whole/history.csv").read_text().splitlines()]
    figures = json.loads((tmp_path / "whole/metrics.json").read_text())["protocols"]["uncropped"]
    rmse = [float(row[history[0].index("val/rmse")]) for row in history[1:]]
    assert any(value == pytest.approx(figures["rmse"], rel=1e-7) for value in rmse)  # logged in float32


def test_a_run_without_a_best_checkpoint_is_evaluated_by_its_average_also_when_it_is_resumed(train):
    words = [*ROOMS, "callbacks=ema", "callbacks.average.decay=0.9", "trainer.max_epochs=1", "optimizer.lr=2e-3"]
    words += ["trainer.limit_val_batches=0", "data.frames={train: 8, val: 3, test: 2}", "hydra.run.dir=run"]
    assert train(*words).code == 0
    rows = Path("run/per_image.csv").read_text()
    Path("run/metrics.json").unlink()
    done = train("resume=run")
    assert done.code == 0, done.err
    assert Path("run/per_image.csv").read_text() == rows
