import functools

import pytest
import torch
from lightning import Trainer
from omegaconf import OmegaConf
from torch import nn

from depthnet.batch_size import find_batch_size, settle_batch_size
from depthnet.losses import DepthLoss
from depthnet.module import DepthModule
from depthnet.optim import build_optimizer, constant
from depthnet.types import DepthRange, InputError


class Hungry(nn.Module):
    """Runs out of memory, as CUDA says it, at more images than it has room for."""

    def __init__(self, room):
        super().__init__()
        self.room = room
        self.scale = nn.Parameter(torch.ones(()))

    def config(self):
        return {}

    def forward(self, image):
        if len(image) > self.room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.scale * image[:, :1].float() + 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("room", "found"), [(37, 32), (10_000, 1024)])
def test_the_largest_power_of_two_that_fits_is_found(tmp_path, room, found):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, default_root_dir=tmp_path, **quiet)
    loss = DepthLoss({"l1": 1.0}, DepthRange(1e-3, 10.0))
    module = DepthModule(Hungry(room), loss, functools.partial(build_optimizer, lr=1e-3), constant, [])
    assert find_batch_size(trainer, module, (2, 3)) == found
    assert not list(tmp_path.iterdir())


def test_a_number_stays_and_a_cpu_has_no_auto():
    config = OmegaConf.create({"data": {"batch_size": 4}})
    settle_batch_size(config)
    assert config.data.batch_size == 4
    config.data.batch_size = "auto"
    config.trainer = {"_target_": "lightning.Trainer", "accelerator": "cpu"}
    with pytest.raises(InputError, match=r"data\.batch_size=auto: it asks a GPU"):
        settle_batch_size(config)
