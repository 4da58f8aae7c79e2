"""The published network: its graph, its count of parameters, its padding, and that it is a network like the others."""

import json

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from depthnet.core.types import InputError
from depthnet.models.checkpoint import RECORD_KEY, fitting_weights, make_record, save_plain
from depthnet.models.depth_net import DepthNet, load_network
from depthnet.models.keras import KerasNet

RANGE = (1e-3, 10.0)
TAPS = ("conv2d_1a", "conv2d_3b", "mixed_6a.branch1.1", "mixed_7a.branch2.1")


def images(*size, count=1):
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = KerasNet(depth_range=RANGE, image_size=(240, 320))
    with torch.no_grad():
        for module in net.decoder.modules():  # as after training: nothing is 0 or 1
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    tensor.copy_(torch.rand_like(tensor) + 0.5)
    return net.to(memory_format=torch.channels_last).eval()


@pytest.fixture(scope="module")
def whole():
    """timm's whole network, with its classifier."""
    torch.manual_seed(1)
    return timm.create_model("inception_resnet_v2").eval()


@pytest.fixture
def weights(whole, tmp_path):
    """Write its weights, or others, to a file with a header; they are large, so none is kept."""
    path = tmp_path / "weights.safetensors"

    def write(tensors=None, **header):
        save_file(tensors or whole.state_dict(), path, metadata=header or None)
        return str(path)

    yield write
    path.unlink(missing_ok=True)


def trainable(module):
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def test_trainable_parameters_are_as_many_as_the_notebook_prints(net):
    gains = sum(m.weight.numel() for m in net.encoder.modules() if isinstance(m, nn.BatchNorm2d))
    assert gains == 18_592, "timm's normalization has them, Keras' has not"
    assert trainable(net.encoder) - gains == 27_797_888
    assert trainable(net.decoder) + trainable(net.head) == 3_322_273
    assert trainable(net) - gains == 31_120_161


def test_the_decoder_begins_as_keras_would(net):
    norms = [m for m in net.decoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [(m.num_features, m.eps, m.momentum) for m in norms[::2]] == [(f, 1e-3, 0.01) for f in (256, 128, 64, 32)]
    for convolution in (m for m in net.decoder.modules() if isinstance(m, nn.Conv2d)):
        limit = (6 / (9 * (convolution.in_channels + convolution.out_channels))) ** 0.5
        assert 0.99 * limit < convolution.weight.max() <= limit
        assert not convolution.bias.any()


@torch.no_grad()
def test_taps_have_their_channels_and_sizes(net):
    taps = net.encoder(net.normalize(images(240, 320)))
    assert [tuple(tap.shape[1:]) for tap in taps] == [
        (3, 240, 320),
        (32, 119, 159),
        (80, 58, 78),
        (256, 27, 37),
        (288, 13, 18),
    ]


@torch.no_grad()
def test_the_decoder_reads_zeros_where_keras_puts_them(net):
    seen = []
    hooks = [block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs)) for block in net.decoder]
    net(images(240, 320))
    for hook in hooks:
        hook.remove()
    taps = net.encoder(net.normalize(images(240, 320)))
    padded = [seen[0][0], *(skip for _, skip in seen)]
    # (top, bottom), (left, right) of their four ZeroPadding2D layers, coarse to fine; the image needs none
    paddings = [((1, 1), (1, 1)), ((2, 1), (2, 1)), ((1, 1), (1, 1)), ((1, 0), (1, 0)), ((0, 0), (0, 0))]
    sizes = [(15, 20), (30, 40), (60, 80), (120, 160), (240, 320)]
    for tap, map_, padding, size in zip(taps[::-1], padded, paddings, sizes, strict=True):
        expected = np.pad(tap.numpy(), ((0, 0), (0, 0), *padding))
        assert map_.shape[-2:] == size
        assert np.array_equal(map_.numpy(), expected)


