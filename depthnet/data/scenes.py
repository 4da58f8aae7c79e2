"""Which frames show one scene, and which scenes are held out: frames of one scene are not independent."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from depthnet.types import InputError

__all__ = ["consecutive_runs", "frame_number", "hold_out_scenes", "name_scenes", "part_val", "scene_name"]

Item = TypeVar("Item")


def frame_number(name: str) -> int | None:
    """Return the last number in a file's name; None where there is none.

    Example:
        >>> frame_number("train/rgb_00018.jpg"), frame_number("00018_colors"), frame_number("kitchen/photo.jpg")
        (18, 18, None)
    """
    digits = re.findall(r"\d+", PurePosixPath(name).stem)
    return int(digits[-1]) if digits else None


def consecutive_runs(numbers: Sequence[int | None]) -> list[int]:
    """Number the runs of consecutive frame numbers: a video's neighbours show one scene.

    Args:
        numbers: A frame number for each frame, None where a name holds none.

    Returns:
        The run of each frame, counted from 0 in the order of the numbers; a frame without a number is a run alone.

    Example:
        >>> consecutive_runs([18, 19, 250, 20, None])
        [0, 0, 1, 0, 2]
    """
    order = sorted(range(len(numbers)), key=lambda i: (numbers[i] is None, numbers[i] or 0))
    runs = [0] * len(numbers)
    run, last = -1, None
    for i in order:
        number = numbers[i]
        if number is None or last is None or number not in (last, last + 1):
            run += 1
        runs[i] = run
        last = number
    return runs


def scene_name(name: str) -> str:
    """Return the scene that one of NYU's recordings shows: parts of one end in a letter, in-painted ones in ``_out``.

    Example:
        >>> scene_name("kitchen_0028b"), scene_name("living_room_0038_out"), scene_name("my_room")
        ('kitchen_0028', 'living_room_0038', 'my_room')
    """
    return re.sub(r"(_\d{4})[a-z]$", r"\1", name.removesuffix("_out"))


def name_scenes(images: Sequence[str], others: Sequence[str] = ()) -> tuple[list[str], str]:
    """Tell scenes apart by what the names show: the folder when there are several, else runs of frame numbers.

    Args:
        images: Image paths of one split.
        others: Those of another split, in whose several folders this one's single folder counts as a scene too.

    Returns:
        A scene name for each image, and the rule in words.

    Example:
        >>> name_scenes(["a/rgb_00002.jpg", "a/rgb_00003.jpg", "a/rgb_00009.jpg"])
        (['run 00002', 'run 00002', 'run 00009'], 'runs of consecutive frame numbers')
    """
    folders = [str(PurePosixPath(image).parent) for image in images]
    scenes = {str(PurePosixPath(other).parent) for other in others}
    if len(set(folders)) > 1 or (len(scenes) > 1 and set(folders) <= scenes):
        return [scene_name(PurePosixPath(folder).name) for folder in folders], "folders"
    numbers = [frame_number(image) for image in images]
    runs = consecutive_runs(numbers)
    names: dict[int, str] = {}
    for image, number, run in sorted(zip(images, numbers, runs, strict=True), key=lambda item: (item[1] or 0, item[0])):
        names.setdefault(run, f"run {number:05d}" if number is not None else f"frame {PurePosixPath(image).stem}")
    return [names[run] for run in runs], "runs of consecutive frame numbers"


def hold_out_scenes(scenes: Sequence[str], share: float = 0.05) -> set[str]:
    """Choose whole scenes for validation, the same ones every time and whatever the order.

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
        raise InputError(
            "all training frames are of one scene, so none can be held out; name val frames in a list, put scenes into "
            "folders of their own, or accept neighbours in both with data.val=random_frames"
        )
    chosen: set[str] = set()
    held = 0
    for scene in sorted(counts, key=_digest):
        if held >= share * len(scenes) or len(chosen) == len(counts) - 1:
            break
        chosen.add(scene)
        held += counts[scene]
    return chosen


def part_val(
    train: Sequence[Item], val: Sequence[Item], scenes: Sequence[str], names: Sequence[str], way: str
) -> tuple[list[Item], list[Item]]:
    """Part frames into those to train on and those to validate on.

    Args:
        train: The frames to train on, of any kind.
        val: Those that the data itself names to validate on, if any.
        scenes: The scene of each frame of ``train``.
        names: A name for each frame of ``train`` and then of ``val``, whose digest chooses random frames.
        way: "scenes": ``val`` if there is any, else whole scenes of ``train``; "random_frames": a twentieth of all.

    Raises:
        InputError: As :func:`hold_out_scenes`.
    """
    if way == "random_frames":
        everything = [*train, *val]
        count = max(1, len(everything) // 20) if len(everything) > 1 else 0
        drawn = set(sorted(range(len(everything)), key=lambda i: _digest(names[i]))[:count])
        held = [i in drawn for i in range(len(everything))]
    elif val or not train:
        return list(train), list(val)
    else:
        everything, chosen = list(train), hold_out_scenes(scenes)
        held = [scene in chosen for scene in scenes]
    return (
        [item for item, out in zip(everything, held, strict=True) if not out],
        [item for item, out in zip(everything, held, strict=True) if out],
    )


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
