"""Every encoder makes a network that gives meters for any image, learns everywhere and is rebuilt bit for bit."""

import json

import numpy as np
import pytest
import torch

from depthnet.core.types import DepthRange, InputError
from depthnet.models.depth_net import NETWORKS, DepthNet, build_network

CONTRACT = [  # encoder, image size
    ("resnet50", (97, 131)),
    ("convnext_tiny", (97, 131)),
    ("mobilenetv2_100", (241, 323)),
    ("swinv2_tiny_window8_256", (97, 131)),
    ("inception_resnet_v2", (241, 323)),
    ("test_resnet", (241, 323)),
]
TINY = {
    "encoder": "test_resnet",
    "decoder_widths": (16, 12, 8, 8, 8),
    "depth_range": (1e-3, 10.0),
    "image_size": (48, 64),
}


def images(*size, count=2):
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("encoder", "size"), CONTRACT)
def test_contract(encoder, size):
    torch.manual_seed(0)
    net = DepthNet(encoder, depth_range=(1e-3, 10.0), image_size=(96, 128)).to(memory_format=torch.channels_last)
    depth = net(images(*size))
    assert depth.shape == (2, 1, *size)
    assert depth.dtype == torch.float32
    assert ((depth >= 1e-3) & (depth <= 10)).all()
    assert 2 < depth.mean() < 4, "an untrained network says a plausible constant"

    depth.mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name

    again = build_network("DepthNet", json.loads(json.dumps(net.config())))
    assert again.config() == net.config()
    again.load_state_dict(net.state_dict())
    with torch.no_grad():
        image = images(97, 131, count=1)
        assert torch.equal(net.eval()(image), again.to(memory_format=torch.channels_last).eval()(image))


def test_defaults_give_the_main_network():
    net = DepthNet(depth_range=DepthRange(1e-3, 10.0), image_size=[240, 320])
    assert net.encoder.name == "inception_resnet_v2"
    assert net.mean == net.std == [0.5, 0.5, 0.5]
    sizes = []
    for merge in net.decoder.merges:
        merge.gate.register_forward_hook(lambda module, inputs, output: sizes.insert(0, tuple(output[1].shape[-2:])))
    with torch.no_grad():
        net.eval()(images(240, 320, count=1))
    assert sizes == [(117, 157), (56, 76), (27, 37), (13, 18)]


@torch.no_grad()
def test_every_option_survives_the_record():
    options = {
        "encoder_pad": "same",
        "attention": False,
        "context": True,
        "frozen_norm": True,
        "head": "log",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "depth_range": {"min": 0.5, "max": 80.0},
        "image_size": [61, 83],
        "decoder_widths": [16, 12, 8, 8, 8],
    }
    net = DepthNet(**(TINY | options))
    options |= {"geometry": "stretch", "camera": {"focal": 50.0, "size": [61, 83]}}
    net = DepthNet(**(TINY | options))
    assert net.config() == {"encoder": "test_resnet", "pretrained": False, **options}
    again = DepthNet(**json.loads(json.dumps(net.config())))
    again.load_state_dict(net.state_dict())
    photograph = np.random.default_rng(0).integers(0, 256, (70, 100, 3), dtype=np.uint8)
    assert np.array_equal(net.infer(photograph), again.infer(photograph))
    assert net.infer(photograph).shape == (70, 100)


def test_frozen_statistics_stay_and_the_rest_learns():
    for frozen in (True, False):
        torch.manual_seed(0)
        net = DepthNet(**TINY, frozen_norm=frozen)  # as Lightning trains it, which calls no train()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        net(images(48, 64)).log().mean().backward()
        optimizer.step()
        changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
        assert any(name.startswith("decoder.") and name.endswith("running_mean") for name in changed)
        assert any(name.startswith("encoder.") and name.endswith("running_mean") for name in changed) is not frozen
        assert all(parameter.grad is not None for parameter in net.parameters())
        modes = [module.training for module in net.modules()]
        assert [module.training for module in net.eval().train().modules()] == modes


def test_one_batch_can_be_learnt():
    torch.manual_seed(0)
    net = DepthNet(**TINY)
    image = images(48, 64)
    target = torch.linspace(1, 6, 64).expand(2, 1, 48, 64)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = (net(image) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_parts_have_their_names():
    net = DepthNet(**TINY)
    assert {key.split(".")[0] for key in net.state_dict()} == {"encoder", "decoder", "head"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_widths": (16, 8)}, "decoder_widths=.16, 8.: the encoder has 5 levels"),
        ({"head": "softmax"}, "head=softmax"),
        ({"encoder": "test_resnett"}, "no such network or weights; near: test_resnet"),
        ({"image_size": (30, 64)}, "image_size 30x64: too small for the network"),
        ({"image_size": (64,)}, "it is .height,width"),
        ({"encoder_pad": "full"}, "encoder_pad=full"),
        ({"depth_range": (1.0, 1.0)}, "needs 0 < min < max"),
        ({"std": (0, 1, 1)}, "std above 0"),
    ],
)
def test_impossible_values_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        DepthNet(**(TINY | options))


def test_only_our_networks_are_built():
    assert set(NETWORKS) == {"DepthNet", "BasicNet", "KerasNet"}
    with pytest.raises(InputError, match=r"'os.system' is none of ours; known: DepthNet, BasicNet, KerasNet"):
        build_network("os.system", {})
    with pytest.raises(InputError, match=r"BasicNet cannot be built from these arguments: .*evil"):
        build_network("BasicNet", {"evil": 1})


def test_a_long_photograph_is_not_made_too_small_for_the_encoder():
    net = DepthNet(
        "inception_resnet_v2", decoder_widths=(8,) * 5, depth_range=(1e-3, 10.0), image_size=(76, 102)
    ).eval()
    assert net.size_for((60, 200)) == (76, 102), "(48, 160) is too small"
    assert net.size_for((300, 320)) == (80, 96)
    assert net.infer(np.zeros((60, 200, 3), np.uint8)).shape == (60, 200)
