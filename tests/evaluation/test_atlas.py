import math

import numpy as np
import pytest

from depthnet.core.types import DepthRange
from depthnet.evaluation.atlas import MIN_PIXELS, SHARPNESS, Atlas, group_figures, mean_figures

RANGE = DepthRange(1e-3, 10.0)
SIZE = (24, 32)
ALL = np.ones(SIZE, bool)


def flat(value):
    return np.full(SIZE, value, np.float32)


def halves(left, right):
    return np.where(np.arange(SIZE[1]) < SIZE[1] // 2, left, right).astype(np.float32)[None].repeat(SIZE[0], axis=0)


def by_name(groups):
    return {group.name: group for group in groups}


def test_figures_of_groups_by_hand():
    pred, depth = np.array([1.0, 3.0, 8.0, 4.4]), np.array([2.0, 2.0, 4.0, 4.0])
    pixels, figures = group_figures(pred, depth, np.array([0, 0, 2, 2]), 4)
    assert pixels.tolist() == [2, 0, 2, 0]
    np.testing.assert_allclose(figures[0], [0.5, 0.0, 1.0, 0.0])
    np.testing.assert_allclose(figures[2], [0.55, 0.5, math.sqrt((16 + 0.16) / 2), 0.55])
    assert np.isnan(figures[[1, 3]]).all()


def test_errors_by_depth_are_means_over_images_not_over_pixels():
    atlas = Atlas(RANGE)
    near = halves(1.5, 3.5)
    atlas.add(near * 1.2, near, ALL, "a")
    atlas.add(flat(1.5), flat(1.5), ALL, "b")
    groups = by_name(atlas.groups("depth"))
    assert list(groups) == ["1–2 m", "3–4 m"]
    assert groups["1–2 m"].figures["abs_rel"].mean == pytest.approx(0.1)  # 0.2 of half an image, 0 of a whole one
    assert groups["1–2 m"].images == 2
    assert groups["1–2 m"].share == pytest.approx(0.75)
    assert groups["1–2 m"].figures["abs_rel"].interval == pytest.approx((0.0, 0.2))
    assert groups["3–4 m"].figures["bias"].mean == pytest.approx(0.2)
    assert math.isnan(groups["3–4 m"].figures["bias"].interval.low)  # one scene says nothing of others
    assert groups["3–4 m"].figures["delta1"].mean == 1.0


def test_only_valid_pixels_count_and_few_of_them_make_no_group():
    depth = flat(2.5)
    depth.flat[: MIN_PIXELS - 1] = 7.5
    mask = ALL.copy()
    mask[12:] = False
    pred = np.where(mask, depth, 999.0)
    atlas = Atlas(RANGE)
    atlas.add(pred, depth, mask, "a")
    assert [group.name for group in atlas.groups("depth")] == ["2–3 m"]
    assert atlas.groups("depth")[0].figures["abs_rel"].mean == 0
    assert atlas.histogram.sum() == mask.sum()
    atlas.add(flat(1.0), depth, np.zeros(SIZE, bool), "b")
    assert atlas.histogram.sum() == mask.sum()


def test_errors_near_edges_are_apart_from_those_far_away():
    size = (48, 96)
    depth = np.where(np.arange(96) < 48, 2.0, 5.0).astype(np.float32)[None].repeat(48, axis=0)
    near = np.abs(np.arange(96) - 47) < 4
    pred = np.where(near[None], depth * 1.5, depth)
    atlas = Atlas(RANGE)
    atlas.add(pred, depth, np.ones(size, bool), "a")
    figures = {name: group.figures["abs_rel"].mean for name, group in by_name(atlas.groups("edge")).items()}
    assert list(figures) == ["0–2 px", "2–4 px", "4–8 px", "8–16 px", "16–32 px", "32 px or more"]
    assert figures["0–2 px"] == pytest.approx(0.5)
    assert figures["16–32 px"] == figures["32 px or more"] == 0


def test_kinds_of_scene_and_object_classes():
    atlas = Atlas(RANGE, ("unlabelled", "chair", "wall"))
    objects = np.where(np.arange(32) < 16, 1, 2)[None].repeat(24, axis=0).astype(np.uint16)
    atlas.add(flat(2.0) * halves(1.1, 1.3), flat(2.0), ALL, "k1", "kitchen", objects)
    atlas.add(flat(2.0), flat(2.0), ALL, "o1", "office", np.where(objects == 2, 2, 60000).astype(np.uint16))
    kinds = by_name(atlas.groups("scene type"))
    assert kinds["kitchen"].figures["abs_rel"].mean == pytest.approx(0.2)
    assert kinds["office"].figures["abs_rel"].mean == 0
    classes = by_name(atlas.groups("object"))
    assert {name: group.images for name, group in classes.items()} == {"unlabelled": 1, "chair": 1, "wall": 2}
    assert classes["chair"].figures["abs_rel"].mean == pytest.approx(0.1)
    assert classes["wall"].figures["abs_rel"].mean == pytest.approx(0.15)
    assert [group.name for group in atlas.groups("object", most=1)] == ["wall"]


def test_the_map_of_errors_shows_where_in_images_of_any_size():
    atlas = Atlas(RANGE)
    for size in ((24, 32), (48, 64), (30, 41)):
        depth = np.full(size, 2.0)
        pred = depth.copy()
        pred[: size[0] // 3, -(size[1] // 4) :] *= 1.5
        mask = np.ones(size, bool)
        mask[-2:] = False
        atlas.add(pred, depth, mask, "a")
    whole, parts = atlas.position(), atlas.position(3, 4)
    assert whole.shape == (24, 32)
    assert parts.shape == (3, 4)
    assert parts[0, 3] == pytest.approx(0.5, abs=0.02)
    assert parts[1:].max() == parts[0, :3].max() == 0
    alone = Atlas(RANGE)
    alone.add(flat(1.0), flat(1.0), np.eye(*SIZE, dtype=bool), "a")
    assert np.isnan(alone.position()).sum() == 24 * 32 - 24


def test_predicted_depth_by_true_depth():
    atlas = Atlas(RANGE)
    pred = flat(4.02)
    pred[:6] = 8.04
    atlas.add(pred, flat(2.5), ALL, "a")
    ((name, pixels, (low, middle, high)),) = atlas.predicted()
    assert (name, pixels) == ("2–3 m", 24 * 32)
    assert low == middle == pytest.approx(4.05)
    assert high == pytest.approx(8.05)
    assert atlas.histogram[25, 40] == 18 * 32
    assert atlas.histogram[25, 80] == 6 * 32
    atlas.add(flat(10.0), flat(9.99), ALL, "b")  # the range's end is in the last step
    assert atlas.histogram[99, 99] == 24 * 32


def test_sharpness_of_a_perfect_and_of_a_flat_prediction():
    depth = halves(2.0, 5.0)
    atlas = Atlas(RANGE)
    atlas.add(depth, depth, ALL, "a")
    atlas.add(flat(3.0), flat(3.0), ALL, "b")  # its ground truth has no boundary, so it counts nowhere
    assert {name: figure.mean for name, figure in atlas.sharpness().items()} == dict(
        zip(SHARPNESS, (1, 1, 0, 0), strict=True)
    )
    atlas.add(flat(3.0), depth, ALL, "c")
    assert {name: figure.mean for name, figure in atlas.sharpness().items()} == dict(
        zip(SHARPNESS, (0.5, 0.5, 5, 5), strict=True)
    )


def test_means_leave_out_the_images_without_a_value():
    figures = mean_figures(("one", "two", "none"), [(1, math.nan, math.nan), (3, 5, math.nan)], ("a", "b"))
    assert figures["one"].mean == 2
    assert tuple(figures["one"].interval) == (1, 3)
    assert figures["two"].mean == 5
    assert math.isnan(figures["two"].interval.low)
    assert list(figures) == ["one", "two"]
    assert mean_figures(("one",), [], ()) == {}


def test_another_range_has_other_groups():
    atlas = Atlas(DepthRange(0.1, 80.0))
    atlas.add(flat(30.0), flat(30.0), ALL, "a")
    assert [group.name for group in atlas.groups("depth")] == ["24–32 m"]
