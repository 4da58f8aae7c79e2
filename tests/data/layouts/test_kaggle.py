import numpy as np
import pytest
from PIL import Image

from depthnet.core.types import InputError
from depthnet.data.layouts.registry import open_root


@pytest.mark.parametrize("inside", [False, True])
def test_train_is_8_bit_and_test_16_bit_in_one_unit(make_kaggle, inside):
    root = make_kaggle(scenes=4, frames=3, test=2)
    layout = open_root(root / "data" if inside else root)
    assert layout.count("train") + layout.count("val") == 12
    assert layout.count("test") == 2
    for split, frame in (("train", 0), ("val", 0), ("test", 1)):
        image, depth = layout.read(split, frame)
        assert image.shape == (48, 64, 3)
        assert 0.9 < depth.min() < depth.max() < 6.1
    stored = np.asarray(Image.open(root / "data/nyu2_test/00001_depth.png"))
    assert np.allclose(layout.read("test", 1)[1], stored / 1000, atol=1e-6)


def test_a_level_is_ten_metres_by_255(make_kaggle):
    root = make_kaggle()
    layout = open_root(root)
    label = layout.label("train", 1)
    levels = np.asarray(Image.open(root / f"data/{label}.png"))
    levels = levels if levels.ndim == 2 else levels[..., 0]
    assert np.allclose(layout.read("train", 1)[1], levels * (10 / 255), atol=1e-5)


def test_val_is_whole_scenes_of_the_training_list(make_kaggle):
    layout = open_root(make_kaggle(scenes=5))
    scenes = {split: {layout.scene(split, i) for i in range(layout.count(split))} for split in ("train", "val")}
    assert scenes["val"]
    assert not scenes["train"] & scenes["val"]
    assert all(name.startswith("living_room_") and not name.endswith("_out") for name in scenes["train"])


def test_another_bit_depth_than_the_first_files_is_refused(make_kaggle):
    root = make_kaggle()
    layout = open_root(root)
    Image.fromarray(np.full((48, 64), 2500, np.uint16)).save(root / f"data/{layout.label('train', 0)}.png")
    layout = open_root(root)  # most files tell the bits, not the first one
    with pytest.raises(InputError, match=r"nyu2_train.csv:\d+: .*16-bit depth where 8-bit") as caught:
        layout.read("train", 0)
    assert caught.value.finding == "bit_depth"
    assert layout.read("train", 1)[1].max() < 10


def test_16_bit_training_depth_is_millimetres(make_kaggle):
    root = make_kaggle()
    for path in (root / "data/nyu2_train").rglob("*.png"):
        Image.fromarray(np.full((48, 64), 2500, np.uint16)).save(path)
    layout = open_root(root)
    assert np.allclose(layout.read("train", 0)[1], 2.5)
    assert layout.notes == []
