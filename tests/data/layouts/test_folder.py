import csv
import os

import numpy as np
import pytest
from conftest import DATA
from drawing import millimetres, picture
from PIL import Image

from depthnet.core.camera import Intrinsics
from depthnet.core.types import InputError
from depthnet.data.datamodule import DepthDataModule
from depthnet.data.layouts.registry import open_root
from depthnet.data.validation.check import cheap_findings, examine

STATED = {"unit": "mm", "depth_range": {"min": 0.1, "max": 20}}


@pytest.fixture
def pairs(tmp_path):
    """Twelve pairs in three scenes, depth as 16-bit PNG and, in one scene, as arrays of floats in millimetres."""
    for place, scene in enumerate(("attic", "cellar", "hall")):
        for number in range(4):
            for folder in ("images", "depths"):
                (tmp_path / folder / scene).mkdir(parents=True, exist_ok=True)
            depth = millimetres(number, (48, 64))
            Image.fromarray(picture(10 * place + number, (48, 64))).save(tmp_path / f"images/{scene}/IMG_{number}.JPG")
            if scene == "hall":
                np.save(tmp_path / f"depths/{scene}/IMG_{number}.npy", depth.astype(np.float32))
            else:
                Image.fromarray(depth).save(tmp_path / f"depths/{scene}/IMG_{number}.png")
    return tmp_path


