"""The decoder follows the sizes that it is given, and its gates decide what passes."""

import pytest
import torch
from torch import nn

from depthnet.core.types import InputError
from depthnet.models.decoders.unet import UNetDecoder, _PartMeans

CHANNELS = (8, 16, 32, 48)
SIZES = [(29, 39), (13, 18), (6, 8), (2, 3)]  # the ratios of VALID convolutions, not of exact halving


def pyramid(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(CHANNELS, SIZES, strict=True)]


def built(**options):
    torch.manual_seed(0)
    return UNetDecoder(CHANNELS, (24, 20, 16, 12), **options).eval()


@torch.no_grad()
def test_result_has_the_finest_features_measured_size():
    decoder = built()
    assert decoder(pyramid()).shape == (2, 12, *SIZES[0])
    assert decoder.channels == 12


@torch.no_grad()
def test_every_feature_counts():
    decoder, features = built(), pyramid()
    merged = decoder(features)
    for level in range(len(features)):
        changed = list(features)
        changed[level] = features[level] + 1
        assert not torch.allclose(decoder(changed), merged, atol=1e-4), level


@pytest.mark.parametrize("size", [(12, 9), (5, 7), (3, 4), (1, 1)])
@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_means_over_parts_are_torchs(size, parts):
    given = torch.randn(2, 3, *size).to(memory_format=torch.channels_last)
    weight, found = torch.randn(2, 3, parts, parts), []
    for pool in (_PartMeans(parts), nn.AdaptiveAvgPool2d(parts)):
        feature = given.clone().requires_grad_()
        means = pool(feature)
        (means * weight).sum().backward()
        found.append((means, feature.grad))
    torch.testing.assert_close(*found)
    coarse = _PartMeans(parts)(given.bfloat16())
    assert coarse.dtype == torch.bfloat16
    torch.testing.assert_close(coarse.float(), found[0][0], atol=0.02, rtol=0.02)


@torch.no_grad()
def test_context_is_the_whole_image():
    """With pyramid pooling every pixel of the coarsest feature is felt at every other; a convolution reaches one."""
    pooled, local = (UNetDecoder((8, 16), (24, 8), context=context).eval() for context in (True, False))
    fine, coarse = torch.randn(1, 8, 24, 24), torch.randn(1, 16, 12, 12)
    changed = coarse.clone()
    changed[..., 0, 0] += 5
    far = (slice(None), slice(None), -4, -4)
    assert not torch.equal(pooled([fine, coarse])[far], pooled([fine, changed])[far])
    assert torch.equal(local([fine, coarse])[far], local([fine, changed])[far])
    pooled.train()
    assert pooled([fine, coarse]).isfinite().all(), "a batch of one"


@torch.no_grad()
def test_closed_gates_keep_the_skips_out():
    decoder = built()
    for merge in decoder.merges:
        merge.gate.psi.bias.fill_(-200.0)
    one, other = pyramid(0), pyramid(1)
    assert torch.equal(decoder(one), decoder([*other[:-1], one[-1]]))
    assert not torch.equal(decoder(one), decoder([*one[:-1], other[-1]]))


@torch.no_grad()
def test_open_gates_are_the_ungated_decoder():
    gated, plain = built(), built(attention=False)
    plain.load_state_dict({key: value for key, value in gated.state_dict().items() if ".gate." not in key})
    for merge in gated.merges:
        merge.gate.psi.bias.fill_(200.0)
    assert torch.allclose(gated(pyramid()), plain(pyramid()), atol=1e-5)


def test_widths_belong_to_strides_counted_from_the_coarsest():
    decoder = UNetDecoder(CHANNELS, (24, 20, 16, 12, 9))
    assert decoder.channels == 12
    assert decoder.state_dict().keys() == UNetDecoder(CHANNELS, (24, 20, 16, 12)).state_dict().keys()


@pytest.mark.parametrize("widths", [(24, 20, 16), (24, 20, 16, 0), ()])
def test_impossible_widths_are_refused(widths):
    with pytest.raises(InputError, match=r"decoder_widths=.*the encoder has 4 levels"):
        UNetDecoder(CHANNELS, widths)


def test_every_parameter_learns():
    decoder = built().train()
    decoder(pyramid()).square().mean().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_a_batch_is_its_images():
    decoder, features = built(), pyramid()
    with torch.no_grad():
        single = torch.cat([decoder([feature[i : i + 1] for feature in features]) for i in range(2)])
        assert torch.allclose(decoder(features), single, atol=1e-5)
