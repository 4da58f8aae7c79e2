import functools

import pytest
import torch
from lightning import Trainer
from omegaconf import OmegaConf
from torch import nn

from depthnet.core.types import DepthRange, InputError
from depthnet.training.batch_size import find_batch_size, resolve_batch_size
from depthnet.training.losses import DepthLoss
from depthnet.training.module import DepthModule
from depthnet.training.optimizers import build_optimizer
from depthnet.training.schedules import constant


class Hungry(nn.Module):
    """Runs out of memory, as CUDA says it, at more images than it has room for."""

    def __init__(self, room, words="CUDA out of memory. Tried to allocate 2.00 GiB."):
        super().__init__()
        self.room, self.words = room, words
        self.scale = nn.Parameter(torch.ones(()))

    def config(self):
        return {}

    def forward(self, image):
        if len(image) > self.room:
            raise RuntimeError(self.words)
        return self.scale * image[:, :1].float() + 1


def search(hungry, folder):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, default_root_dir=folder, **quiet)
    loss = DepthLoss({"l1": 1.0}, DepthRange(1e-3, 10.0))
    module = DepthModule(hungry, loss, functools.partial(build_optimizer, lr=1e-3), constant, [])
    return find_batch_size(trainer, module, (2, 3))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("hungry", "found"),
    [
        (Hungry(37), 32),
        (Hungry(1), 1),
        (Hungry(10_000), 1024),
        (Hungry(37, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), 32),
        (Hungry(37, "GET was unable to find an engine to execute this computation"), 32),
    ],
)
def test_the_largest_power_of_two_that_fits_is_found(tmp_path, hungry, found):
    assert search(hungry, tmp_path) == found
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_where_no_image_fits_a_line_says_so_and_another_fault_is_told(tmp_path):
    with pytest.raises(InputError, match=r"data\.batch_size=auto: not one image fits"):
        search(Hungry(0), tmp_path)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        search(Hungry(0, "shapes do not match"), tmp_path)


@pytest.mark.filterwarnings("ignore:The `srun` command")
def test_a_number_stays_and_a_cpu_has_no_auto():
    config = OmegaConf.create({"mode": "fit", "data": {"batch_size": 4}})
    resolve_batch_size(config)
    assert config.data.batch_size == 4
    config.data.batch_size = "auto"
    config.trainer = {"_target_": "lightning.Trainer", "accelerator": "cpu"}
    with pytest.raises(InputError, match=r"data\.batch_size=auto: it asks a GPU"):
        resolve_batch_size(config)


def test_a_test_needs_no_batch_to_learn_from():
    config = OmegaConf.create({"mode": "test", "data": {"batch_size": "auto"}})
    resolve_batch_size(config)
    assert config.data.batch_size == 1