def write_csv(root, rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (root / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def test_folders_are_scenes_and_whole_ones_are_held_out(pairs):
    layout = open_root(pairs, **STATED)
    assert (layout.name, layout.nyu, layout.findings) == ("folder", False, [])
    assert (layout.count("train"), layout.count("val"), layout.count("test")) == (8, 4, 0)
    scenes = {split: {layout.scene(split, i) for i in range(layout.count(split))} for split in ("train", "val")}
    assert scenes["train"] | scenes["val"] == {"attic", "cellar", "hall"}
    assert not scenes["train"] & scenes["val"]


def test_depth_is_metres_from_levels_and_from_floats(pairs):
    layout = open_root(pairs, **STATED)
    labels = {layout.label(split, i): (split, i) for split in ("train", "val") for i in range(layout.count(split))}
    stored = millimetres(2, (48, 64))
    for scene in ("attic", "hall"):
        image, depth = layout.read(*labels[f"images/{scene}/IMG_2"])
        assert image.shape == (48, 64, 3)
        assert (depth == stored.astype(np.float32) * np.float32(1e-3)).all()
        assert layout.size(*labels[f"images/{scene}/IMG_2"]) == (48, 64)


def test_folders_named_as_splits_are_splits(tmp_path):
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for number in range(count):
            for folder, what in (("images", picture), ("depths", millimetres)):
                (tmp_path / folder / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(what(number, (48, 64))).save(tmp_path / folder / split / f"{number}.png")
    layout = open_root(tmp_path, **STATED)
    assert [layout.count(split) for split in ("train", "val", "test")] == [3, 2, 1]


def test_a_csv_file_states_split_scene_unit_and_camera(pairs):
    rows = [
        {
            "image": f"images/attic/IMG_{n}.JPG",
            "depth": f"depths/attic/IMG_{n}.png",
            "split": "val" if n == 3 else "",
            "scene": f"corner {n // 2}",
            "unit": "cm" if n == 1 else "",
            "note": "left out",
            **({"fx": 500, "fy": 501, "cx": 32, "cy": 24} if n == 2 else {}),
        }
        for n in range(4)
    ]
    write_csv(pairs, rows)
    layout = open_root(pairs, **STATED)
    assert [layout.count(split) for split in ("train", "val", "test")] == [3, 1, 0]
    assert [layout.scene("train", i) for i in range(3)] == ["corner 0", "corner 0", "corner 1"]
    assert layout.scene_rule == "the scene column"
    assert layout.read("train", 1)[1].mean() == pytest.approx(millimetres(1, (48, 64)).mean() / 100, rel=1e-4)
    assert layout.intrinsics("train", 2) == Intrinsics(500, 501, 32, 24)
    assert layout.intrinsics("train", 0) is None
    assert layout.where("train", 1) == "pairs.csv:3"
    assert "note" in layout.notes[0]


@pytest.mark.parametrize("camera", [("0", 501, 32, 24), (500, "nan", 32, 24), (-500, 501, 32, 24), (500, 501, 32, "")])
def test_a_camera_that_cannot_be_is_a_finding_of_its_row(pairs, camera):
    rows = [{"image": f"images/attic/IMG_{n}.JPG", "depth": f"depths/attic/IMG_{n}.png"} for n in range(2)]
    write_csv(pairs, [rows[0], rows[1] | dict(zip(("fx", "fy", "cx", "cy"), camera, strict=True))])
    findings = open_root(pairs, val="random_frames", **STATED).findings
    assert [(finding.name, finding.where) for finding in findings] == [("row", "pairs.csv:3")]


@pytest.mark.parametrize("camera", [(5188.6, 5194.7, 3255, 2537), (0.81, 1.08, 0.5, 0.5)])
def test_a_rows_camera_of_another_image_size_is_refused(pairs, camera):
    rows = [{"image": f"images/attic/IMG_{n}.JPG", "depth": f"depths/attic/IMG_{n}.png"} for n in range(2)]
    write_csv(pairs, [row | dict(zip(("fx", "fy", "cx", "cy"), camera, strict=True)) for row in rows])
    with pytest.raises(InputError, match=r"pairs\.csv:[23]: .* are of another image size than 64x48"):
        open_root(pairs, val="random_frames", **STATED).intrinsics("train", 0)


def cameras(layout):
    frames = [(split, frame) for split in ("train", "val") for frame in range(layout.count(split))]
    return {layout.label(*at).split("/")[1]: layout.intrinsics(*at) for at in frames}


def test_a_camera_is_of_the_nearest_file_the_words_or_exif(pairs):
    """The scenes are attic, cellar and hall, of 64x48 pixels."""
    layout = open_root(pairs, **STATED)
    assert set(cameras(layout).values()) == {None}
    assert layout.camera == ""
    (pairs / "K.txt").write_text("60 60 32 24")
    (pairs / "images/cellar/intrinsics.json").write_text(
        '{"fx": 100, "fy": 100, "cx": 64, "cy": 48, "width": 128, "height": 96}'
    )
    layout = open_root(pairs, **STATED)
    assert layout.camera == "K.txt"
    assert cameras(layout) == {
        "attic": (60, 60, 32, 24),
        "cellar": pytest.approx((50, 50, 31.75, 23.75)),
        "hall": (60, 60, 32, 24),
    }
    for words, fx, source in (
        ({"focal": 70}, 70, "the stated focal length"),
        ({"fov_x": 90}, 32, "the stated field of view"),
    ):
        layout = open_root(pairs, **STATED, **words)
        assert layout.camera == source, "what is stated counts before a file that lies there"
        assert {round(camera.fx, 9) for camera in cameras(layout).values()} == {fx}
    row = {"image": "images/attic/IMG_0.JPG", "depth": "depths/attic/IMG_0.png", "split": "val"}
    other = row | {"image": "images/hall/IMG_0.JPG", "depth": "depths/hall/IMG_0.npy", "split": "train"}
    write_csv(pairs, [row | {"fx": 80, "fy": 80, "cx": 32, "cy": 24}, other])
    found = cameras(open_root(pairs, **STATED, focal=70))
    assert (found["attic"].fx, found["hall"].fx) == (80, 70)


def test_exif_gives_the_camera_where_nothing_else_does(pairs):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 26
    for n in range(4):
        Image.fromarray(picture(n, (48, 64))).save(pairs / f"images/attic/IMG_{n}.JPG", exif=exif)
    found = cameras(open_root(pairs, **STATED))
    assert found["attic"].fx == pytest.approx(26 / np.hypot(36, 24) * 80)
    assert found["hall"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"focal": 0}, "focal=0: it is in pixels"),
        ({"focal": 1e6}, "focal=1000000.0: it is in pixels"),
        ({"fov_x": 180}, "fov_x=180: it is the horizontal"),
        ({"focal": 60, "fov_x": 60}, "give one of them"),
    ],
)
def test_a_camera_that_cannot_be_is_refused_when_opened(pairs, options, words):
    with pytest.raises(InputError, match=words):
        open_root(pairs, **STATED, **options)


def test_a_file_of_another_image_size_is_refused_when_opened(pairs):
    (pairs / "K.txt").write_text("518.8 519.4 325.5 253.7")
    with pytest.raises(InputError, match=r"IMG_.*K\.txt: fx 518\.8, .*of another image size than 64x48"):
        open_root(pairs, **STATED)


