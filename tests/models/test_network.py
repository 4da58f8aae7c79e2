"""What all depth networks share: the head's range, normalization, and inference on a photograph."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from depthnet.core.images import resize_image
from depthnet.core.types import DepthRange, InputError
from depthnet.models.network import DepthHead, DepthNetwork


class TwoLayers(DepthNetwork):
    """The smallest network there can be."""

    def __init__(self, depth_range=(1e-3, 10.0), image_size=(12, 16), mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3)):
        super().__init__(depth_range, image_size)
        self.set_normalization(mean, std)
        self.encoder = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = DepthHead(4, self.depth_range)
        nn.init.normal_(self.head.projection.weight, std=0.1)

    def features(self, image):
        return self.encoder(image)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return TwoLayers()


def photograph(*size):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["sigmoid", "log"])
@pytest.mark.parametrize(("low", "high", "guess"), [(1e-3, 10.0, 2.7), (0.5, 80.0, 21.97)])
def test_head_stays_inside_its_range_and_starts_inside_a_room(kind, low, high, guess):
    head = DepthHead(4, DepthRange(low, high), kind)
    zero = torch.zeros(1, 4, 3, 4)
    assert head(zero, (5, 7)).flatten().tolist() == pytest.approx([guess] * 35, rel=2e-3)
    nn.init.ones_(head.projection.weight)
    for extreme, end in ((1e4, high), (-1e4, low)):
        depth = head(zero + extreme, (5, 7))
        assert depth.min() >= torch.tensor(low)
        assert depth.max() <= torch.tensor(high)
        assert depth.flatten().tolist() == pytest.approx([end] * 35, rel=1e-6)


def test_head_computes_its_formula():
    head, x = DepthHead(1, DepthRange(0.5, 8.0), "log"), torch.randn(1, 1, 4, 5)
    z = head.projection(x).double()
    assert torch.allclose(head(x, (4, 5)).double(), 0.5 * 16 ** torch.sigmoid(z), rtol=1e-5)
    head.kind = "sigmoid"
    assert torch.allclose(head(x, (4, 5)).double(), 0.5 + 7.5 * torch.sigmoid(z), rtol=1e-5)


def test_head_is_float32_under_autocast():
    head, x = DepthHead(4, DepthRange(1e-3, 10.0)), torch.randn(1, 4, 6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        depth = head(x.bfloat16(), (12, 16))
    assert depth.dtype == torch.float32
    assert torch.equal(depth, head(x.bfloat16().float(), (12, 16)))


def test_normalization_is_the_first_thing_and_not_in_the_state(net):
    image = torch.randint(0, 256, (2, 3, 12, 16), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (net.mean, net.std))
    expected = (image.double() / 255 - mean) / std
    assert torch.allclose(net.normalize(image).double(), expected, atol=1e-5)
    assert torch.equal(net(image), net(image.float()))
    assert not any("offset" in key or "scale" in key for key in net.state_dict())
    seen = []
    net.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net(image)
    assert torch.equal(seen[0], net.normalize(image))


@pytest.mark.parametrize("size", [(12, 16), (33, 45), (120, 150)])
def test_infer_does_what_evaluation_does(net, size):
    image = photograph(*size)
    depth = net.train().infer(image)
    assert net.training, "the mode is given back"
    assert depth.dtype == np.float32
    assert depth.shape == size

    net.eval()
    resized = torch.from_numpy(resize_image(image, (12, 16))).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = F.interpolate(net(resized), size, mode="bilinear", align_corners=True)[0, 0]
    assert np.array_equal(depth, expected.numpy())


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((480, 640), (192, 256)),
        ((440, 640), (192, 256)),
        ((640, 480), (256, 192)),
        ((500, 500), (224, 224)),
        ((9, 16), (160, 288)),
        ((100, 4000), (128, 400)),  # too long to keep its shape
    ],
)
def test_a_photograph_of_another_shape_keeps_it_at_as_many_pixels(size, seen):
    net = TwoLayers(image_size=(192, 256)).eval()
    assert net.size_for(size) == seen
    assert 0.9 < seen[0] * seen[1] / (192 * 256) < 1.1
    shapes = []
    net.encoder.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape[-2:])))
    assert net.infer(photograph(*size)).shape == size
    assert shapes == [seen]


def test_infer_is_finite_whatever_the_network_says(net):
    for value in (math.nan, math.inf, -math.inf):
        nn.init.constant_(net.head.projection.bias, value)
        depth = net.infer(photograph(20, 30))
        assert ((depth >= np.float32(1e-3)) & (depth <= 10)).all()


@pytest.mark.parametrize(
    "image", [photograph(8, 8)[..., 0], photograph(8, 8).astype(np.float32), photograph(8, 8)[..., :2]]
)
def test_infer_refuses_what_is_no_photograph(net, image):
    with pytest.raises(InputError, match="needs uint8 RGB"):
        net.infer(image)


def test_depth_range_comes_in_any_plain_form():
    for form in ((0.1, 5), [0.1, 5], {"min": 0.1, "max": 5}, DepthRange(0.1, 5.0)):
        assert TwoLayers(depth_range=form).depth_range == DepthRange(0.1, 5.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth_range": {"min": 1.0}}, "depth_range: .*needs .min"),
        ({"depth_range": (5.0, 1.0)}, "needs 0 < min < max"),
        ({"image_size": (240,)}, "image_size=.240,.: it is .height,width"),
        ({"image_size": (240, -1)}, "it is .height,width"),
        ({"mean": (0.5,)}, "three of each"),
        ({"std": (0.5, 0.0, 0.5)}, "std above 0"),
    ],
)
def test_impossible_values_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        TwoLayers(**options)


def test_head_may_use_neighbors_and_keeps_the_size():
    head = DepthHead(2, DepthRange(1e-3, 10.0), kernel_size=3)
    x = torch.randn(1, 2, 6, 8)
    z = F.conv2d(x, head.projection.weight, head.projection.bias, padding=1)
    assert torch.allclose(head(x, (6, 8)), 1e-3 + 9.999 * torch.sigmoid(z), rtol=1e-5)


def test_unknown_head_is_refused():
    with pytest.raises(InputError, match="head=linear: choose sigmoid or log"):
        DepthHead(4, DepthRange(1e-3, 10.0), "linear")
