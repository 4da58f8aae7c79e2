import signal
from types import SimpleNamespace

import pytest
import torch
from forked import forks, gloo
from torch import nn

from depthnet.core.types import DepthRange, InputError, Sample
from depthnet.run.targets import build
from depthnet.training.callbacks.finite import FiniteSteps
from depthnet.training.callbacks.resume_checkpoint import ResumeCheckpoint
from depthnet.training.losses import DepthLoss


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("seen", torch.zeros(()))
        self.frozen = nn.BatchNorm2d(1).eval()

    def forward(self, image):
        return image[:, :1].float() * self.scale / 100 + 1


class Learner(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = Scaled()
        self.loss = DepthLoss({"l1": 1.0}, DepthRange(1e-3, 10.0))

    def forward(self, image, intrinsics=None):
        return self.network(image)


def batch(corrupted=()):
    image = torch.full((4, 3, 2, 3), 100, dtype=torch.uint8)
    depth = torch.full((4, 1, 2, 3), 3.0)
    depth[list(corrupted)] = torch.nan
    return Sample(image, depth, torch.ones_like(depth, dtype=torch.bool), torch.arange(10, 14))


def trainer(**changes):
    data = SimpleNamespace(train_label=lambda frame: f"train/{frame}")
    plain = {"world_size": 1, "global_rank": 0, "current_epoch": 1, "global_step": 7, "precision_plugin": None}
    return SimpleNamespace(datamodule=data, **(plain | changes))


def step(callback, learner, *batches, **changes):
    """Do what Lightning does until the optimiser's step; return the gradient that it would take."""
    optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
    for number, given in enumerate(batches):
        callback.on_train_batch_start(None, learner, given, number)
        loss = learner.loss(learner.network(given.image), given.depth, given.mask)[0]
        callback.on_before_backward(None, learner, loss)
        loss.backward()
    callback.on_before_optimizer_step(trainer(**changes), learner, optimizer)
    return learner.network.scale.grad


def test_a_finite_step_is_taken_and_nothing_is_kept(tmp_path):
    callback = FiniteSteps(tmp_path)
    assert step(callback, Learner(), batch()).isfinite()
    assert not list(tmp_path.iterdir())
    assert callback.state_dict() == {"count": 0}


def test_a_step_that_is_not_finite_is_left_out_named_and_kept(tmp_path, caplog):
    callback, learner = FiniteSteps(tmp_path), Learner()
    assert step(callback, learner, batch(), batch(corrupted=[2])) is None  # both batches of a gathered gradient
    assert "epoch 2, step 7" in caplog.text
    assert "samples train/10, train/11, train/12, train/13, train/10, train/11, train/12, train/13;" in caplog.text
    kept = torch.load(tmp_path / "nonfinite/step_000007_process_0.pt", weights_only=True)
    assert torch.equal(kept["batch_1"]["depth"], batch(corrupted=[2]).depth) is False  # NaN is not itself
    assert kept["batch_1"]["depth"].isnan().sum() == 6
    assert kept["batch_0"]["frame"].tolist() == [10, 11, 12, 13]
    assert step(callback, learner, batch()).isfinite()


def test_too_many_in_an_epoch_stop_the_run(tmp_path):
    callback, learner = FiniteSteps(tmp_path, limit=2), Learner()
    step(callback, learner, batch(corrupted=[0]))
    resumed = FiniteSteps(tmp_path, limit=2)
    resumed.load_state_dict(callback.state_dict())
    with pytest.raises(InputError, match=r"2 times in this epoch \(samples train/10, "):
        step(resumed, learner, batch(corrupted=[1]))
    callback.on_train_epoch_start(None, None)
    step(callback, learner, batch(corrupted=[1]))  # another epoch


def test_corrupted_statistics_stop_the_run_at_once(tmp_path):
    learner = Learner()
    learner.network.seen.fill_(torch.nan)
    with pytest.raises(InputError, match=r"network\.seen is not finite any more"):
        step(FiniteSteps(tmp_path), learner, batch(corrupted=[0]))


def test_float16_may_overflow_its_gradients_but_not_its_loss(tmp_path):
    scaled = SimpleNamespace(scaler=object())
    learner = Learner()
    learner.network.scale.register_hook(lambda gradient: gradient * torch.inf)
    assert step(FiniteSteps(tmp_path), learner, batch(), precision_plugin=scaled) is not None
    assert step(FiniteSteps(tmp_path), Learner(), batch(corrupted=[0]), precision_plugin=scaled) is None


@pytest.mark.parametrize("limit", [0, -1])
def test_the_limit_is_a_whole_number(tmp_path, limit):
    node = {"_target_": "depthnet.training.callbacks.finite.FiniteSteps", "directory": str(tmp_path), "limit": limit}
    with pytest.raises(InputError, match=r"callbacks\.finite\.limit=.*: it is a whole number, at least 1"):
        build({"finite": node}, "callbacks")


@forks
def test_two_processes_leave_out_the_same_steps_and_stop_alike(tmp_path):
    def work(rank):
        callback, learner = FiniteSteps(tmp_path), Learner()
        place = {"world_size": 2, "global_rank": rank, "is_global_zero": rank == 0}
        taken = [step(callback, learner, batch(corrupted=bad), **place) is not None for bad in ([rank] * rank, [], [3])]
        last = ResumeCheckpoint(tmp_path, every_minutes=1e-9 if rank == 0 else 1e9)
        last.signals.received = signal.SIGTERM if rank else None
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        return taken, callback.state_dict()["count"], last._agree(trainer(**place, strategy=strategy))

    assert gloo(work, tmp_path) == [([False, True, False], 2, (signal.SIGTERM, True))] * 2