def test_a_stated_camera_that_no_row_needs_is_refused(pairs, make_lists):
    row = {"image": "images/attic/IMG_0.JPG", "depth": "depths/attic/IMG_0.png", "fx": 80, "fy": 80, "cx": 32, "cy": 24}
    write_csv(pairs, [row])
    with pytest.raises(InputError, match=r"data\.focal=70: every row of .*pairs\.csv states its camera"):
        open_root(pairs, **STATED, focal=70)
    with pytest.raises(InputError, match=r"data\.fov_x=60.* means nothing to the lists layout"):
        open_root(make_lists(), fov_x=60)


def test_real_frames_have_their_camera_through_to_network_pixels(tmp_path):
    if not (DATA / "samples/hololens").is_dir():
        pytest.skip("no real samples here")
    for name, own in (("images", "images"), ("depths", "depth"), ("K.txt", "K.txt")):
        (tmp_path / name).symlink_to(DATA / "samples/hololens" / own)
    data = DepthDataModule.from_root(
        tmp_path,
        unit="mm",
        depth_range={"min": 0.1, "max": 20},
        val="random_frames",
        image_size=[240, 360],
        num_workers=0,
        check="cheap",
    )
    assert data.layout.intrinsics("train", 0) == pytest.approx((495.57, 495.48, 269.50, 169.19), abs=0.01)
    sample = data.train_dataloader().dataset[0]
    assert sample.intrinsics[:2].tolist() == pytest.approx((495.57 * 360 / 540, 495.48 * 240 / 360), abs=0.01)


def test_unit_and_range_have_to_be_stated(pairs):
    with pytest.raises(InputError, match=r"data\.unit"):
        open_root(pairs, depth_range={"min": 0.1, "max": 20})
    with pytest.raises(InputError, match=r"data\.depth_range"):
        open_root(pairs, unit="mm")


def test_what_has_no_partner_is_a_finding(pairs):
    (pairs / "depths/attic/IMG_1.png").unlink()
    (pairs / "images/cellar/IMG_0.JPG").unlink()
    Image.fromarray(picture(0, (48, 64))).save(pairs / "images/hall/IMG_0.png")
    layout = open_root(pairs, **STATED)
    assert layout.count("train") + layout.count("val") == 10
    found = {(finding.name, finding.where) for finding in layout.findings}
    assert found == {
        ("missing", "images/attic/IMG_1.JPG"),
        ("missing", "depths/cellar/IMG_0.png"),
        ("duplicate_row", "images/hall/IMG_0.png"),
    }


def test_bad_rows_of_a_csv_file_are_findings_with_their_row(pairs):
    good = {"image": "images/attic/IMG_0.JPG", "depth": "depths/attic/IMG_0.png"}
    write_csv(
        pairs,
        [
            good,
            {"image": "images/cellar/IMG_1.JPG", "depth": "depths/cellar/IMG_1.png", "fx": "wide"},
            {"image": "images/cellar/IMG_2.JPG", "depth": ""},
            {"image": "images/cellar/IMG_3.JPG", "depth": "depths/cellar/IMG_3.png", "split": "dev"},
            {"image": "images/hall/IMG_3.JPG", "depth": "depths/hall/IMG_3.npy", "split": "val"},
        ],
    )
    layout = open_root(pairs, **STATED)
    assert [layout.count(split) for split in ("train", "val")] == [1, 1]
    assert [(finding.name, finding.where) for finding in layout.findings] == [
        ("row", f"pairs.csv:{row}") for row in (3, 4, 5)
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"rgb,depth\na,b\n", "image and depth are needed"),
        (b"", "image and depth are needed"),
        (b"image,depth\n", "no pairs there$"),
        (b"image,depth\n\xff\xfe,b\n", "UTF-8"),
    ],
)
def test_a_torn_csv_file_is_named(pairs, content, words):
    (pairs / "pairs.csv").write_bytes(content)
    with pytest.raises(InputError, match=words):
        open_root(pairs, **STATED)