@pytest.mark.parametrize("size", [(240, 320), (96, 131)])
@torch.no_grad()
def test_depth_is_what_the_layers_give_when_written_out(net, size):
    state = net.state_dict()

    def convolved(x, name):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def normalized(x, name):
        mean, var, gain, bias = (
            state[f"{name}.{key}"].view(1, -1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * gain + bias

    image = images(*size)
    taps = net.encoder(image / 127.5 - 1)
    if size == (240, 320):
        sides = ((0, 0, 0, 0), (1, 0, 1, 0), (1, 1, 1, 1), (2, 1, 2, 1), (1, 1, 1, 1))  # left, right, top, bottom
        taps = [F.pad(tap, padding) for tap, padding in zip(taps, sides, strict=True)]
    x = F.leaky_relu(taps[4], 0.2)
    for level, skip in enumerate((taps[3], taps[2], taps[1], taps[0])):
        x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        x = F.leaky_relu(convolved(x, f"decoder.{level}.up.0"), 0.2)
        x = torch.cat((x, skip), dim=1)
        x = normalized(F.leaky_relu(convolved(x, f"decoder.{level}.merge.0"), 0.2), f"decoder.{level}.merge.2")
        x = normalized(F.leaky_relu(convolved(x, f"decoder.{level}.merge.3"), 0.2), f"decoder.{level}.merge.5")
    depth = 1e-3 + (10 - 1e-3) * torch.sigmoid(convolved(x, "head.projection"))
    assert depth.std() > 0.01
    assert torch.allclose(net(image), depth, atol=1e-4)


@pytest.mark.parametrize("size", [(228, 304), (192, 256), (43, 43), (239, 320)])
@torch.no_grad()
def test_depth_has_the_inputs_size(net, size):
    depth = net(images(*size))
    assert depth.shape == (1, 1, *size)
    assert depth.dtype == torch.float32
    assert ((depth >= 1e-3) & (depth <= 10)).all()


def test_weights_of_a_file_reach_the_taps(whole, weights):
    path = weights(architecture="inception_resnet_v2.tf_in1k", mean="0.1,0.2,0.3", std="0.4,0.5,0.6")
    net = KerasNet(pretrained=path, depth_range=RANGE, image_size=(96, 128))
    assert (net.mean, net.std) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    held = whole.state_dict()
    for key, tensor in net.encoder.net.state_dict().items():
        assert torch.equal(tensor, held[key]), key
    seen = {}
    hooks = [
        whole.get_submodule(name).register_forward_hook(
            lambda m, inputs, output, name=name: seen.update({name: output})
        )
        for name in TAPS
    ]
    image = net.normalize(images(96, 128))
    with torch.no_grad():
        whole(image)
        first, *taps = net.eval().encoder(image)
    for hook in hooks:
        hook.remove()
    assert torch.equal(first, image)
    for name, tap in zip(TAPS, taps, strict=True):
        assert torch.allclose(tap, seen[name], atol=1e-5), name
        assert tap.std() > 1e-3
        assert tap.min() >= 0, "after ReLU"
    assert all(key not in net.encoder.net.state_dict() for key in held if key.startswith(("repeat_2", "block8")))


@pytest.mark.parametrize(
    ("name", "header", "message"),
    [
        ("test_resnet", {"architecture": "test_resnet"}, "holds test_resnet, but model.encoder is inception_resnet_v2"),
        ("test_resnet", {}, "does not fit inception_resnet_v2: .* keys are missing, foreign or of another shape"),
        ("inception_resnet_v2", {"pad_type": "same"}, "is for padded convolutions"),
    ],
)
def test_weights_of_another_network_are_refused(weights, name, header, message):
    other = None if name == "inception_resnet_v2" else timm.create_model(name).state_dict()
    with pytest.raises(InputError, match=message) as error:
        KerasNet(pretrained=weights(other, **header), depth_range=RANGE, image_size=(96, 128))
    assert "\n" not in str(error.value)


def test_one_batch_is_learnt_by_every_parameter():
    torch.manual_seed(0)
    net = KerasNet(depth_range=RANGE, image_size=(48, 64)).to(memory_format=torch.channels_last)
    image, target = images(48, 64, count=2), torch.linspace(1, 6, 64).expand(2, 1, 48, 64)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = (net(image) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        if not losses:
            for name, parameter in net.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name
                assert parameter.grad.any(), name
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_a_checkpoint_gives_it_back(tmp_path):
    torch.manual_seed(0)
    options = {
        "head": "log",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "depth_range": {"min": 0.5, "max": 80.0},
        "image_size": [61, 83],
        "geometry": "stretch",
        "camera": {"focal": 50.0, "size": [61, 83]},
    }
    net = KerasNet(**options)
    assert net.config() == {"encoder": "inception_resnet_v2", "pretrained": False, **options}
    state = {f"network.{name}": value for name, value in net.state_dict().items()}
    save_plain(tmp_path / "a.ckpt", {"state_dict": state, RECORD_KEY: make_record(net)})
    again = load_network(tmp_path / "a.ckpt")
    assert isinstance(again, KerasNet)
    assert json.loads(json.dumps(again.config())) == net.config()
    photograph = images(70, 100)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(net.to(memory_format=torch.channels_last).infer(photograph), again.infer(photograph))


def test_normalizes_as_the_imagenet_weights_expect(net):
    assert net.mean == net.std == [0.5, 0.5, 0.5]


def test_parts_have_their_names(net):
    assert {key.split(".")[0] for key in net.state_dict()} == {"encoder", "decoder", "head"}


def test_the_encoder_of_irv2_attn_fits_into_it(net):
    other = DepthNet("inception_resnet_v2", depth_range=RANGE, image_size=(240, 320)).state_dict()
    fitting = fitting_weights(net, other)
    assert {key for key in net.state_dict() if key.startswith("encoder.")} <= set(fitting)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (42, 320)}, "^data.image_size 42x320: too small for the network"),
        ({"image_size": (240, 42)}, "too small for the network"),
        ({"encoder": "resnet50"}, "^model.encoder=resnet50: the published network has inception_resnet_v2; for others"),
        ({"encoder": "inception_resnet_v2.none"}, "timm has no such network or weights; near: inception_resnet_v2"),
        ({"head": "softmax"}, "head=softmax"),
        ({"std": (0, 1, 1)}, "std above 0"),
    ],
)
def test_impossible_values_are_refused(options, message):
    with pytest.raises(InputError, match=message) as error:
        KerasNet(**({"depth_range": RANGE, "image_size": (240, 320)} | options))
    assert "\n" not in str(error.value)


def test_a_long_photograph_is_not_made_too_small():
    net = KerasNet(depth_range=(1e-3, 10.0), image_size=(48, 64)).eval()
    assert net.size_for((64, 200)) == (48, 64)
    assert net.infer(np.zeros((64, 200, 3), np.uint8)).shape == (64, 200)
