"""One contract for every layout: the same frames, written in each form, give the same tensors, counts and findings."""

import csv

import numpy as np
import pytest
import torch
from mat_file import random_frames, write_mat
from PIL import Image

from depthnet.data.datamodule import DepthDataModule
from depthnet.data.layouts.layout import SPLITS
from depthnet.data.layouts.official import TEST_FRAMES
from depthnet.data.layouts.registry import open_root
from depthnet.data.validation.check import cheap_findings, examine

FRAMES = 24
RANGE = {"min": 1e-3, "max": 10.0}


def write_pair(root, frame, image, depth, ground_truth):
    for name in (image, depth):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame.image).save(root / image)
    meters = frame.raw if ground_truth == "raw" else frame.depth
    Image.fromarray(np.rint(meters * 1000).astype(np.uint16)).save(root / depth)


def write_lists(root, frames, ground_truth):
    rows = {"train": [], "test": []}
    for number, frame in enumerate(frames):
        image, depth = f"{frame.scene}/rgb_{number:05d}.png", f"{frame.scene}/sync_depth_{number:05d}.png"
        write_pair(root, frame, image, depth, ground_truth)
        rows["test" if number in TEST_FRAMES else "train"].append(f"{image} {depth} 518.8579\n")
    for split, lines in rows.items():
        (root / f"nyudepthv2_{split}_files_with_gt.txt").write_text("".join(lines))


def write_kaggle(root, frames, ground_truth):
    rows = {"train": [], "test": []}
    for number, frame in enumerate(frames):
        if number in TEST_FRAMES:
            split, image, depth = "test", f"nyu2_test/{number:05d}_colors.png", f"nyu2_test/{number:05d}_depth.png"
        else:
            split, image, depth = "train", *(f"nyu2_train/{frame.scene}_out/{number}{end}.png" for end in ("", "_d"))
        write_pair(root / "data", frame, image, depth, ground_truth)
        rows[split].append(f"data/{image},data/{depth}\n")
    for split, lines in rows.items():
        (root / f"data/nyu2_{split}.csv").write_text("".join(lines))


def write_labelled(root, frames, ground_truth):
    root.mkdir()
    write_mat(root / "nyu_depth_v2_labeled.mat", frames)


def write_folder(root, frames, ground_truth):
    for number, frame in enumerate(frames):
        split = "test" if number in TEST_FRAMES else "train"
        name = f"{split}/{frame.scene}/{number:05d}.png"
        write_pair(root, frame, f"images/{name}", f"depths/{name}", ground_truth)


