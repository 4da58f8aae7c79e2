import h5py
import numpy as np
import pytest

from depthnet.core.types import InputError
from depthnet.data.layouts.official import TEST_FRAMES
from depthnet.data.layouts.registry import open_root
from depthnet.data.validation.check import cheap_findings


def write(path, rgb=None, depth=None, size=(48, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["rgb"] = np.full((3, *size), len(path.stem), np.uint8) if rgb is None else rgb
        file["depth"] = np.full(size, 2.5, np.float32) if depth is None else depth


@pytest.fixture
def root(tmp_path):
    for recording in ("kitchen_0001a", "kitchen_0001b", "bath_0002", "attic_0003"):
        for number in (1, 2, 10):
            write(tmp_path / f"train/{recording}/{number:05d}.h5")
    for number in sorted(TEST_FRAMES):
        write(tmp_path / f"val/official/{number + 1:05d}.h5", size=(3, 4))
    return tmp_path


def test_train_val_and_the_official_test_frames(root):
    layout = open_root(root)
    assert (layout.name, layout.nyu, layout.ground_truth) == ("h5", True, "filled")
    assert layout.count("train") + layout.count("val") == 12
    scenes = {split: {layout.scene(split, i) for i in range(layout.count(split))} for split in ("train", "val")}
    assert not scenes["train"] & scenes["val"]
    assert layout.count("test") == 654
    assert {int(layout.label("test", i)[-5:]) for i in range(654)} == TEST_FRAMES
    assert not cheap_findings(layout)


def test_a_pair_is_read_and_its_size_known(root):
    layout = open_root(root)
    image, depth = layout.read("train", 0)
    assert (image.shape, image.dtype) == ((48, 64, 3), np.uint8)
    assert (depth.shape, depth.dtype) == ((48, 64), np.float32)
    assert layout.size("train", 0) == (48, 64)
    assert layout.intrinsics("train", 0) is not None


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"rgb": np.zeros((48, 64, 3), np.uint8)}, r"rgb uint8 \(48, 64, 3\), depth .*; needs uint8 \(3, H, W\)"),
        ({"depth": np.zeros((48, 64), np.uint16)}, "needs uint8"),
        (None, "cannot be read as HDF5"),
    ],
)
def test_another_content_is_one_line(root, content, match):
    layout = open_root(root)
    path = layout.files("train", 0)[0]
    if content is None:
        path.write_bytes(b"torn")
    else:
        write(path, **content)
    with pytest.raises(InputError, match=match) as caught:
        layout.read("train", 0)
    assert str(caught.value).startswith(layout.where("train", 0))
    assert caught.value.finding == "unreadable"
