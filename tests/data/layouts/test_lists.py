import shutil

import numpy as np
import pytest
from PIL import Image

from depthnet.core.camera import Intrinsics
from depthnet.core.types import InputError
from depthnet.data.layouts.official import NYU_INTRINSICS
from depthnet.data.layouts.registry import open_root

TRAIN = "nyudepthv2_train_files_with_gt.txt"


def test_pairs_come_in_the_lists_order_and_in_metres(make_lists):
    root = make_lists(train=4, val=2, test=1)
    layout = open_root(root)
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
    layout = open_root(root)
    assert layout.count("train") == 2
    assert layout.read("train", 0)[0].shape == (48, 64, 3)
    assert layout.where("train", 1) == f"{TRAIN}:3"


def test_rows_that_name_no_files_are_findings_and_left_out(make_lists):
    root = make_lists()
    (root / "train/rgb_00001.jpg").unlink()
    (root / "train/sync_depth_00004.png").unlink()
    rows = (root / TRAIN).read_text()
    (root / TRAIN).write_text(rows + "../../etc/passwd train/sync_depth_00000.png 1\nalone\n")
    layout = open_root(root)
    assert layout.count("train") == 4
    found = {finding.where: finding for finding in layout.findings}
    assert {where: finding.name for where, finding in found.items()} == {
        f"{TRAIN}:2": "missing",
        f"{TRAIN}:5": "missing",
        f"{TRAIN}:7": "leaves_root",
        f"{TRAIN}:8": "row",
    }
    assert "train/rgb_00001.jpg is missing" in found[f"{TRAIN}:2"].message
    assert all(finding.splits == ("train",) for finding in layout.findings)


def test_a_pair_named_twice_and_a_neighbors_depth_are_findings(make_lists):
    root = make_lists(train=6, val=3)
    rows = (root / TRAIN).read_text().splitlines()
    rows[4] = rows[4].replace("sync_depth_00004", "sync_depth_00005")
    val = root / "nyudepthv2_val_files_with_gt.txt"
    (root / TRAIN).write_text("\n".join([*rows[:5], rows[2]]))
    val.write_text(val.read_text() + rows[0] + "\n")
    found = [(finding.name, finding.where, finding.splits) for finding in open_root(root).findings]
    assert sorted(found) == [
        ("duplicate_row", "nyudepthv2_train_files_with_gt.txt:6", ("train",)),
        ("duplicate_row", "nyudepthv2_val_files_with_gt.txt:4", ("train", "val")),
        ("shifted", "nyudepthv2_train_files_with_gt.txt:5", ("train",)),
    ]


def test_lists_training_and_test_files_may_lie_in_three_places(make_lists, tmp_path):
    root = make_lists(train=4, val=2, test=2)
    lists, frames, others = (tmp_path / name for name in ("code", "disk", "other"))
    lists.mkdir()
    for path in root.glob("*.txt"):
        path.rename(lists / path.name)
    shutil.copytree(root, frames)
    shutil.copytree(root, others)
    for path in (others / "train").iterdir():
        if int(path.stem[-5:]) < 8:
            path.unlink()
    for path in (frames / "train").iterdir():
        if int(path.stem[-5:]) >= 8:
            path.unlink()
    layout = open_root(frames, lists=lists, test_root=others)
    assert not layout.findings
    assert [layout.read(split, 0)[0].shape for split in ("train", "val", "test")] == [(48, 64, 3)] * 3
    assert layout.files("test", 0)[0].is_relative_to(others)


def test_the_folders_of_bts_are_found(make_lists, tmp_path):
    root = make_lists(train=4, val=0, test=2)
    for split, folder in (("train", "sync"), ("test", "official_splits/test")):
        path = root / f"nyudepthv2_{split}_files_with_gt.txt"
        for row in path.read_text().splitlines():
            scene = "kitchen_0001a" if int(row[10:15]) % 2 else "bath_0002"
            for name in row.split()[:2]:
                target = tmp_path / "bts" / folder / scene / name[6:]
                target.parent.mkdir(parents=True, exist_ok=True)
                (root / name).rename(target)
        kept = [
            row.replace("train/", f"/{'kitchen_0001a' if int(row[10:15]) % 2 else 'bath_0002'}/")
            for row in path.read_text().splitlines()
        ]
        (tmp_path / "bts" / path.name).write_text("\n".join(kept))
    layout = open_root(tmp_path / "bts")
    assert not layout.findings
    assert layout.count("train") + layout.count("val") == 4
    assert {layout.scene(split, 0) for split in ("train", "val")} == {"kitchen_0001", "bath_0002"}
    assert layout.read("test", 1)[1].shape == (48, 64)


def test_two_lists_for_a_split_are_refused(make_lists):
    root = make_lists()
    (root / "train_list.txt").write_text((root / TRAIN).read_text())
    with pytest.raises(InputError, match="both list train"):
        open_root(root)


def test_random_frames_are_held_out_only_when_asked(make_lists):
    root = make_lists(train=30, val=10)
    layout = open_root(root, val="random_frames")
    assert (layout.count("train"), layout.count("val")) == (38, 2)
    labels = {split: [layout.label(split, i) for i in range(layout.count(split))] for split in ("train", "val")}
    assert not set(labels["train"]) & set(labels["val"])
    assert labels["val"] == [open_root(root, val="random_frames").label("val", i) for i in range(2)]
    with pytest.raises(InputError, match=r"data\.val=frames"):
        open_root(root, val="frames")


