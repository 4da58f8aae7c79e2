"""The real network learns: Inception-ResNet-v2 with gates fits four real NYU pairs, in eval mode too."""

import pytest
import torch

from depthnet.core.types import DepthRange
from depthnet.data.dataset import DepthDataset
from depthnet.data.layouts.registry import open_root
from depthnet.data.transforms import Augment
from depthnet.evaluation.metrics import depth_metrics
from depthnet.models.depth_net import DepthNet
from depthnet.training.losses import DepthLoss
from depthnet.training.optimizers import build_optimizer


@pytest.mark.slow
def test_irv2_attn_overfits_four_real_pairs(real_nyu):
    torch.manual_seed(0)
    depth_range = DepthRange(1e-3, 10.0)
    dataset = DepthDataset(open_root(real_nyu), "train", (120, 160), Augment())
    samples = [dataset[frame] for frame in (0, 200, 400, 600)]
    image, depth, mask = (torch.stack([sample[part] for sample in samples]) for part in range(3))
    network = DepthNet(depth_range=depth_range, image_size=(120, 160)).to(memory_format=torch.channels_last)
    loss = DepthLoss({"silog": 1.0, "log_l1": 1.0}, depth_range)
    optimizer = build_optimizer(network, lr=1e-3)
    found = 0.0
    for step in range(1, 151):
        network.train()
        total, _ = loss(network(image), depth, mask)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if step >= 45 and step % 15 == 0:
            with torch.no_grad():
                found = depth_metrics(network.eval()(image), depth, mask)["delta1"].mean().item()
            if found > 0.95:
                break
    assert found > 0.95
