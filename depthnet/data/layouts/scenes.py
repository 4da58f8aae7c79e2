"""Which frames show one scene, and which scenes are held out: frames of one scene are not independent."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from depthnet.core.types import InputError
from depthnet.data.layouts.official import LABELLED_FRAMES

FOLDERS = "folders"
RUNS = "runs of consecutive frame numbers"

_WAYS = (
    "name val frames in a list, put each scene into a folder of its own, or accept neighbors in both splits with "
    "data.val=random_frames"
)

Item = TypeVar("Item")


def frame_number(name: str) -> int | None:
    """Return the last number in a file's name; None where there is none.

    Example:
        >>> frame_number("train/rgb_00018.jpg"), frame_number("00018_colors"), frame_number("kitchen/photo.jpg")
        (18, 18, None)
    """
    digits = re.findall(r"\d+", PurePosixPath(name).stem)
    return int(digits[-1]) if digits else None


def has_labelled_numbers(paths: Sequence[str]) -> bool:
    """Return whether frames are numbered as NYU's labelled set: each number once, below 1449, and none in a recording.

    Example:
        >>> has_labelled_numbers(["bath/rgb_00045.jpg", "kitchen/rgb_00046.jpg"])
        True
        >>> has_labelled_numbers(["kitchen_0028b/rgb_00045.jpg"])
        False
    """
    if any(_is_recording(scene_name(PurePosixPath(path).parent.name)) for path in paths):
        return False
    numbers = {frame_number(path) for path in paths}
    return len(numbers) == len(paths) and numbers <= set(range(LABELLED_FRAMES))


def consecutive_runs(numbers: Sequence[int | None]) -> list[int]:
    """Number the runs of consecutive frame numbers: a video's neighbors show one scene.

    Args:
        numbers: A frame number for each frame, None where a name holds none.

    Returns:
        The run of each frame, counted from 0 in the order of the numbers; a frame without a number is a run alone.

    Example:
        >>> consecutive_runs([18, 19, 250, 20, None])
        [0, 0, 1, 0, 2]
    """
    runs = [0] * len(numbers)
    run, last = -1, None
    for i, number in sorted(enumerate(numbers), key=lambda item: (item[1] is None, item[1] or 0)):
        run += number is None or last is None or number > last + 1
        runs[i], last = run, number
    return runs


def scene_name(name: str) -> str:
    """Return the scene that one of NYU's recordings shows: parts of one end in a letter, in-painted ones in ``_out``.

    Example:
        >>> scene_name("kitchen_0028b"), scene_name("living_room_0038_out"), scene_name("my_room")
        ('kitchen_0028', 'living_room_0038', 'my_room')
    """
    return re.sub(r"(_\d{4})[a-z]$", r"\1", name.removesuffix("_out"))


def name_scenes(images: Mapping[str, Sequence[str]], labelled: bool = False) -> tuple[dict[str, list[str]], str]:
    """Name scenes by what the files' names show: folders where there are several, else runs of frame numbers.

    Folders that all frames of a split share, such as ``train`` or ``rgb``, are no scenes.

    Args:
        images: Image paths by split.
        labelled: Whether frames of the labelled set may lie in folders of its kinds of room; then their numbers decide.

    Returns:
        A scene name for each image, and the rule of the first split in words.

    Example:
        >>> name_scenes({"train": ["a/rgb_00002.jpg", "a/rgb_00003.jpg", "a/rgb_00009.jpg"]})
        ({'train': ['run 00002', 'run 00002', 'run 00009']}, 'runs of consecutive frame numbers')
        >>> name_scenes({"train": ["train/desk/rgb/1.png", "train/room/rgb/1.png"], "val": ["val/desk/rgb/2.png"]})
        ({'train': ['desk', 'room'], 'val': ['desk']}, 'folders')
    """
    folders = {split: _scene_folders(split, images) for split in images}
    names: dict[str, list[str]] = {}
    rule = ""
    for split, paths in images.items():
        own, others = set(folders[split]), {scene for other in images if other != split for scene in folders[other]}
        several = len(own) > 1 or (len(others) > 1 and own <= others) or all(map(_is_recording, own or ("",)))
        kinds_of_room = labelled and not any(map(_is_recording, own)) and has_labelled_numbers(paths)  # as BTS extracts
        by_folder = several and not kinds_of_room
        names[split] = folders[split] if by_folder else _name_runs(paths)
        if paths:
            rule = rule or (FOLDERS if by_folder else RUNS)
    return names, rule or RUNS


def _scene_folders(split: str, images: Mapping[str, Sequence[str]]) -> list[str]:
    """Return each image's folder without what leads to all scenes of the split or lies inside every scene."""
    parts = {name: [PurePosixPath(path).parent.parts for path in paths] for name, paths in images.items()}
    every = {folder for folders in parts.values() for folder in folders}
    tail = 0
    while len(every) > 1 and all(len(folder) > tail + 1 for folder in every):
        if len({folder[-1 - tail] for folder in every}) > 1:
            break
        tail += 1
    own = set(parts[split])
    head = 0
    while own and all(len(folder) > head + 1 + tail for folder in own) and len({folder[head] for folder in own}) == 1:
        word = next(iter(own))[head]
        if not re.search("train|val|test", word) and any(folder[head : head + 1] != (word,) for folder in every):
            break
        head += 1
    kept = [folder[head : len(folder) - tail] for folder in parts[split]]
    return ["/".join((*folder[:-1], scene_name(folder[-1]))) if folder else "" for folder in kept]


