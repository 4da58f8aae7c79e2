import numpy as np
import pytest

from depthnet.data.layout import consecutive_runs, find_truth, hold_out_scenes, name_scenes, read_rows
from depthnet.data.lists import ListsLayout
from depthnet.types import InputError


def test_runs_follow_the_numbers_whatever_the_order():
    assert consecutive_runs([5, 3, 4, 9, 10, 1]) == [1, 1, 1, 2, 2, 0]
    assert consecutive_runs([]) == []


def test_scenes_are_folders_when_there_are_several():
    assert name_scenes(["x/kitchen_0001/1.jpg", "x/bedroom_0002/1.jpg"]) == (
        ["kitchen_0001", "bedroom_0002"],
        "folders",
    )


def test_holding_out_is_by_whole_scenes_and_ignores_the_order():
    scenes = [f"room_{i % 20}" for i in range(200)]
    held = hold_out_scenes(scenes, share=0.1)
    assert held == hold_out_scenes(scenes[::-1], share=0.1)
    assert 20 <= sum(scene in held for scene in scenes) <= 30
    assert hold_out_scenes(["a", "b"], share=0.9) < {"a", "b"}


def test_one_scene_cannot_be_split():
    with pytest.raises(InputError, match="one scene"):
        hold_out_scenes(["a"] * 10)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"\n \n", "empty"), (b"only_one\n", r"list.txt:1: 1 field"), (b"\xff\xfe\x00", "UTF-8")],
)
def test_a_bad_list_is_named(tmp_path, content, words):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_rows(tmp_path / "list.txt", None, 2)


def test_rows_keep_their_line_numbers_over_blank_lines_and_a_byte_order_mark(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa b 1\r\n\r\nc d 2\r\n")
    assert read_rows(tmp_path / "list.txt", None, 2) == [
        ("list.txt:1", ["a", "b", "1"]),
        ("list.txt:3", ["c", "d", "2"]),
    ]


def test_truth_is_raw_when_a_frame_has_a_hole(make_lists):
    assert ListsLayout(make_lists(holes=True)).truth == "raw"


def test_truth_is_filled_without_holes_unless_stated(make_lists):
    root = make_lists()
    assert ListsLayout(root).truth == "filled"
    assert ListsLayout(root, truth="raw").truth == "raw"
    with pytest.raises(InputError, match=r"data\.truth=dense"):
        find_truth(ListsLayout(root), "dense")


def test_depth_and_image_of_different_sizes_are_refused_by_row(make_lists):
    from PIL import Image

    root = make_lists()
    Image.fromarray(np.full((10, 10), 1000, np.uint16)).save(root / "train/sync_depth_00002.png")
    layout = ListsLayout(root)
    with pytest.raises(InputError, match=r"train_files_with_gt.txt:3: .*64x48.*10x10"):
        layout.read("train", 2)
