import pytest
import torch
from torch import nn

from depthnet.core.types import DepthRange
from depthnet.models.depth_net import DepthNet
from depthnet.training.sync_norm import SyncNorm


@pytest.mark.parametrize("encoder", ["test_efficientnet", "test_resnet"])
def test_a_network_computes_what_it_did_before(encoder):
    torch.manual_seed(0)
    network = DepthNet(encoder, depth_range=DepthRange(1e-3, 10.0), image_size=(64, 64), pretrained=False).eval()
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        before, names = network(image), list(network.state_dict())
        synchronised = SyncNorm().apply(network)
        assert torch.equal(synchronised(image), before)
        assert torch.equal(SyncNorm().revert(synchronised)(image), before)
    assert list(synchronised.state_dict()) == names
    norms = [part for part in synchronised.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)


@pytest.mark.parametrize("wanted", ["true", "false"])
def test_it_is_what_sync_batchnorm_asks_for(train, monkeypatch, wanted):
    applied = []
    monkeypatch.setattr(SyncNorm, "apply", lambda self, model: applied.append(model) or model)
    small = ["data=rooms", "data.frames={train: 2, val: 1, test: 0}", "data.image_size=[32,48]", "data.num_workers=0"]
    fast = ["model=tiny", "logger=none", "trainer.max_epochs=1", "data.batch_size=1"]
    one = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.devices=1"]
    done = train(*small, *fast, *one, f"trainer.sync_batchnorm={wanted}")
    assert done.code == 0, done.err
    assert bool(applied) == (wanted == "true")
