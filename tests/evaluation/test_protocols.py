"""Protocols against a plain NumPy reference, their definitions pinned, and data that they must refuse."""

import dataclasses
import math
import re
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depthnet.core.types import Crop, DepthRange, InputError, RelativeCrop
from depthnet.evaluation.protocols import (
    PROTOCOLS,
    Align,
    Protocol,
    default_protocol,
    find_protocols,
    resize_prediction,
)
from depthnet.run import files

RANGE = DepthRange(1e-3, 10.0)
NYU = (480, 640)
DIGESTS = {  # of depths to 10 m where a protocol takes the data's range; a new protocol adds its line
    "nyu_eigen": "9878dffa18c3",
    "nyu_eigen_filled": "12cd24b250f3",
    "nyu_center": "3a610fe62e5b",
    "nyu_densedepth": "914cd9dfce0e",
    "uncropped": "0b32ad8a6d43",
    "median_scaled": "b8a5407db17b",
    "scale_shift": "ecaa256aaab3",
    "disparity_scale_shift": "5a5614a4f926",
    "published_keras": "57fb60ec5aab",
}


def protocol(**fields):
    """A protocol without crop or alignment for any data, with some fields replaced."""
    return dataclasses.replace(PROTOCOLS["uncropped"], depth_range=RANGE, **fields)


def maps(*values):
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def resized(pred, size):
    """Bilinear with corners aligned, one image in NumPy float64, by loops."""
    out = np.empty(size)
    for y, x in np.ndindex(size):
        row, column = (
            place * (old - 1) / (new - 1) if new > 1 else 0.0
            for place, old, new in zip((y, x), pred.shape, size, strict=True)
        )
        top, left = int(row), int(column)
        low, right = min(top + 1, pred.shape[0] - 1), min(left + 1, pred.shape[1] - 1)
        dy, dx = row - top, column - left
        above = pred[top, left] * (1 - dx) + pred[top, right] * dx
        below = pred[low, left] * (1 - dx) + pred[low, right] * dx
        out[y, x] = above * (1 - dy) + below * dy
    return out


def aligned(pred, depth, valid, align):
    """Median or least squares by NumPy's own functions."""
    p, t = pred[valid], depth[valid]
    if align == "min_max":
        return scaled(pred, np.isfinite(pred))
    if align == "none" or p.size == 0:
        return pred
    if align == "disparity_scale_shift":  # the published fit, of 1 / depth; a reversed one is the mean
        with np.errstate(divide="ignore"):
            fitted = aligned(1 / pred, 1 / depth, valid, "scale_shift")
        return 1 / np.clip(fitted, 1 / 10, 1 / 1e-3)
    if align == "median":
        return pred * (np.median(t) / np.median(p))
    if np.ptp(p) == 0:
        return pred + (t.mean() - p[0])
    scale, shift = np.linalg.lstsq(np.stack([p, np.ones_like(p)], 1), t, rcond=None)[0]
    return pred * scale + shift if scale > 0 else np.full_like(pred, t.mean())


def scaled(values, valid):
    """A map between its own valid extremes, 0 to 7.5, in float64."""
    inside = values[valid].astype(np.float64)
    low, high = (inside.min(), inside.max()) if inside.size else (0.0, 0.0)
    return (values - low) / (high - low) * 10 * 0.75 if high > low else np.zeros(values.shape)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    small=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    size=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    align=st.sampled_from(["none", "median", "scale_shift", "disparity_scale_shift", "min_max"]),
    crop=st.sampled_from([None, Crop(1, 2, 0, 2), Crop(0, 99, 1, 99)]),
    holes=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_equals_an_independent_numpy_reference(seed, small, size, align, crop, holes):
    rng = np.random.default_rng(seed)
    pred = rng.uniform(0.5, 6.0, (2, 1, *small)).astype(np.float32)
    depth = rng.choice([0.0, 1e-3, 1.0, 2.5, 7.0, 10.0, 11.0, np.nan, np.inf], (2, 1, *size)).astype(np.float32)
    depth = np.where(rng.random(depth.shape) < 0.5, rng.uniform(0.5, 9.5, depth.shape), depth).astype(np.float32)
    mask = rng.random(depth.shape) >= holes

    got = protocol(align=align, crop=crop)(*(torch.from_numpy(x.copy()) for x in (pred, depth, mask)))

    for index in range(2):
        ground_truth = depth[index, 0]
        valid = mask[index, 0] & (ground_truth > np.float32(1e-3)) & (ground_truth < np.float32(10))
        if align == "min_max":
            ground_truth = scaled(ground_truth, valid).astype(np.float32)
            valid &= ground_truth > np.float32(1e-3)
        if crop is not None:
            inside = np.zeros(size, bool)
            inside[crop.top : crop.bottom, crop.left : crop.right] = True
            valid &= inside
        expected = resized(pred[index, 0].astype(np.float64), size)
        near = np.ptp(expected) < 1e-2  # of a prediction that is nearly constant much rounding is scaled up
        expected = np.clip(aligned(expected, ground_truth.astype(np.float64), valid, align), 1e-3, 10.0)
        exact = 2e-6 if align in ("none", "median") else 1e-3  # the others multiply the resize's rounding
        if align == "min_max" and near:
            continue
        assert got[0][index, 0].numpy() == pytest.approx(expected, rel=exact, abs=exact / 10)
        assert (got[2][index, 0].numpy() == valid).all()
        assert got[1][index, 0].numpy()[valid].tobytes() == ground_truth[valid].tobytes()
    assert got[0].dtype == torch.float32
    assert align == "min_max" or got[1].numpy().tobytes() == depth.tobytes()