def write_manifest(root, frames, ground_truth):
    with_header = [("image", "depth", "split", "scene", "unit")]
    for number, frame in enumerate(frames):
        image, depth = f"{number:05d}_image.png", f"{number:05d}_depth.png"
        write_pair(root, frame, image, depth, ground_truth)
        split = "test" if number in TEST_FRAMES else "train"
        with_header.append((image, depth, split, frame.scene[:-1], "mm"))
    with (root / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(with_header)


FORMS = {
    "lists": (write_lists, {}),
    "kaggle": (write_kaggle, {}),
    "labelled": (write_labelled, {}),
    "folder": (write_folder, {"unit": "mm", "depth_range": RANGE}),
    "manifest": (write_manifest, {"depth_range": RANGE}),
}


@pytest.fixture(scope="module", params=["filled", "raw"])
def roots(request, tmp_path_factory):
    """The same frames in each form, and their ground truth."""
    where = tmp_path_factory.mktemp(request.param)
    frames = random_frames(FRAMES)
    for number, frame in enumerate(frames):  # sorted as files are; no scene lies in both halves of the official split
        kind = "store" if number in TEST_FRAMES else "room"
        frames[number] = frame._replace(scene=f"{kind}_{number // 4:04d}{'ab'[number % 4 // 2]}")
    for form, (write, _) in FORMS.items():
        write(where / form, frames, request.param)
    return where, request.param, frames


def opened(roots, form):
    where, ground_truth, _ = roots
    return open_root(
        where / form, ground_truth="raw" if form == "labelled" and ground_truth == "raw" else "auto", **FORMS[form][1]
    )


@pytest.mark.parametrize("form", FORMS)
def test_counts_ranges_scenes_and_findings_are_the_same(roots, form):
    layout, model = opened(roots, form), opened(roots, "lists")
    assert layout.name == ("folder" if form == "manifest" else form)
    assert layout.ground_truth == roots[1]
    assert layout.depth_range == model.depth_range
    assert [layout.count(split) for split in SPLITS] == [model.count(split) for split in SPLITS]
    assert all(layout.count(split) for split in SPLITS)
    for split in ("train", "val"):
        frames = range(layout.count(split))
        assert [layout.scene(split, i) for i in frames] == [model.scene(split, i) for i in frames]
        assert len({layout.label(split, i) for i in frames}) == len(frames)
    official = [(finding.name, finding.splits) for finding in cheap_findings(model)]
    assert official == [("test_list", ("test",))]  # these few are not the 654
    assert [(finding.name, finding.splits) for finding in cheap_findings(layout)] == (official if layout.nyu else [])


@pytest.mark.parametrize("form", FORMS)
def test_pairs_are_what_was_written(roots, form):
    layout, (_, ground_truth, frames) = opened(roots, form), roots
    test = [number for number in range(FRAMES) if number in TEST_FRAMES]
    labels = [layout.label("test", place) for place in range(layout.count("test"))]
    for place, label in enumerate(labels):
        number = next(number for number in test if f"{number:05d}" in label)
        image, depth = layout.read("test", place)
        assert (image.dtype, depth.dtype) == (np.uint8, np.float32)
        assert image.flags.c_contiguous
        assert depth.flags.c_contiguous
        assert (image == frames[number].image).all()
        assert (depth == (frames[number].raw if ground_truth == "raw" else frames[number].depth)).all()
        assert layout.size("test", place) == depth.shape


@pytest.mark.parametrize("form", [form for form in FORMS if form != "lists"])
@pytest.mark.parametrize("cache", ["none", "disk"])
def test_tensors_are_the_same(roots, form, cache, tmp_path):
    options = {"image_size": [24, 40], "batch_size": 4, "eval_batch_size": 3, "num_workers": 0, "cache_dir": tmp_path}
    ours = DepthDataModule(opened(roots, form), **options, cache=cache, allow=["test_list"])
    model = DepthDataModule(opened(roots, "lists"), **options, allow=["test_list"])
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        batches = list(zip(getattr(ours, loader)(), getattr(model, loader)(), strict=True))
        assert batches
        for one, other in batches:
            assert all(torch.equal(a, b) for a, b in zip(one[:4], other[:4], strict=True))
            assert not other.intrinsics.isnan().any()
            known = ours.layout.nyu  # nobody states the camera of one's own pairs
            assert torch.equal(one.intrinsics, other.intrinsics) if known else one.intrinsics.isnan().all()


@pytest.mark.parametrize("form", FORMS)
def test_what_is_wrong_with_a_frame_is_found_in_each_form(tmp_path, form):
    frames = random_frames(FRAMES)
    for number, frame in enumerate(frames):
        kind = "store" if number in TEST_FRAMES else "room"
        frames[number] = frame._replace(scene=f"{kind}_{number:04d}a")
    frames[3] = frames[3]._replace(depth=np.zeros_like(frames[3].depth))
    frames[6] = frames[6]._replace(depth=np.full_like(frames[6].depth, 30.0))
    frames[20] = frames[20]._replace(image=frames[10].image)  # a training frame and a test frame
    write, options = FORMS[form]
    write(tmp_path / form, frames, "filled")
    layout = open_root(tmp_path / form, ground_truth="filled", **options)
    found = {(finding.name, finding.splits) for finding in examine(layout, None).findings}
    train = {number: "val" if layout.scene("val", 0) == f"room_{number:04d}" else "train" for number in (3, 6)}
    expected = {("no_depth", (train[3],)), ("unit", (train[6],)), ("near_duplicate", ("train", "test"))}
    assert found == expected | ({("test_list", ("test",))} if layout.nyu else set())


def test_8_bit_depth_is_within_its_quantisation(roots, tmp_path):
    _, ground_truth, frames = roots
    write_kaggle(tmp_path, frames, ground_truth)
    for path in (tmp_path / "data/nyu2_train").rglob("*_d.png"):
        with Image.open(path) as picture:
            levels = np.asarray(picture)
        Image.fromarray(np.rint(levels / 10000 * 255).astype(np.uint8)).save(path)
    layout, model = open_root(tmp_path), opened(roots, "lists")
    for split in ("train", "val"):
        for frame in range(layout.count(split)):
            assert np.abs(layout.read(split, frame)[1] - model.read(split, frame)[1]).max() <= 10 / 255 / 2 + 1e-6
