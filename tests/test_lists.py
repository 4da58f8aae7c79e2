import numpy as np
import pytest
from PIL import Image

from depthnet.data.lists import ListsLayout
from depthnet.types import InputError

TRAIN = "nyudepthv2_train_files_with_gt.txt"


def test_pairs_come_in_the_lists_order_and_in_metres(make_lists):
    root = make_lists(train=4, val=2, test=1)
    layout = ListsLayout(root)
    assert [layout.count(split) for split in ("train", "val", "test")] == [4, 2, 1]
    image, depth = layout.read("train", 3)
    assert (image == np.asarray(Image.open(root / "train/rgb_00003.jpg"))).all()
    assert np.allclose(depth, np.asarray(Image.open(root / "train/sync_depth_00003.png")) / 1000, atol=1e-6)
    assert layout.size("train", 3) == (48, 64)
    assert layout.label("train", 3) == "train/rgb_00003"
    assert layout.where("train", 3) == f"{TRAIN}:4"


def test_a_leading_slash_means_the_root_and_rows_without_depth_are_left_out(make_lists):
    root = make_lists(train=3)
    rows = (root / TRAIN).read_text().splitlines()
    (root / TRAIN).write_text(
        "\n".join([f"/{rows[0].replace(' train', ' /train')}", "train/x.jpg None 518.9", rows[2]])
    )
    layout = ListsLayout(root)
    assert layout.count("train") == 2
    assert layout.read("train", 0)[0].shape == (48, 64, 3)
    assert layout.where("train", 1) == f"{TRAIN}:3"


def test_missing_files_are_told_with_row_and_number(make_lists):
    root = make_lists()
    (root / "train/rgb_00001.jpg").unlink()
    (root / "train/sync_depth_00004.png").unlink()
    with pytest.raises(InputError, match=rf"{TRAIN}:2: train/rgb_00001.jpg is missing, and 1 more"):
        ListsLayout(root)


def test_a_path_out_of_the_root_is_refused(make_lists):
    root = make_lists()
    (root / TRAIN).write_text("../../etc/passwd train/sync_depth_00000.png 1\n")
    with pytest.raises(InputError, match="leaves the data root"):
        ListsLayout(root)


def test_without_a_val_list_whole_runs_are_held_out(make_lists):
    root = make_lists(train=6, val=3)
    val = root / "nyudepthv2_val_files_with_gt.txt"
    (root / TRAIN).write_text((root / TRAIN).read_text() + val.read_text())
    val.unlink()
    layout = ListsLayout(root)
    assert layout.count("train") + layout.count("val") == 9
    scenes = {split: {layout.scene(split, i) for i in range(layout.count(split))} for split in ("train", "val")}
    assert scenes["val"]
    assert not scenes["train"] & scenes["val"]


def test_an_unreadable_file_is_told_with_its_row(make_lists):
    root = make_lists()
    (root / "train/rgb_00001.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=rf"{TRAIN}:2: .*rgb_00001.jpg: the file is empty"):
        ListsLayout(root).read("train", 1)


def test_the_real_pairs_are_what_their_readme_says(real_nyu):
    layout = ListsLayout(real_nyu)
    assert (layout.count("train"), layout.count("val"), layout.truth) == (699, 96, "filled")
    assert len({layout.scene("val", i) for i in range(96)}) == 18
    image, depth = layout.read("val", 0)
    assert image.shape == (480, 640, 3)
    assert 0.7 < depth.min() < np.median(depth) < depth.max() < 10