def test_range_is_open_and_a_useless_prediction_is_clamped():
    depth = maps(0.0, 1e-3, 0.00101, 9.999, 10.0, 11.0, math.nan, math.inf)
    pred = maps(math.nan, math.inf, -math.inf, -1.0, 0.0, 99.0, 3.0, 1e-3)
    pred, _, mask = protocol()(pred, depth, torch.ones_like(depth, dtype=torch.bool))
    assert mask.flatten().tolist() == [False, False, True, True, False, False, False, False]
    low = np.float32(1e-3).item()
    assert pred.flatten().tolist() == [low, 10.0, low, low, low, 10.0, 3.0, low]


def test_a_hole_stays_a_hole():
    depth = maps(2.0, 2.0)
    _, _, mask = protocol()(depth, depth, torch.tensor([True, False]).view(1, 1, 1, 2))
    assert mask.flatten().tolist() == [True, False]


def test_known_mistake_clamp_before_resize():
    depth = torch.full((1, 1, 1, 3), 6.0)
    pred, _, _ = protocol()(maps(4.0, 16.0), depth, depth > 0)
    assert pred.flatten().tolist() == [4.0, 10.0, 10.0]  # clamped first, the middle would be 7


def test_known_mistake_resize_without_aligned_corners():
    depth = torch.full((1, 1, 1, 5), 6.0)
    pred, _, _ = protocol()(maps(1.0, 3.0, 5.0), depth, depth > 0)
    assert pred.flatten().tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_prediction_of_the_depths_size_keeps_its_bits():
    pred = torch.rand(2, 1, 7, 9) + 1.0
    mask = torch.ones_like(pred, dtype=torch.bool)
    assert torch.equal(protocol()(pred, pred, mask)[0], pred)
    assert torch.equal(protocol()(pred.bfloat16(), pred, mask)[0], pred.bfloat16().float())


def test_what_it_is_given_is_left_as_it_was():
    given = (maps(math.nan, 20.0), maps(1.0, 20.0), torch.ones(1, 1, 1, 2, dtype=torch.bool))
    before = [tensor.clone() for tensor in given]
    PROTOCOLS["median_scaled"].within(RANGE)(*given)
    for tensor, old in zip(given, before, strict=True):
        assert torch.equal(tensor.nan_to_num(7.0), old.nan_to_num(7.0))


def test_predictions_are_resized_once_and_the_same_for_all():
    pred = torch.rand(2, 1, 3, 4, dtype=torch.float64, generator=torch.manual_seed(0))
    big = resize_prediction(pred, (6, 9))
    assert big.dtype == torch.float32
    assert resize_prediction(big, (6, 9)) is big
    depth = torch.full((2, 1, 6, 9), 2.0)
    for align in get_args(Align):
        one, other = (protocol(align=align)(given, depth, depth > 0)[0] for given in (pred, big))
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("nyu_eigen", 426 * 560),
        ("nyu_center", 456 * 608),
        ("nyu_densedepth", 440 * 592),
        ("published_keras", 441 * 593),
    ],
)
def test_nyu_crops(name, pixels):
    depth = torch.full((1, 1, *NYU), 2.0)
    depth[..., 0, 0] = 1.0  # outside every crop
    crop = PROTOCOLS[name].crop
    _, _, mask = PROTOCOLS[name](torch.full((1, 1, 240, 320), 3.0), depth, depth > 0)
    assert mask.sum() == pixels
    assert mask[0, 0, crop.top, crop.left]
    assert mask[0, 0, crop.bottom - 1, crop.right - 1]
    assert not mask[0, 0, : crop.top].any()
    assert not mask[0, 0, :, crop.right :].any()