def _is_recording(folder: str) -> bool:
    return re.search(r"_\d{4}$", folder) is not None


def _name_runs(paths: Sequence[str]) -> list[str]:
    numbers = [frame_number(path) for path in paths]
    runs = consecutive_runs(numbers)
    names: dict[int, str] = {}
    for path, number, run in sorted(zip(paths, numbers, runs, strict=True), key=lambda item: (item[1] or 0, item[0])):
        names.setdefault(run, f"run {number:05d}" if number is not None else f"frame {PurePosixPath(path).stem}")
    return [names[run] for run in runs]


def hold_out_scenes(scenes: Sequence[str], share: float = 0.05) -> set[str]:
    """Choose whole scenes for validation, the same ones every time and in any order.

    Args:
        scenes: The scene of each training frame.
        share: The least share of the frames to hold out.

    Returns:
        The scenes held out; never all of them.

    Raises:
        InputError: If there is only one scene, which cannot be both trained on and validated on.
    """
    counts = Counter(scenes)
    if len(counts) < 2:
        raise InputError(f"all training frames are of one scene, so none can be held out; {_WAYS}")
    chosen: set[str] = set()
    for scene in sorted(counts, key=_digest)[:-1]:
        if sum(counts[name] for name in chosen) >= share * len(scenes):
            break
        chosen.add(scene)
    return chosen


def part_val(
    train: Sequence[Item], val: Sequence[Item], scenes: Sequence[str], names: Sequence[str], way: str, rule: str = ""
) -> tuple[list[Item], list[Item]]:
    """Part frames into those to train on and those to validate on.

    Args:
        train: The frames to train on, of any kind.
        val: Those that the data itself names to validate on, if any.
        scenes: The scene of each frame of ``train``.
        names: A name for each frame of ``train`` and then of ``val``, whose digest chooses random frames.
        way: "scenes": ``val`` if there is any, else whole scenes of ``train``; "random_frames": a twentieth of all.
        rule: How scenes were recognized; runs of frame numbers that are mostly single frames say nothing.

    Raises:
        InputError: If scenes cannot be held out, because there is only one or they cannot be recognized.
    """
    if way == "random_frames":
        train = [*train, *val]
        count = max(1, len(train) // 20) if len(train) > 1 else 0
        held = set(sorted(range(len(train)), key=lambda i: _digest(names[i]))[:count])
    elif val or not train:
        return list(train), list(val)
    else:
        singles = sum(count == 1 for count in Counter(scenes).values())
        if rule == RUNS and singles > len(scenes) / 2:
            raise InputError(f"the frame numbers show no scenes: most have no neighbor; {_WAYS}")
        chosen = hold_out_scenes(scenes)
        held = {i for i, scene in enumerate(scenes) if scene in chosen}
    return [item for i, item in enumerate(train) if i not in held], [train[i] for i in sorted(held)]


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()  # a file's name may be no valid text
