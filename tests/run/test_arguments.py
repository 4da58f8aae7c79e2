"""What a config gives to a constructor is checked by the constructor's own type hints."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pytest
import torch
from torch import nn

from depthnet.core.types import DepthRange, ImageSize, InputError, RangeLike
from depthnet.run.arguments import check_arguments, check_value, nearest, written

ROOMS = {
    "_target_": "depthnet.data.datamodule.DepthDataModule.rooms",
    "frames": {"train": 1},
    "image_size": [48, 64],
    "depth_range": {"min": 1e-3, "max": 10},
}
ADAMW = {"_target_": "depthnet.training.optimizers.build_optimizer", "_partial_": True, "algorithm": "AdamW"}
TRAINER = {"_target_": "lightning.Trainer", "max_epochs": 1}


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (float, 1),
        (float, float("inf")),
        (bool, False),
        (int | Literal["auto"], "auto"),
        (Sequence[float], [1, 2.5]),
        (tuple[float, float] | float, [0, 1]),
        (Mapping[str, float], {"l1": 1}),
        (dict[int, int], {4: 2}),
        (ImageSize, [240, 320]),
        (RangeLike, {"min": 1, "max": 2}),
        (RangeLike | None, None),
        (torch.Tensor | float, 0.5),
        (Any, object),
    ],
)
def test_a_value_of_its_type_is_taken(hint, value):
    check_value(hint, value, "key")


@pytest.mark.parametrize(
    ("hint", "value", "line"),
    [
        (bool, "flase", "key=flase: it is true or false"),
        (bool, 1, "key=1: it is true or false"),
        (int, True, "key=true: it is a whole number"),
        (int, 1.0, "key=1.0: it is a whole number"),
        (float, True, "key=true: it is a number"),
        (float, "1", "key=1: it is a number"),
        (float | None, "x", "key=x: it is a number or null"),
        (int | Literal["auto"], "two", "key=two: it is a whole number or 'auto'"),
        (Literal["full", "cheap"], "ful", "key=ful: it is 'full' or 'cheap'"),
        (Sequence[str], "ab", "key=ab: it is [text, ...]"),
        (tuple[float, float], [1], "key=[1]: it is [a number, a number]"),
        (Mapping[str, float], {"l1": None}, "key={l1:null}: it is {text: a number}"),
        (float | torch.Tensor, "x", "key=x: it is a number or a mapping with _target_, as the files of conf/ state it"),
        (nn.Module, 3, "key=3: it is a mapping with _target_, as the files of conf/ state it"),
        (list[float], [1, "x"], "key=[1,x]: it is [a number, ...]"),
        (Mapping[str, float | list[int]], {"a": "x"}, "key={a:x}: it is {text: a number or [a whole number, ...]}"),
        (ImageSize, 240, "key=240: it is [height,width] in pixels, such as [240,320]"),
        (
            Annotated[RangeLike, ""] | None,
            {"min": "a"},
            "key={min:a}: it is {min: METERS, max: METERS}, such as {min: 0.001, max: 10} or null",
        ),
    ],
)
def test_a_value_of_another_type_is_one_line(hint, value, line):
    with pytest.raises(InputError) as told:
        check_value(hint, value, "key")
    assert str(told.value) == line


@pytest.mark.parametrize(
    ("node", "line"),
    [
        (ROOMS | {"num_workers": "two"}, "part.num_workers=two: it is a whole number or 'auto'"),  # of __init__
        (ROOMS | {"holes": "flase"}, "part.holes=flase: it is true or false"),
        (ROOMS | {"batch_sise": 2}, "part.batch_sise=2: depthnet.data.datamodule.DepthDataModule.rooms takes no "),
        (ROOMS | {"layout": 2}, "part.layout=2: it is a mapping with _target_"),  # it makes its own
        (ROOMS | {"augment": "none"}, "part.augment=none: it is a mapping with _target_"),
        ({key: ROOMS[key] for key in ("_target_", "image_size")}, "needs frames; add part.frames=VALUE"),
        (ROOMS | {"frames": "???"}, "part.frames: has no value; add part.frames=VALUE"),
        (ROOMS | {"_args_": [1]}, "part._args_: a config gives arguments by their names alone"),
        (ADAMW | {"lr": "x"}, "part.lr=x: it is a number"),
        (TRAINER | {"max_epochs": "abc"}, "part.max_epochs=abc: it is a whole number or null"),
        (TRAINER | {"max_epoch": 1}, "did you mean max_epochs"),
        (TRAINER | {"accelerator": 3}, "part.accelerator=3: it is text"),  # or an object, which is none here
        ({"x": [{"_target_": "albumentations.HorizontalFlip", "p": "x"}]}, "part.x[0].p=x: it is float"),
        ({"_target_": "albumentations.HorizontalFlp"}, "part._target_=albumentations.HorizontalFlp: there is nothing"),
        (
            {"_target_": "depthnet.training.callbacks.progress.Progress", "refresh_rate": "x"},
            "part.refresh_rate=x",
        ),  # of its base
    ],
)
def test_a_call_that_cannot_be_is_one_line_with_the_key(node, line):
    with pytest.raises(InputError) as told:
        check_arguments(node, "part")
    assert line in str(told.value)
    assert "\n" not in str(told.value)


def test_sound_calls_pass_and_keep_what_is_built_from_other_calls():
    check_arguments(ROOMS | {"augment": {"_target_": "depthnet.data.transforms.Augment", "transforms": []}}, "data")
    check_arguments(ADAMW | {"betas": [0.9, 0.95], "weight_decay": 0}, "optimizer")
    check_arguments(ADAMW | {"algorithm": "SGD", "momentum": 0.9}, "optimizer")
    check_arguments(ADAMW | {"algorithm": "Adamm", "any": 1}, "optimizer")  # the constructor refuses both
    check_arguments({"_target_": "depthnet.training.optimizers.build_optimizer"}, "optimizer", ["network"])
    check_arguments({"_target_": "lightning.pytorch.callbacks.Callback"}, "callbacks.x")


def test_the_values_are_handed_on_as_they_were_given():
    node = {"_target_": "depthnet.core.types.DepthRange", "min": 1, "max": 2}
    check_arguments(node, "range")
    assert (type(node["min"]), DepthRange(1, 2).max) == (int, 2)


def test_a_value_is_written_as_it_was_typed():
    assert written({"a": [None, False, "x", 1.5]}) == "{a:[null,false,x,1.5]}"
    assert len(written(["long"] * 99)) == 80
    assert nearest("lr", ["lr_scale", "seed", "lr2"]) == "did you mean lr2?"


@pytest.mark.parametrize(
    ("name", "known", "line"),
    [
        ("truth", ["root", "ground_truth"], "it is ground_truth now"),
        ("published", ["l1", "ssim_edge_l1"], "it is ssim_edge_l1 now"),
        ("published", ["nyu", "keras"], "it is keras now"),
        ("irv2_published", ["irv2_keras", "tiny"], "it is irv2_keras now"),
    ],
)
def test_a_former_name_is_answered_by_the_new_one(name, known, line):
    assert nearest(name, known) == line
