"""The published authors' first network, and that it has no skips."""

import json

import pytest
import torch
from torch import nn

from depthnet.core.types import InputError
from depthnet.models.basic import BasicNet

RANGE = (1e-3, 10.0)


def test_layers_are_as_published():
    net = BasicNet(RANGE, (240, 320))
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m is not net.head.projection]
    assert [m.out_channels for m in convolutions[::2]] == [32, 64, 128, 256, 512, 256, 128, 64, 32]
    assert all(m.kernel_size == (3, 3) for m in convolutions)
    assert len(convolutions) == 18
    activations = [m for m in net.modules() if isinstance(m, nn.LeakyReLU)]
    assert len(activations) == 18
    assert {m.negative_slope for m in activations} == {0.2}
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == 18


def test_depth_is_in_range_at_the_inputs_size_and_everything_learns():
    net = BasicNet(RANGE, (48, 64), widths=(8, 12, 16, 20))
    depth = net(torch.randint(0, 256, (2, 3, 49, 67), dtype=torch.uint8))
    assert depth.shape == (2, 1, 49, 67)
    assert depth.dtype == torch.float32
    assert ((depth >= 1e-3) & (depth <= 10)).all()
    depth.square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@torch.no_grad()
def test_has_no_skips():
    net = BasicNet(RANGE, (32, 32), widths=(4, 8, 16)).eval()
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert not torch.equal(*net(image))
    net.encoder[-1].register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    assert torch.equal(*net(image)), "nothing but the coarsest level reaches the decoder"


@torch.no_grad()
def test_config_round_trip_is_bit_equal():
    torch.manual_seed(0)
    net = BasicNet({"min": 0.5, "max": 8.0}, [30, 41], widths=[4, 8], head="log", mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    again = BasicNet(**json.loads(json.dumps(net.config())))
    again.load_state_dict(net.state_dict())
    image = torch.randint(0, 256, (1, 3, 30, 41), dtype=torch.uint8)
    assert torch.equal(net.eval()(image), again.eval()(image))
    assert again.config() == net.config()


def test_impossible_values_are_refused():
    with pytest.raises(InputError, match="image_size 15x320: too small"):
        BasicNet(RANGE, (15, 320))
    with pytest.raises(InputError, match=r"widths=\[8, 0\]"):
        BasicNet(RANGE, (32, 32), widths=(8, 0))
