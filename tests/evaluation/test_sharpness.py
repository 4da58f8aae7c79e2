import itertools
import math

import numpy as np
import pytest

from depthnet.evaluation.sharpness import EDGE_REACH, boundary_errors, boundary_f1, depth_edges, edge_distance, edge_f1


def blocks(seed=0, size=(40, 56), cell=8):
    """Rectangles of random depth: jumps in all four directions."""
    rng = np.random.default_rng(seed)
    small = rng.uniform(1.0, 6.0, (size[0] // cell, size[1] // cell))
    return np.kron(small, np.ones((cell, cell)))


def blurred(depth, reach):
    padded = np.pad(depth, reach, mode="edge")
    width = 2 * reach + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (width, width))
    return windows.mean(axis=(2, 3))


def reference_f1(pred, depth, t):
    """Depth Pro's formula, written plainly; right where every direction has a boundary in both."""
    recalls, precisions = [], []
    for one, other in (
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[1:], np.s_[:-1]),
        (np.s_[:-1], np.s_[1:]),
    ):
        found, true = pred[one] / pred[other] > t, depth[one] / depth[other] > t
        recalls.append((found & true).sum() / true.sum())
        precisions.append((found & true).sum() / found.sum())
    recall, precision = np.mean(recalls), np.mean(precisions)
    return 2 * recall * precision / (recall + precision)


def test_the_ground_truth_itself_is_perfectly_sharp_at_any_scale():
    depth = blocks()
    mask = np.ones(depth.shape, bool)
    edges = depth_edges(depth, mask)
    assert edges.any()
    assert boundary_f1(depth, depth, mask) == boundary_f1(3 * depth, depth, mask) == 1.0
    assert boundary_errors(edges, edges) == (0.0, 0.0)
    one_way = np.repeat(np.where(np.arange(40) < 20, 1.0, 2.0)[None], 10, axis=0)  # only to the right does it jump
    assert boundary_f1(one_way, one_way, one_way > 0) == 1.0


def test_a_blurred_prediction_is_less_sharp_the_more_it_is_blurred():
    depth = blocks()
    mask = np.ones(depth.shape, bool)
    edges = depth_edges(depth, mask)
    scores = [boundary_f1(blurred(depth, reach), depth, mask) for reach in (0, 1, 2, 4)]
    assert scores[0] == 1.0
    assert all(one > other for one, other in itertools.pairwise(scores))
    completeness = [boundary_errors(depth_edges(blurred(depth, reach), mask), edges)[1] for reach in (0, 1, 8)]
    assert completeness[0] == 0
    assert completeness[2] > completeness[1] > 0


def test_boundary_f1_is_the_reference_formula_where_that_is_defined():
    depth = blocks(1)
    pred = np.roll(depth, 1, axis=0) * np.random.default_rng(2).uniform(0.95, 1.05, depth.shape)
    ratios = np.linspace(1.05, 1.25, 10)
    expected = sum(t * reference_f1(pred, depth, t) for t in ratios) / ratios.sum()
    assert 0.1 < expected < 0.9
    assert boundary_f1(pred, depth, np.ones(depth.shape, bool)) == pytest.approx(expected, abs=1e-12)


def test_ratios_that_the_ground_truth_does_not_reach_are_left_out():
    depth = np.where(np.arange(20) < 10, 1.0, 1.1)[None].repeat(5, axis=0)  # a boundary only for ratios below 1.1
    mask = np.ones(depth.shape, bool)
    assert boundary_f1(depth, depth, mask) == 1.0
    assert math.isnan(boundary_f1(depth, np.ones_like(depth), mask))


def test_pairs_with_a_missing_pixel_do_not_count():
    depth = blocks()
    mask = np.ones(depth.shape, bool)
    mask[:, 20:30] = False
    holes = np.where(mask, depth, 0.0)
    wrong = np.where(mask, depth, 77.0)
    with np.errstate(all="raise"):
        assert boundary_f1(wrong, holes, mask) == 1.0
    np.testing.assert_array_equal(depth_edges(holes, mask), depth_edges(wrong, mask))
    assert not depth_edges(holes, mask)[:, 19:31].any()


@pytest.mark.parametrize("shift", [1, 2, 3, 7])
@pytest.mark.parametrize("transposed", [False, True])
def test_an_edge_that_is_shifted_by_k_pixels_has_a_boundary_error_of_k(shift, transposed):
    def step(place):
        depth = np.where(np.arange(64) < place, 2.0, 5.0)[None].repeat(48, axis=0)
        depth = depth.T if transposed else depth
        return depth_edges(depth, np.ones(depth.shape, bool))

    true, predicted = step(30), step(30 + shift)
    assert true.sum() == 46  # one pixel thick, and none at the image's border
    accuracy, completeness = boundary_errors(predicted, true)
    assert accuracy == pytest.approx(shift)
    assert completeness == pytest.approx(shift)


