import pytest

from depthnet.core.types import InputError
from depthnet.data.layouts.scenes import RUNS, consecutive_runs, hold_out_scenes, name_scenes, part_val


def test_runs_follow_the_numbers_whatever_the_order():
    assert consecutive_runs([5, 3, 4, 9, 10, 1]) == [1, 1, 1, 2, 2, 0]
    assert consecutive_runs([]) == []


def named(*images, labelled=False):
    names, rule = name_scenes({"train": images}, labelled)
    return names["train"], rule


def test_scenes_are_folders_when_there_are_several():
    assert named("x/kitchen_0001/1.jpg", "x/bedroom_0002/1.jpg") == (["kitchen_0001", "bedroom_0002"], "folders")


def test_folders_around_and_inside_scenes_are_no_scenes():
    assert named("images/desk/rgb/1.png", "images/room/rgb/1.png")[0] == ["desk", "room"]
    assert named("a/house1/kitchen/1.png", "a/house2/bath/1.png")[0] == ["house1/kitchen", "house2/bath"]
    splits = {"train": ["train/h1/kitchen/1.png", "train/h1/bath/1.png"], "val": ["val/h2/kitchen/1.png"]}
    names, _ = name_scenes(splits)
    assert not set(names["train"]) & set(names["val"])


def test_a_single_folder_is_a_scene_where_it_is_a_recording_or_another_split_has_several():
    train = ["kitchen_0028a/1.jpg", "bath_0001/1.jpg"]
    names, _ = name_scenes({"train": train, "val": ["kitchen_0028b/7.jpg"]})
    assert names == {"train": ["kitchen_0028", "bath_0001"], "val": ["kitchen_0028"]}
    names, _ = name_scenes({"train": ["attic/1.jpg", "hall/1.jpg"], "val": ["hall/2.jpg", "hall/3.jpg"]})
    assert names["val"] == ["hall", "hall"]
    names, _ = name_scenes({"train": train, "test": ["test/2.jpg", "test/9.jpg"]})
    assert names["test"] == ["run 00002", "run 00009"]
    assert named("office_0003/1.jpg")[0] == ["office_0003"]


def test_kinds_of_room_are_no_scenes_where_frames_are_numbered_as_the_labelled_set():
    images = ("train/bathroom/rgb_00045.jpg", "train/bathroom/rgb_00046.jpg", "train/kitchen/rgb_00100.jpg")
    assert named(*images, labelled=True)[0] == ["run 00045", "run 00045", "run 00100"]
    assert named(*images)[0] == ["bathroom", "bathroom", "kitchen"]
    again = ("kitchen_0001/rgb_00045.jpg", "bath_0002/rgb_00046.jpg")
    assert named(*again, labelled=True)[0] == ["kitchen_0001", "bath_0002"]


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
    assert named("kitchen_0028a/1.jpg", "kitchen_0028b/1.jpg")[0] == ["kitchen_0028"] * 2
    assert named("office_0003_out/1.jpg", "office_0004/1.jpg")[0] == ["office_0003", "office_0004"]


def test_runs_that_are_single_frames_cannot_be_held_out():
    scenes = [f"run {number:05d}" for number in range(0, 400, 10)]
    with pytest.raises(InputError, match=r"show no scenes.*data\.val=random_frames"):
        part_val(scenes, [], scenes, scenes, "scenes", RUNS)
    assert part_val(scenes, [], scenes, scenes, "scenes", "folders")[1]


def test_a_val_list_stands_and_random_frames_ignore_it():
    train, val = list(range(30)), list(range(30, 40))
    scenes, names = ["one"] * 30, [str(i) for i in range(40)]
    assert part_val(train, val, scenes, names, "scenes") == (train, val)
    rest, drawn = part_val(train, val, scenes, names, "random_frames")
    assert (len(rest), len(drawn)) == (38, 2)
    assert sorted(rest + drawn) == list(range(40))