def test_without_a_val_list_whole_runs_are_held_out(make_lists):
    root = make_lists(train=6, val=3)
    val = root / "nyudepthv2_val_files_with_gt.txt"
    (root / TRAIN).write_text((root / TRAIN).read_text() + val.read_text())
    val.unlink()
    layout = open_root(root)
    assert layout.count("train") + layout.count("val") == 9
    scenes = {split: {layout.scene(split, i) for i in range(layout.count(split))} for split in ("train", "val")}
    assert scenes["val"]
    assert not scenes["train"] & scenes["val"]


def test_an_unreadable_file_is_told_with_its_row(make_lists):
    root = make_lists()
    (root / "train/rgb_00001.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=rf"{TRAIN}:2: .*rgb_00001.jpg: the file is empty"):
        open_root(root).read("train", 1)


def test_the_real_pairs_are_what_their_readme_says(real_nyu):
    layout = open_root(real_nyu)
    assert (layout.count("train"), layout.count("val"), layout.ground_truth) == (699, 96, "filled")
    assert len({layout.scene("val", i) for i in range(96)}) == 18
    image, depth = layout.read("val", 0)
    assert image.shape == (480, 640, 3)
    assert 0.7 < depth.min() < np.median(depth) < depth.max() < 10


def test_the_folder_is_found_though_the_first_files_are_missing(make_lists, tmp_path):
    root = make_lists(train=8, val=3)
    (root / "sync").mkdir()
    (root / "train").rename(root / "sync/train")
    for number in range(2):
        (root / f"sync/train/rgb_{number:05d}.jpg").unlink()
    layout = open_root(root)
    assert layout.count("train") == 6
    assert [finding.name for finding in layout.findings] == ["missing", "missing"]


def test_a_name_with_a_space_is_told(make_lists):
    root = make_lists()
    (root / TRAIN).write_text((root / TRAIN).read_text() + "train/my photo.jpg train/depth.png 518.8\n")
    (finding,) = open_root(root).findings
    assert (finding.name, finding.where) == ("row", f"{TRAIN}:7")
    assert "a name with a separator" in finding.message


def test_lists_is_a_folder(make_lists):
    root = make_lists()
    with pytest.raises(InputError, match=r"no lists layout there"):
        open_root(root, layout="lists", lists=root / TRAIN)


@pytest.mark.parametrize(
    ("size", "focal", "camera"),
    [
        ((48, 64), " 518.8579", Intrinsics(*NYU_INTRINSICS).resized((480, 640), (48, 64))),
        ((48, 64), "", Intrinsics(*NYU_INTRINSICS).resized((480, 640), (48, 64))),
        ((48, 64), " 57.5", (57.5, 57.5, 31.5, 23.5)),
        ((480, 360), " 518.86", (518.86, 518.86, 179.5, 239.5)),
        ((48, 36), "", None),
    ],
    ids=["NYU", "no focal length", "another camera", "upright crop", "unknown"],
)
def test_the_camera_is_nyus_or_of_the_lists_focal_length(make_lists, size, focal, camera):
    root = make_lists(size=size)
    (root / TRAIN).write_text((root / TRAIN).read_text().replace(" 518.8579", focal))
    assert open_root(root).intrinsics("train", 2) == camera


@pytest.mark.parametrize("focal", ["0", "-5", "nan", "inf", "f"])
def test_a_focal_length_that_is_none_is_a_finding(make_lists, focal):
    root = make_lists()
    (root / TRAIN).write_text((root / TRAIN).read_text().replace(" 518.8579", f" {focal}", 1))
    layout = open_root(root)
    assert layout.count("train") == 5
    assert [(finding.name, finding.where) for finding in layout.findings] == [("row", f"{TRAIN}:1")]
    assert f"'{focal}'" in layout.findings[0].message


def test_a_focal_length_of_no_image_is_one_line(make_lists):
    root = make_lists()
    (root / TRAIN).write_text((root / TRAIN).read_text().replace(" 518.8579", " 5000"))
    with pytest.raises(InputError, match=rf"^{TRAIN}:3: focal=5000.0: it is in pixels of the image, 64x48"):
        open_root(root).intrinsics("train", 2)


def test_paths_of_windows_and_absolute_ones_are_taken_in_lists_too(make_lists, make_kaggle):
    root = make_lists(train=4, val=2)
    rows = [row.split() for row in (root / TRAIN).read_text().splitlines()]
    rows[1][0], rows[2][1] = rows[1][0].replace("/", "\\"), f"{root}/{rows[2][1]}"
    rows[3][0], rows[3][1] = f"/{rows[3][0]}", "/elsewhere/" + rows[3][1]  # a leading slash means the root
    (root / TRAIN).write_bytes("\r\n".join(map("\t".join, rows)).encode("utf-8-sig"))
    layout = open_root(root)
    assert layout.count("train") == 3
    assert [(finding.name, finding.where) for finding in layout.findings] == [("missing", f"{TRAIN}:4")]
    root = make_kaggle()
    path = root / "data/nyu2_train.csv"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first.replace("/", "\\"), *(row.replace("data/", f"{root}/data/") for row in rest)]))
    assert [finding for finding in open_root(root).findings if finding.splits != ("test",)] == []


def test_a_test_root_that_is_not_used_is_refused(make_lists, tmp_path):
    root = make_lists(train=4, val=2)
    with pytest.raises(InputError, match=r"data\.test_root=.*: no list of test frames to use it for; leave it out"):
        open_root(root, test_root=tmp_path)


def test_a_test_root_that_is_not_there_lacks_every_file(make_lists, tmp_path):
    root = make_lists(train=4, val=2, test=2)
    found = open_root(root, test_root=tmp_path / "nowhere").findings
    assert [(finding.name, finding.splits) for finding in found] == [("missing", ("test",))] * 2
