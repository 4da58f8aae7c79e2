"""depthnet data: what a person types, and what comes back."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from mat_file import random_frames, write_mat
from PIL import Image

from depthnet.data.cli import main
from depthnet.data.layouts.registry import open_root


def test_check_says_what_lies_there_and_ends_with_0_when_nothing_is_wrong(make_lists, capsys, tmp_path):
    root = make_lists(train=6, val=3)
    assert main(["check", str(root), "--workers", "0", "--manifest", str(tmp_path / "pairs.csv")]) == 0
    page = capsys.readouterr().out
    for word in (
        "lists",
        "train",
        "val",
        "64x48",
        "filled",
        "16-bit",
        "runs of consecutive frame numbers",
        "fx 51.9 px at 64x48 (NYU's)",
    ):
        assert word in page
    with (tmp_path / "pairs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 9


@pytest.mark.parametrize(
    ("words", "camera"),
    [
        ([], "unknown"),
        (["--focal", "60"], "fx 60.0 px at 64x48 (the stated focal length)"),
        (["--fov-x", "90"], "fx 32.0 px at"),
    ],
)
def test_check_states_the_camera_of_own_pairs(make_lists, capsys, words, camera):
    root = make_lists(train=2, val=0)
    (root / "pairs.csv").write_text("image,depth\ntrain/rgb_00000.jpg,train/sync_depth_00000.png\n")
    stated = ["--layout", "folder", "--unit", "mm", "--depth-range", "0.1", "20", "--workers", "0"]
    main(["check", str(root), *stated, *words])
    assert f"camera  {camera}" in capsys.readouterr().out


def test_check_names_what_is_wrong_and_ends_with_1(make_lists, capsys):
    root = make_lists(train=6, val=3)
    (root / "train/rgb_00001.jpg").write_bytes((root / "train/rgb_00001.jpg").read_bytes()[:500])
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(root / "train/sync_depth_00004.png")
    assert main(["check", str(root), "--workers", "0"]) == 1
    page = capsys.readouterr().out
    for word in ("torn", "nyudepthv2_train_files_with_gt.txt:2", "no_depth", "nyudepthv2_train_files_with_gt.txt:5"):
        assert word in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "nowhere"], "nowhere: no such folder"),
        (["show", "nowhere"], "nowhere: no such folder"),
        (["show", "rooms", "--count", "0"], "--count 0"),
        (["prepare", "nowhere.mat", "out"], "nowhere.mat"),
        (["check", "ROOT", "--unit", "mm"], "means nothing to the lists layout"),
        (["show", "ROOT", "--split", "test"], "no test frames"),
    ],
)
def test_a_mistake_is_one_line(make_lists, capsys, monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    root = str(make_lists())
    assert main([root if word == "ROOT" else word for word in words]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_show_writes_a_sheet_of_any_data(make_lists, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, words, pairs in (
        ("contact_sheet.png", ["show", str(make_lists(holes=True)), "--count", "5"], 5),
        ("rooms.png", ["show", "rooms", "--count", "2", "--output", "rooms.png"], 2),
    ):
        assert main(words) == 0
        with Image.open(tmp_path / name) as sheet:
            assert sheet.width > 600
            assert len(sheet.getcolors(1 << 20)) > 1000
        assert f"{name}: {pairs} of" in capsys.readouterr().out


def test_prepare_makes_a_root_that_can_be_checked(tmp_path, capsys):
    mat = tmp_path / "nyu_depth_v2_labeled.mat"
    write_mat(mat, random_frames(20))
    assert main(["prepare", str(mat), str(tmp_path / "out"), "--ground-truth", "raw"]) == 0
    layout = open_root(tmp_path / "out")
    assert (layout.name, layout.ground_truth) == ("lists", "raw")
    assert not layout.findings


def test_the_tools_start_without_torch():
    program = (
        "import sys, depthnet.data.cli; "
        "print(*sorted({'torch', 'lightning', 'albumentations', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