def test_photographs_of_one_numbered_run_need_scenes_or_the_users_word(tmp_path):
    for number in range(20):
        for folder, what in (("images", picture), ("depths", millimetres)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(what(number, (48, 64))).save(tmp_path / folder / f"{number}.png")
    layout = open_root(tmp_path, **STATED)  # who only looks at it needs no val frames
    assert (layout.count("train"), layout.count("val")) == (20, 0)
    with pytest.raises(InputError, match=r"no val frames.*one scene.*data\.val=random_frames"):
        DepthDataModule(layout, num_workers=0).val_dataloader()
    layout = open_root(tmp_path, **STATED, val="random_frames")
    assert (layout.count("train"), layout.count("val")) == (19, 1)


def test_numbers_far_apart_do_not_pass_for_scenes(tmp_path):
    for number in range(0, 400, 10):
        for folder, what in (("images", picture), ("depths", millimetres)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(what(number, (24, 32))).save(tmp_path / folder / f"frame_{number:05d}.png")
    layout = open_root(tmp_path, **STATED)
    assert (layout.count("train"), layout.count("val")) == (40, 0)
    assert "show no scenes" in layout.notes[0]


def test_a_linked_scene_is_read(pairs, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk")
    for folder in ("images", "depths"):
        (pairs / folder / "hall").rename(elsewhere / folder)
        (pairs / folder / "hall").symlink_to(elsewhere / folder)
    layout = open_root(pairs, **STATED)
    assert layout.count("train") + layout.count("val") == 12
    assert layout.findings == []


def test_a_link_that_leads_back_is_left_out(pairs):
    for folder in ("images", "depths"):
        (pairs / folder / "back").symlink_to(pairs / folder)
        (pairs / folder / "attic/other").symlink_to(pairs / folder / "cellar")
        (pairs / folder / "cellar/other").symlink_to(pairs / folder / "attic")
    layout = open_root(pairs, **STATED)
    assert layout.count("train") + layout.count("val") == 12
    assert layout.findings == []
    assert {layout.scene(split, i) for split in ("train", "val") for i in range(layout.count(split))} == {
        "attic", "cellar", "hall"
    }  # fmt: skip


def test_a_partly_filled_scene_column_still_tells_leaks(pairs):
    rows = [
        {"image": f"images/{s}/IMG_{n}.JPG", "depth": f"depths/{s}/IMG_{n}.png", "split": split, "scene": scene}
        for s, n, split, scene in (
            ("attic", 0, "train", "kitchen"),
            ("attic", 1, "train", "hall"),
            ("attic", 2, "train", ""),
            ("cellar", 3, "val", "kitchen"),
        )
    ]
    write_csv(pairs, rows)
    found = cheap_findings(open_root(pairs, **STATED))
    assert [(finding.name, finding.where) for finding in found] == [("scene_leak", "pairs.csv:5")]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"image": ".", "depth": "depths/attic/IMG_0.png"}, "missing"),
        ({"image": "images", "depth": "depths/attic/IMG_0.png"}, "missing"),
        ({"image": "images/" + "x" * 300, "depth": "depths/attic/IMG_0.png"}, "missing"),
        ({"image": "images/attic/IMG_1.JPG", "depth": "depths/attic/IMG_1.png", "unit": "inch"}, "row"),
    ],
)
def test_odd_rows_are_findings_beside_the_others(pairs, row, words):
    good = {"image": "images/attic/IMG_0.JPG", "depth": "depths/attic/IMG_0.png"}
    last = {"image": "images/hall/IMG_0.JPG", "depth": "depths/hall/IMG_0.npy", "split": "val"}
    write_csv(pairs, [good, row, last])
    found = {finding.name for finding in examine(open_root(pairs, **STATED), None).findings}
    assert words in found


def test_a_stated_csv_file_that_is_not_there_is_refused(pairs):
    with pytest.raises(InputError, match=r"data\.lists=.*tpyo\.csv: no such file"):
        open_root(pairs, lists=pairs / "tpyo.csv", **STATED)


def test_a_name_that_is_no_valid_text_is_served(pairs):
    for folder in ("images", "depths"):
        os.rename(pairs / folder / "hall", os.fsencode(pairs / folder) + b"/caf\xe9")  # noqa: PTH104  bytes
    layout = open_root(pairs, **STATED)
    assert layout.count("train") + layout.count("val") == 12
    assert examine(layout, pairs / "cache").findings == ()


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"\x93NUMPY\x01\x00\x10\x00{'a\n\x00", b"", b"\x80\x04junk"])
def test_what_is_no_array_is_a_finding(pairs, head):
    (pairs / "depths/hall/IMG_2.npy").write_bytes(head + b"\x00" * (20 if head else 0))
    (finding,) = examine(open_root(pairs, **STATED), None).findings
    assert finding.name in ("torn", "empty", "bit_depth")
    assert "IMG_2.npy" in finding.message


