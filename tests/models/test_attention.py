"""The gate computes the paper's formula, for any pair of sizes."""

import numpy as np
import pytest
import torch

from depthnet.models.attention import AttentionGate


@torch.no_grad()
def test_matches_the_formula_where_no_resampling_is_needed():
    torch.manual_seed(0)
    gate = AttentionGate(skip_channels=6, gate_channels=10)
    torch.nn.init.normal_(gate.psi.weight)
    skip, signal = torch.randn(2, 6, 5, 7), torch.randn(2, 10, 5, 7)
    weighed, alpha = gate(skip, signal)

    w_x, w_g, psi = (
        layer.weight[:, :, 0, 0].double().numpy() for layer in (gate.skip_projection, gate.gate_projection, gate.psi)
    )
    both = np.einsum("oc,bchw->bohw", w_x, skip.numpy()) + np.einsum("oc,bchw->bohw", w_g, signal.numpy())
    both = np.maximum(both + gate.gate_projection.bias.numpy()[:, None, None], 0)
    expected = 1 / (1 + np.exp(-np.einsum("oc,bchw->bohw", psi, both) - gate.psi.bias.numpy()))
    assert np.allclose(alpha.numpy(), expected, atol=1e-6)
    assert np.allclose(weighed.numpy(), skip.numpy() * expected, atol=1e-6)


@pytest.mark.parametrize(
    ("skip", "gate"), [((117, 157), (56, 76)), ((13, 18), (6, 8)), ((7, 5), (7, 5)), ((3, 4), (6, 8))]
)
def test_takes_any_pair_of_sizes_and_computes_at_the_gates(skip, gate):
    layer = AttentionGate(4, 6)
    seen = []
    layer.psi.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[-2:]))
    features = torch.randn(2, 4, *skip, requires_grad=True)
    signal = torch.randn(2, 6, *gate, requires_grad=True)
    weighed, alpha = layer(features, signal)
    assert weighed.shape == features.shape
    assert alpha.shape == (2, 1, *skip)
    assert seen == [gate]
    assert (alpha >= 0).all()
    assert (alpha <= 1).all()
    weighed.square().mean().backward()
    for tensor in (features, signal, *layer.parameters()):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


def test_lets_nearly_everything_through_before_training():
    torch.manual_seed(0)
    _, alpha = AttentionGate(64, 96)(torch.randn(1, 64, 20, 30), torch.randn(1, 96, 10, 15))
    assert alpha.min() > 0.85
    assert alpha.max() < 1


def test_it_computes_with_half_of_the_skips_channels():
    assert AttentionGate(64, 96).psi.in_channels == 32
    assert AttentionGate(1, 96).psi.in_channels == 1
