import albumentations as A
import numpy as np
import pytest

from depthnet.data.transforms import Augment
from depthnet.types import InputError


def coordinates(height=24, width=32):
    """An image whose colours say where a pixel was, and a depth that says the same."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 8, columns * 7, np.zeros_like(rows)], axis=2).astype(np.uint8)
    return image, (1 + rows + 100 * columns).astype(np.float32)


def test_image_and_depth_move_together_for_many_seeds():
    augment = Augment([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.RandomCrop(16, 16, p=0.5)])
    image, depth = coordinates()
    seen = set()
    for seed in range(200):
        moved, depths = augment(image, depth, seed)
        rows, columns = moved[..., 0] // 8, moved[..., 1] // 7
        assert (depths == 1 + rows + 100 * columns.astype(np.float32)).all()
        seen.add(depths.tobytes())
    assert len(seen) > 10


def test_a_seed_gives_the_same_whatever_came_before():
    augment = Augment([A.HorizontalFlip(p=0.5), A.ColorJitter(p=1.0), A.RandomGamma(p=0.5)])
    image, depth = coordinates()
    first = [augment(image, depth, seed)[0].tobytes() for seed in range(20)]
    backwards = [augment(image, depth, seed)[0].tobytes() for seed in reversed(range(20))][::-1]
    assert first == backwards
    assert len(set(first)) > 10


def test_colour_leaves_depth_alone():
    augment = Augment([A.ColorJitter(brightness=(0.5, 0.6), p=1.0)])
    image, depth = coordinates()
    changed, same = augment(image, depth, 3)
    assert (same == depth).all()
    assert changed.mean() < image.mean()


def test_where_a_rotation_leaves_the_picture_depth_is_missing():
    augment = Augment([A.Rotate(limit=(30, 30), p=1.0)])
    image, depth = coordinates()
    turned = augment(image, depth, 0)[1]
    assert (turned == 0).any()
    assert np.isin(turned[turned > 0], depth).all()


def test_none_is_the_identity():
    image, depth = coordinates()
    assert Augment()(image, depth, 5)[0] is image


def test_what_is_no_transform_is_refused():
    with pytest.raises(InputError, match="no albumentations transform"):
        Augment([print])
