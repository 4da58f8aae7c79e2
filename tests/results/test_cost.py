import sys
from pathlib import Path

import pytest
import torch

from depthnet.models.basic import BasicNet
from depthnet.models.depth_net import DepthNet

sys.path.append(str(Path(__file__).resolve().parents[2] / "results"))
from cost import measure_cost


def test_a_network_and_its_encoder_are_timed_in_turn_on_one_core(monkeypatch):
    network = DepthNet("test_resnet", depth_range=(1e-3, 10.0), image_size=(48, 64)).eval()
    calls = []
    for name, part in (("network", network), ("encoder", network.encoder)):
        part.register_forward_pre_hook(lambda *_, name=name: calls.append((name, torch.get_num_threads())))
    torch.set_num_threads(2)
    try:
        cost = measure_cost(network, rounds=3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    turn = [("network", 1), ("encoder", 1), ("encoder", 1)]
    assert calls[2:] == turn * 5  # the first two calls count operations, and two turns warm up
    assert cost.encoder_ms > 0
    assert cost.ms > 0
    assert cost.parameters == sum(p.numel() for p in network.parameters())


def test_gmacs_are_those_of_one_image_at_the_networks_size():
    costs = {
        size: measure_cost(BasicNet((1e-3, 10.0), image_size=size, widths=(4, 8)).eval(), rounds=1)
        for size in ((16, 16), (32, 32))
    }
    assert costs[32, 32].gmacs == pytest.approx(4 * costs[16, 16].gmacs)
    levels = 256 * (3 * 4 + 4 * 4) + 64 * (4 * 8 + 8 * 8) + 256 * (8 * 4 + 4 * 4)
    assert costs[16, 16].gmacs == pytest.approx((9 * levels + 256 * 4) / 1e9)
    assert costs[16, 16].encoder_ms is None