def test_a_relative_crop_is_of_any_size():
    crop = RelativeCrop(0.5, 1, 0.25, 0.75)
    for height, width in ((4, 8), (6, 40)):
        depth = torch.full((1, 1, height, width), 2.0)
        _, _, mask = protocol(crop=crop)(depth[..., :2, :2], depth, depth > 0)
        assert mask[..., height // 2 :, width // 4 : width * 3 // 4].all()
        assert mask.sum() == height * width // 4
    assert f"strictly inside {crop}." in protocol(crop=crop).definition
    assert protocol(crop=RelativeCrop(0, 1, 0, 1)).digest != protocol(crop=Crop(0, 1, 0, 1)).digest
    with pytest.raises(InputError, match="hold no pixel"):
        protocol(crop=RelativeCrop(0, 0.1, 0, 1))(depth, depth, depth > 0)
    for wrong in ((0.5, 0.5, 0, 1), (0, 1.1, 0, 1), (0, 1, -0.1, 1)):
        with pytest.raises(InputError, match="shares from 0 to 1"):
            RelativeCrop(*wrong)


def test_median_scaling_by_hand():
    depth, mask = maps(2.0, 4.0, 8.0, 9.0, 3.0), torch.tensor([1, 1, 1, 1, 0], dtype=torch.bool).view(1, 1, 1, 5)
    pred, _, _ = protocol(align="median")(maps(1.0, 2.0, 4.0, 400.0, 1.5), depth, mask)
    # Medians of an even number are means of two: 6 over 3. The wild prediction is clamped after it was counted.
    assert pred.flatten().tolist() == [2.0, 4.0, 8.0, 10.0, 3.0]


def test_scale_and_shift_by_hand():
    depth, mask = maps(3.0, 5.0, 7.0, 9.0), torch.tensor([1, 1, 1, 0], dtype=torch.bool).view(1, 1, 1, 4)
    pred, _, _ = protocol(align="scale_shift")(maps(-10.0, 0.0, 10.0, 30.0), depth, mask)
    assert pred.flatten().tolist() == [3.0, 5.0, 7.0, 10.0]


def test_disparity_scale_and_shift_by_hand():
    depth, mask = maps(1.0, 2.0, 4.0, 9.0, 9.0), torch.tensor([1, 1, 1, 0, 0], dtype=torch.bool).view(1, 1, 1, 5)
    aligns = protocol(align="disparity_scale_shift")
    # 1 / pred is 2.25, 1.25, 0.75; half of it less 0.125 is 1 / depth; what is fitted below 1 / 10 is clamped to it
    pred = maps(1 / 2.25, 1 / 1.25, 1 / 0.75, 1 / 0.25, 1 / 8.25)
    assert aligns(pred, depth, mask)[0].flatten().tolist() == pytest.approx([1.0, 2.0, 4.0, 10.0, 0.25], rel=1e-6)
    assert aligns(pred * 7, depth, mask)[0].flatten().tolist() == pytest.approx([1.0, 2.0, 4.0, 10.0, 0.25], rel=1e-6)
    # what cannot be inverted takes no part and keeps its place at the end of the range
    odd = aligns(maps(1.0, 2.0, 0.0, -1.0, math.inf), depth, depth > 0)[0].flatten().tolist()
    assert odd == pytest.approx([1.0, 2.0, 1e-3, 1e-3, 10.0])


@pytest.mark.parametrize(
    ("align", "wrong_way", "constant"),
    [
        ("scale_shift", lambda depth: 1 / depth, lambda t: t.mean()),
        ("scale_shift", lambda depth: 20 - depth, lambda t: t.mean()),
        ("disparity_scale_shift", lambda depth: 1 / depth, lambda t: 1 / (1 / t).mean()),
    ],
)
def test_a_prediction_that_runs_the_wrong_way_is_worth_a_constant(align, wrong_way, constant):
    depth = torch.rand(1, 1, 20, 30, generator=torch.manual_seed(0)) * 8 + 1
    pred, _, _ = protocol(align=align)(wrong_way(depth), depth, depth > 0)
    assert pred.flatten().numpy() == pytest.approx(np.full(600, constant(depth.double()).item()), rel=1e-6)
    right, _, _ = protocol(align=align)(depth, depth, depth > 0)
    assert right.numpy() == pytest.approx(depth.numpy(), rel=1e-5)


def test_each_image_is_aligned_by_itself_over_the_pixels_of_the_protocol():
    depth = torch.full((2, 1, 2, 2), 4.0)
    depth[:, :, 1] = 9.0
    pred = torch.stack([torch.full((1, 2, 2), 2.0), torch.full((1, 2, 2), 1.0)])
    for align in ("median", "scale_shift", "disparity_scale_shift"):
        got, _, _ = protocol(align=align, crop=Crop(0, 1, 0, 2))(pred, depth, depth > 0)
        assert got.tolist() == torch.full((2, 1, 2, 2), 4.0).tolist()


@pytest.mark.parametrize("align", ["median", "scale_shift", "disparity_scale_shift"])
def test_alignment_without_anything_to_fit_leaves_the_prediction(align):
    pred, depth = maps(1.0, 2.0), maps(3.0, 3.0)
    nothing, everything = torch.zeros(1, 1, 1, 2, dtype=torch.bool), torch.ones(1, 1, 1, 2, dtype=torch.bool)
    aligns = protocol(align=align)
    assert aligns(pred, depth, nothing)[0].flatten().tolist() == [1.0, 2.0]
    assert aligns(pred * math.nan, depth, everything)[0].flatten().tolist() == [np.float32(1e-3)] * 2
    one = aligns(maps(1.0, math.nan), depth, everything)[0].flatten().tolist()
    assert one == [3.0, np.float32(1e-3)]  # one pixel is fitted; a prediction of NaN takes no part


@pytest.mark.parametrize("middle", [0.0, -1.0])
def test_a_median_that_is_not_positive_scales_nothing(middle):
    depth = maps(3.0, 3.0, 3.0)
    pred, _, _ = protocol(align="median")(maps(-2.0, middle, 2.0), depth, depth > 0)
    assert pred.flatten().tolist() == [np.float32(1e-3), np.float32(1e-3), 2.0]


@pytest.mark.parametrize(
    ("name", "ground_truth", "size", "message"),
    [
        ("nyu_eigen", "filled", NYU, "protocol nyu_eigen needs raw ground truth of 480x640 pixels; this is "
         "filled ground truth of 480x640 pixels, for which there is nyu_eigen_filled, nyu_densedepth, uncropped"),
        ("nyu_eigen_filled", "raw", NYU, "needs filled ground truth .* for which there is nyu_eigen, nyu_center, "),
        ("nyu_eigen_filled", "filled", (240, 320), "this is filled ground truth of 240x320 .* there is uncropped"),
    ],
)  # fmt: skip
def test_other_ground_truth_or_size_is_refused_by_name(name, ground_truth, size, message):
    with pytest.raises(InputError, match=message):
        PROTOCOLS[name].check(ground_truth, size)
    with pytest.raises(InputError, match=message):
        find_protocols(name, ground_truth, size)


def test_a_frame_of_another_size_is_refused_when_it_comes():
    depth = torch.full((1, 1, 240, 320), 2.0)
    with pytest.raises(InputError, match=r"needs filled .* 480x640 pixels; this is filled ground truth of 240x320"):
        PROTOCOLS["nyu_eigen_filled"](depth, depth, depth > 0)


def test_fitting_data_is_taken():
    PROTOCOLS["nyu_eigen"].check("raw", NYU)
    for size in ((1, 1), NYU, (120, 160)):
        for ground_truth in ("raw", "filled"):
            PROTOCOLS["uncropped"].check(ground_truth, size)


def test_range_may_be_narrowed_and_never_widened():
    nyu = PROTOCOLS["nyu_eigen"]
    assert nyu.within(DepthRange(1e-4, 80.0)) == nyu
    assert nyu.within(RANGE) == nyu
    assert PROTOCOLS["uncropped"].within(DepthRange(0.5, 8.0)).depth_range == DepthRange(0.5, 8.0)
    for narrower in (DepthRange(1e-3, 9.0), DepthRange(0.1, 10.0)):
        with pytest.raises(InputError, match=r"counts depths from 0.001 to 10.0 m, but data.depth_range is"):
            nyu.within(narrower)


def test_an_open_range_is_an_error():
    depth = torch.full((2, 1, 4, 4), 2.0)
    with pytest.raises(ValueError, match="call within"):
        PROTOCOLS["uncropped"](depth, depth, depth > 0)


def test_what_is_computed_does_not_change_unnoticed():
    # A digest stands beside published numbers. Whoever changes one makes a new protocol: give it a new name.
    own = {name: value if value.depth_range else value.within(RANGE) for name, value in PROTOCOLS.items()}
    assert {name: value.digest for name, value in own.items()} == DIGESTS
    flipped = [dataclasses.replace(value, flip_test=True).digest for value in own.values()]
    assert len({*DIGESTS.values(), *flipped}) == 2 * len(PROTOCOLS)
    assert set(files._DIGESTS.values()) <= {*DIGESTS.values(), *flipped}  # what older runs stored
    assert not files._DIGESTS.keys() & {*DIGESTS.values(), *flipped}


def test_digest_covers_what_is_computed_and_no_prose():
    base = PROTOCOLS["nyu_eigen"]
    prose = {"name": "other", "source": ""}
    changes = {
        "ground_truth": "filled",
        "size": None,
        "crop": Crop(45, 471, 41, 600),
        "depth_range": DepthRange(1e-3, 9.9),
        "align": "median",
        "flip_test": True,
    }
    assert {*changes, *prose} == {field.name for field in dataclasses.fields(Protocol)}
    digests = {dataclasses.replace(base, **{field: value}).digest for field, value in changes.items()}
    assert len(digests | {base.digest}) == len(changes) + 1
    assert dataclasses.replace(base, **prose).digest == base.digest
    assert re.fullmatch("[0-9a-f]{12}", base.digest)


def test_every_protocol_is_defined_in_words():
    for name, value in PROTOCOLS.items():
        assert value.name == name
        assert value.source
        assert not value.flip_test
        for words in (value.crop and f"inside {value.crop}", "strictly", "averaged"):
            assert not words or words in value.definition
        assert value.align.endswith("scale_shift") == ("least squares" in value.definition)


def test_names_are_found_once_each_in_order():
    def names(*args):
        return [found.name for found in find_protocols(*args)]

    assert names("nyu_eigen", "raw", NYU) == ["nyu_eigen"]
    assert names(["uncropped", "nyu_eigen", "uncropped"], "raw", NYU) == ["uncropped", "nyu_eigen"]
    plain = ["uncropped", "median_scaled", "scale_shift", "disparity_scale_shift"]
    assert {"nyu_eigen", "nyu_center", *plain, "published_keras"} <= set(names("all", "raw", NYU))
    assert {"nyu_eigen_filled", "nyu_densedepth", *plain, "published_keras"} <= set(names("all", "filled", NYU))
    assert names("all", "raw", NYU) == [name for name in PROTOCOLS if PROTOCOLS[name].fits("raw", NYU)]
    assert names(["nyu_densedepth", "all"], "filled", NYU)[:3] == ["nyu_densedepth", "nyu_eigen_filled", "uncropped"]
    assert not {"nyu_eigen", "nyu_center", "published_keras"} & set(names("all", "raw", (120, 160)))


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(
        InputError, match=r"nyu_eigenn is unknown; did you mean nyu_eigen.*There are nyu_eigen, .* and all"
    ):
        find_protocols(["nyu_eigenn"], "raw", NYU)
    with pytest.raises(InputError, match="zzz is unknown; there are nyu_eigen"):
        find_protocols("zzz", "raw", NYU)
    with pytest.raises(InputError, match=r"nyu_eigne_flip is unknown; did you mean nyu_eigen.*NAME_flip"):
        find_protocols("nyu_eigne_flip", "raw", NYU)
    for name in ("all_flip", "uncropped_flip_flip", "_flip"):
        with pytest.raises(InputError, match=f"{name} is unknown"):
            find_protocols(name, "raw", NYU)
    with pytest.raises(InputError, match="needs filled ground truth"):
        find_protocols("nyu_densedepth_flip", "raw", NYU)
    with pytest.raises(InputError, match="none is named"):
        find_protocols([], "raw", NYU)


def test_default_follows_the_data():
    assert default_protocol(True, "raw", NYU) == "nyu_eigen"
    assert default_protocol(True, "filled", NYU) == "nyu_eigen_filled"
    assert default_protocol(True, "filled", (240, 320)) == "uncropped"
    assert default_protocol(False, "filled", NYU) == "uncropped"
    for ground_truth in ("raw", "filled"):
        find_protocols(default_protocol(True, ground_truth, NYU), ground_truth, NYU)
