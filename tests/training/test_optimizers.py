import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from depthnet.core.types import InputError
from depthnet.run.targets import build
from depthnet.training.optimizers import build_optimizer
from depthnet.training.schedules import constant, cosine, linear, one_cycle


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
        self.head = nn.Conv2d(2, 1, 1)


def rates(schedule, steps, **options):
    optimizer = build_optimizer(Net(), lr=1.0, encoder_lr_scale=0.1)
    scheduler = schedule(optimizer, steps, **options)
    found = []
    for _ in range(steps):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return torch.tensor(found)


def test_every_parameter_is_in_one_group_with_its_rate_and_decay():
    net = Net()
    optimizer = build_optimizer(net, lr=0.1, weight_decay=0.5, encoder_lr_scale=0.2)
    found = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            found[id(parameter)] = (group["lr"], group["weight_decay"])
    for name, parameter in net.named_parameters():
        rate = 0.1 * 0.2 if name.startswith("encoder") else 0.1
        assert found.pop(id(parameter)) == (pytest.approx(rate), 0.5 if parameter.ndim > 1 else 0.0)
    assert not found


def test_frozen_parameters_are_left_out():
    net = Net()
    net.encoder.requires_grad_(False)
    assert sum(len(group["params"]) for group in build_optimizer(net).param_groups) == 2


def test_torchs_own_options_pass_through():
    assert build_optimizer(Net(), "Adam", amsgrad=True).defaults["amsgrad"]
    assert build_optimizer(Net(), "SGD", momentum=0.9).defaults["momentum"] == 0.9


@pytest.mark.parametrize(
    "wrong",
    [
        {"algorithm": "Adamm"},
        {"algorithm": "lr_scheduler"},
        {"lr": -1},
        {"nope": 1},
        {"betas": (2, 2)},
    ],
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(InputError, match="optimizer"):
        build_optimizer(Net(), **wrong)


def test_one_cycle_rises_to_the_peak_of_each_group_and_falls():
    found = rates(one_cycle, 100, warmup=0.1, start=0.04, end=1e-3)
    assert found.max(0).values.tolist() == pytest.approx([0.1, 0.1, 1.0, 1.0], rel=1e-3)
    assert found[0, -1].item() == pytest.approx(0.04)
    assert found[-1, -1].item() < 0.01
    assert 8 <= found[:, -1].argmax().item() <= 11


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_schedules_serve_the_shortest_runs(steps):
    for schedule in (one_cycle, cosine, linear, constant):
        assert torch.isfinite(rates(schedule, steps)).all()


def test_linear_ends_at_its_share_and_cosine_at_nothing():
    assert rates(linear, 10)[:, -1].tolist() == pytest.approx([1 - i / 10 for i in range(10)])
    assert rates(cosine, 10)[5, -1].item() == pytest.approx(0.5)
    assert rates(cosine, 100, warmup=0.1)[:, -1].argmax().item() == 10
    assert (rates(constant, 5)[:, -1] == 1).all()


def test_a_cosine_ends_at_a_share_of_each_groups_own_rate():
    cosine_part = (1 + math.cos(math.pi * 10 / 11)) / 2
    wanted = [peak * (0.5 + 0.5 * cosine_part) for peak in (0.1, 0.1, 1.0, 1.0)]  # the encoder's groups come first
    assert rates(cosine, 11, end=0.5)[10].tolist() == pytest.approx(wanted)
    assert torch.equal(rates(cosine, 10, end=0.0), rates(CosineAnnealingLR, 10))


@pytest.mark.parametrize(
    ("part", "target", "wrong"),
    [
        ("scheduler", "schedules.linear", {"end": -0.1}),
        ("scheduler", "schedules.cosine", {"end": 1.5}),
        ("scheduler", "schedules.cosine", {"warmup": 1.5}),
        ("scheduler", "schedules.one_cycle", {"warmup": -1}),
        ("scheduler", "schedules.one_cycle", {"end": 0}),
        ("optimizer", "optimizers.build_optimizer", {"lr": 0}),
        ("optimizer", "optimizers.build_optimizer", {"lr": math.inf}),
        ("optimizer", "optimizers.build_optimizer", {"encoder_lr_scale": math.nan}),
        ("optimizer", "optimizers.build_optimizer", {"weight_decay": -1}),
    ],
)
def test_impossible_values_of_a_config_are_one_line(part, target, wrong):
    with pytest.raises(InputError, match=rf"^{part}\.{next(iter(wrong))}=.*: it is a (number|share)"):
        build({"_target_": f"depthnet.training.{target}", "_partial_": True, **wrong}, part)


def test_an_algorithm_that_knows_no_fused_kernel_is_built_without():
    assert "fused" not in build_optimizer(torch.nn.Linear(2, 2), "RMSprop").defaults
    assert build_optimizer(torch.nn.Linear(2, 2), "AdamW").defaults["fused"] is None
    assert build_optimizer(torch.nn.Linear(2, 2), "AdamW", fused=True).defaults["fused"]
