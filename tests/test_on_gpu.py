"""What a GPU would refuse, asked without one: networks and losses on tensors that only claim to lie there."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from depthnet.core.types import DepthRange
from depthnet.models.basic import BasicNet
from depthnet.models.depth_net import DepthNet
from depthnet.models.keras import KerasNet
from depthnet.training.losses import TERMS, DepthLoss

RANGE = DepthRange(1e-3, 10.0)
SIZE = (64, 96)
NETWORKS = {
    "unet_attn": lambda: DepthNet("test_resnet", depth_range=RANGE, image_size=SIZE, context=True, encoder_pad="same"),
    "irv2_attn": lambda: DepthNet("inception_resnet_v2", depth_range=RANGE, image_size=(96, 128)),
    "irv2_keras": lambda: KerasNet(depth_range=RANGE, image_size=(240, 320)),
    "basic": lambda: BasicNet(depth_range=RANGE, image_size=SIZE),
}
REFUSED = ("AdaptiveAvgPool", "AdaptiveMaxPool", "ReflectionPad", "Upsample", "GridSampler", "NllLoss2D", "Kthvalue")
"""Gradients that differ from time to time, by ``torch.use_deterministic_algorithms``."""


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def gradients(output):
    """The names of all that a backward pass would call."""
    known, names, left = set(), set(), [output.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in known:
            known.add(node)
            names.add(node.name())
            left += [earlier for earlier, _ in node.next_functions]
    return {name for name in names if name.startswith(REFUSED)}


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_and_losses_stay_on_the_gpu_and_train_to_the_same_bits(deterministic, name):
    with FakeTensorMode(), torch.device("cuda"):
        network = NETWORKS[name]()
        image = torch.zeros(2, 3, *network.image_size, dtype=torch.uint8)
        depth = torch.ones(2, 1, *network.image_size)
        loss, parts = DepthLoss(dict.fromkeys(TERMS, 1.0), RANGE)(network(image), depth, depth > 0)
        assert loss.device.type == "cuda"
        assert parts.keys() == set(TERMS)
        assert not gradients(loss)


def test_a_gradient_that_differs_from_time_to_time_is_seen(deterministic):
    with FakeTensorMode(), torch.device("cuda"):
        feature = torch.ones(1, 2, 8, 8, requires_grad=True)
        assert gradients(nn.AdaptiveAvgPool2d(3)(feature)) == {"AdaptiveAvgPool2DBackward0"}
        assert gradients(nn.functional.pad(feature, (1, 1, 1, 1), mode="reflect")) == {"ReflectionPad2DBackward0"}
        with pytest.raises(RuntimeError, match="device"):
            feature + torch.ones(1, 2, 8, 8, device="cpu")
