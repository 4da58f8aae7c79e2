import albumentations as A
import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from depthnet.core.types import DepthRange, Sample
from depthnet.data.dataset import DepthDataset
from depthnet.data.layouts.registry import open_root
from depthnet.data.transforms import Augment


@pytest.fixture
def layout(make_lists):
    return open_root(make_lists(holes=True), depth_range=DepthRange(0.5, 5.0))


def test_training_samples_have_one_size_and_collate_to_a_sample(layout):
    dataset = DepthDataset(layout, "train", (24, 40), Augment())
    batch = default_collate([dataset[0], dataset[(3, 1)]])
    assert isinstance(batch, Sample)
    assert (batch.image.shape, batch.image.dtype) == ((2, 3, 24, 40), torch.uint8)
    assert batch.depth.shape == batch.mask.shape == (2, 1, 24, 40)
    assert (batch.depth.dtype, batch.mask.dtype) == (torch.float32, torch.bool)
    assert batch.frame.tolist() == [0, 1]


def test_the_mask_is_what_the_sensor_saw_inside_the_range(layout):
    sample = DepthDataset(layout, "train", (48, 64), Augment())[0]
    assert not sample.mask[:, :6].any()
    assert (sample.mask == ((sample.depth > 0.5) & (sample.depth < 5))).all()
    assert sample.mask.any()


def test_evaluation_never_touches_the_truth(layout):
    sample = DepthDataset(layout, "val", (24, 40))[2]
    assert sample.image.shape == (3, 24, 40)
    assert (sample.depth[0].numpy() == layout.read("val", 2)[1]).all()


def test_augmentation_is_a_function_of_seed_epoch_and_frame(layout):
    def first(seed, epoch, frame):
        augment = Augment([A.ColorJitter(brightness=(0.2, 1.8), p=1.0)])
        return DepthDataset(layout, "train", (48, 64), augment, seed)[(epoch, frame)].image.numpy().tobytes()

    assert first(0, 0, 0) == first(0, 0, 0)
    assert len({first(seed, epoch, 0) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_training_depth_is_only_picked(layout):
    sample = DepthDataset(layout, "train", (17, 23), Augment([A.HorizontalFlip(p=0.5)]))[(1, 1)]
    assert np.isin(sample.depth.numpy(), layout.read("train", 1)[1]).all()
