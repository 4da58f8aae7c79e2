"""One contract for every decoder: any sizes, the finest one's result, every feature and parameter counts."""

import pytest
import torch

from depthnet.core.types import InputError
from depthnet.models.decoders.decoder import Decoder
from depthnet.models.decoders.registry import DECODERS, build_decoder
from depthnet.models.depth_net import DepthNet, build_network

CHANNELS = (8, 16, 32, 48)
SIZES = [(29, 39), (13, 18), (6, 8), (2, 3)]  # the ratios of VALID convolutions, not of exact halving


class Plain(Decoder):
    """The least that a decoder can be, without gates."""

    def __init__(self, encoder_channels, widths):
        super().__init__()
        self.channels = widths[-1]
        self.project = torch.nn.Conv2d(encoder_channels[0], self.channels, 1)

    def forward(self, features):
        return self.project(features[0])


def pyramid():
    return [torch.randn(2, c, *size) for c, size in zip(CHANNELS, SIZES, strict=True)]


@pytest.mark.parametrize("name", DECODERS)
def test_contract(name):
    torch.manual_seed(0)
    decoder, _ = build_decoder(name, CHANNELS, (24, 20, 16, 12), None, False)
    features = pyramid()
    merged = decoder(features)
    assert merged.shape == (2, decoder.channels, *SIZES[0])
    merged.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in decoder.parameters())
    decoder.eval()
    with torch.no_grad():
        merged = decoder(features)
        assert torch.equal(decoder(features), merged)
        for level in range(len(features)):
            changed = [feature + (place == level) for place, feature in enumerate(features)]
            assert not torch.allclose(decoder(changed), merged, atol=1e-4), level


def test_a_decoder_is_chosen_recorded_and_rebuilt(monkeypatch):
    monkeypatch.setitem(DECODERS, "plain", Plain)
    options = {"depth_range": (1e-3, 10.0), "image_size": (48, 64), "decoder_widths": (8,) * 5}
    net = DepthNet("test_resnet", **options, decoder="plain")
    assert (net.config()["decoder"], net.config()["attention"]) == ("plain", False)
    again = build_network("DepthNet", net.config())
    assert again.state_dict().keys() == net.state_dict().keys()
    assert "decoder" not in DepthNet("test_resnet", **options).config(), "as in records that know of one decoder"
    with pytest.raises(InputError, match=r"model\.attention=true: the plain decoder has none; set it to false"):
        DepthNet("test_resnet", **options, decoder="plain", attention=True)
    with pytest.raises(InputError, match=r"model\.decoder=fpm: it is one of unet, .*plain"):
        DepthNet("test_resnet", **options, decoder="fpm")