def test_boundary_errors_count_what_is_missing_and_what_is_too_much():
    true = np.zeros((9, 60), bool)
    true[:, 10] = true[:, 50] = True
    only_one = np.zeros_like(true)
    only_one[:, 10] = True
    assert boundary_errors(only_one, true) == (0.0, pytest.approx(EDGE_REACH / 3))
    assert boundary_errors(true, only_one) == (0.0, pytest.approx(EDGE_REACH / 3))
    assert boundary_errors(np.zeros_like(true), true) == (EDGE_REACH, EDGE_REACH)
    far = np.zeros_like(true)
    far[:, 30] = True
    assert boundary_errors(far, true) == (EDGE_REACH, EDGE_REACH)
    assert all(map(math.isnan, boundary_errors(true, np.zeros_like(true))))


def test_weak_edges_count_only_where_a_strong_one_leads_to_them():
    depth = np.zeros((80, 60))
    depth[:, 30:] = np.linspace(1.0, 0.03, 80)[:, None]  # one step, weaker and weaker downwards
    edges = depth_edges(1 + depth, np.ones(depth.shape, bool))
    rows = np.flatnonzero(edges[:, 28:32].any(axis=1))
    assert rows[0] == 1
    assert rows[-1] == len(rows)  # without a gap
    assert 0.09 > depth[rows[-1], 40] > 0.07  # half of what makes a strong edge
    cut = depth.copy()
    cut[50:70, 30:] = 0  # what is left of the weak end leads to no strong one
    assert not depth_edges(1 + cut, np.ones(depth.shape, bool))[60:].any()


def test_a_flat_or_empty_map_has_no_edges():
    assert not depth_edges(np.full((20, 20), 3.0), np.ones((20, 20), bool)).any()
    assert not depth_edges(np.full((20, 20), 3.0), np.zeros((20, 20), bool)).any()


@pytest.mark.parametrize("limit", [3, 10, 32])
@pytest.mark.parametrize("share", [0.0, 0.002, 0.05])
def test_edge_distance_equals_brute_force(limit, share):
    edges = np.random.default_rng(int(1000 * share)).random((23, 31)) < share
    rows, columns = np.indices(edges.shape)
    expected = np.full(edges.shape, float(limit))
    for row, column in zip(*np.nonzero(edges), strict=True):
        expected = np.minimum(expected, np.hypot(rows - row, columns - column))
    np.testing.assert_allclose(edge_distance(edges, limit), expected, atol=1e-5)


def sobel(depth):
    """The length of Sobel's gradient inside the border, written plainly."""
    windows = np.lib.stride_tricks.sliding_window_view(depth, (3, 3))
    across = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    return np.hypot((windows * across).sum((2, 3)), (windows * across.T).sum((2, 3)))


@pytest.mark.parametrize(("rows", "every"), [(40, 1), (480, 2), (700, 3)])
def test_edge_f1_is_that_of_pixels_with_a_steep_gradient(rows, every):
    depth = blocks(size=(rows, rows), cell=rows // 5)
    pred = blurred(depth, 2 * every) + np.random.default_rng(1).normal(0, 0.03, depth.shape)
    found, true = (sobel(values[::every, ::every].astype(np.float32)) > 0.25 for values in (pred, depth))
    precision, recall = (found & true).sum() / found.sum(), (found & true).sum() / true.sum()
    expected = 2 * precision * recall / (precision + recall)
    assert 0.05 < expected < 0.95
    assert edge_f1(pred, depth, depth > 0) == pytest.approx(expected, abs=1e-3)


def test_edge_f1_falls_with_blur_and_knows_holes():
    depth = blocks(cell=8)
    everywhere = depth > 0
    figures = [edge_f1(blurred(depth, reach), depth, everywhere) for reach in (0, 1, 2)]
    assert figures[0] == 1 > figures[1] > figures[2] > 0
    assert math.isnan(edge_f1(depth, np.full_like(depth, 2.0), everywhere))
    mask = everywhere.copy()
    mask[:, 30:] = False
    torn = np.where(mask, depth, 0.0)  # a hole is no edge, and nothing counts in it
    assert edge_f1(depth + 9 * ~mask, torn, mask) == 1
    assert math.isnan(edge_f1(depth, depth, ~everywhere))