@pytest.mark.parametrize("link", [False, True])
def test_paths_of_windows_and_absolute_ones_inside_the_root_are_taken(pairs, tmp_path_factory, link):
    root = pairs
    if link:  # the list was written where the link leads, or with the link in its paths
        root = tmp_path_factory.mktemp("links") / "own"
        root.symlink_to(pairs)
    images = [r"images\attic\IMG_0.JPG", f"{pairs}/images/attic/IMG_1.JPG", "./images/hall/../attic/IMG_2.JPG"]
    images += [f"{root}/images/attic/IMG_3.JPG"]
    depths = [r"depths\attic\IMG_0.png", f"{root}/depths/attic/IMG_1.png", "depths//attic/IMG_2.png"]
    depths += [r"depths/attic\IMG_3.png"]
    rows = [{"image": image, "depth": depth} for image, depth in zip(images, depths, strict=True)]
    write_csv(root, [*rows, {"image": "images/cellar/IMG_0.JPG", "depth": "depths/cellar/IMG_0.png", "split": "val"}])
    layout = open_root(root, **STATED)
    assert layout.findings == []
    assert [layout.label("train", frame) for frame in range(4)] == [f"images/attic/IMG_{n}" for n in range(4)]


@pytest.mark.parametrize(
    "name", ["../elsewhere.png", r"..\elsewhere.png", "/elsewhere.png", "images/../../elsewhere.png", r"C:\own\a.png"]
)
def test_what_leaves_the_root_is_refused(pairs, name):
    good = {"image": "images/attic/IMG_0.JPG", "depth": "depths/attic/IMG_0.png"}
    write_csv(pairs, [good, {"image": name, "depth": "depths/attic/IMG_1.png"}])
    (finding,) = open_root(pairs, **STATED).findings
    assert finding[:2] == ("leaves_root", "pairs.csv:3")
    assert f"leaves the data root {pairs}; write paths below it" in finding.message


def test_one_file_in_two_spellings_is_named_twice(pairs):
    rows = [
        {"image": image, "depth": "depths/attic/IMG_0.png"}
        for image in ("images/attic/IMG_0.JPG", r"images\attic\IMG_0.JPG")
    ]
    write_csv(pairs, rows)
    assert [finding.name for finding in open_root(pairs, **STATED).findings] == ["duplicate_row"]


@pytest.mark.parametrize(("mark", "end"), [(",", "\r\n"), (";", "\n"), ("\t", "\r\n")])
def test_a_csv_file_as_a_spreadsheet_writes_it_is_read(pairs, mark, end):
    rows = [("image", "depth", "split")]
    rows += [(f"images/attic/IMG_{n}.JPG", f"depths/attic/IMG_{n}.png", "val" if n == 3 else "") for n in range(4)]
    (pairs / "pairs.csv").write_bytes(b"\xef\xbb\xbf" + end.join(map(mark.join, rows)).encode())
    layout = open_root(pairs, **STATED)
    assert ([layout.count(split) for split in ("train", "val")], layout.findings) == ([3, 1], [])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("images/attic/IMG_1.JPG", "images/attic/IMG_1.webp"),
        ("images/attic/IMG_1.JPG", "images/attic/IMG_1.HEIC"),
        ("depths/attic/IMG_1.png", "depths/attic/IMG_1.exr"),
        ("depths/attic/IMG_1.png", "depths/attic/IMG_1.tiff"),
        ("depths/attic/IMG_1.png", "depths/attic/IMG_1.jpg"),
    ],
)
def test_a_file_of_a_kind_that_is_not_read_is_not_called_missing(pairs, old, new):
    (pairs / old).rename(pairs / new)
    (pairs / "images/attic/Thumbs.db").touch()
    (finding,) = open_root(pairs, **STATED).findings
    assert finding[:2] == ("unreadable", new)
    assert finding.message.startswith(
        "a file of a kind that is not read; convert it: photographs to PNG or JPEG, depth"
    )


def test_a_folder_of_nothing_that_is_read_says_so(pairs):
    for path in pairs.rglob("*.JPG"):
        path.rename(path.with_suffix(".webp"))
    for path in [*pairs.rglob("*.png"), *pairs.rglob("*.npy")]:
        path.rename(path.with_suffix(".exr"))
    with pytest.raises(InputError, match=r"no pairs there \(images/attic/IMG_0\.webp: a file of a kind .*; convert it"):
        open_root(pairs, **STATED)
