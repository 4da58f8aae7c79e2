import pytest

from depthnet.data.scenes import consecutive_runs, hold_out_scenes, name_scenes, part_val
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


def test_recordings_of_one_scene_are_one_scene():
    assert name_scenes(["kitchen_0028a/1.jpg", "kitchen_0028b/1.jpg"])[0] == ["kitchen_0028"] * 2
    assert name_scenes(["office_0003_out/1.jpg", "office_0004/1.jpg"])[0] == ["office_0003", "office_0004"]


def test_a_val_list_stands_and_random_frames_ignore_it():
    train, val = list(range(30)), list(range(30, 40))
    scenes, names = ["one"] * 30, [str(i) for i in range(40)]
    assert part_val(train, val, scenes, names, "scenes") == (train, val)
    rest, drawn = part_val(train, val, scenes, names, "random_frames")
    assert (len(rest), len(drawn)) == (38, 2)
    assert sorted(rest + drawn) == list(range(40))


def test_a_single_folder_counts_as_a_scene_where_another_split_has_several():
    train = ["attic/1.jpg", "hall/1.jpg"]
    assert name_scenes(["hall/2.jpg", "hall/3.jpg"], train) == (["hall", "hall"], "folders")
    assert name_scenes(["test/2.jpg", "test/9.jpg"], train)[0] == ["run 00002", "run 00009"]
    assert name_scenes(["hall/2.jpg", "hall/3.jpg"], ["hall/5.jpg"])[0] == ["run 00002", "run 00002"]
