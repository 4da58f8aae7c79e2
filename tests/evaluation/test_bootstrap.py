"""Intervals against a loop over draws, and that they are what they say: of scenes, of the stated level."""

import numpy as np
import pytest

from depthnet.evaluation.bootstrap import DRAWS, LEVEL, Interval, bootstrap


def images(seed, scenes, frames, columns=2):
    """Figures whose scenes differ more than the frames of one do."""
    rng = np.random.default_rng(seed)
    names = [f"scene {scene}" for scene in range(scenes) for _ in range(frames)]
    of_scene = np.repeat(rng.normal(0.5, 0.2, (scenes, columns)), frames, axis=0)
    return of_scene + rng.normal(0, 0.02, (scenes * frames, columns)), names


def test_equals_a_plain_loop_over_draws():
    values, scenes = images(0, 7, 3)
    values, scenes = values[:-2], scenes[:-2]  # scenes of unequal size
    parts = [values[[scene == name for scene in scenes]] for name in sorted(set(scenes))]
    rng = np.random.default_rng(1)
    means = [np.concatenate([parts[i] for i in rng.integers(7, size=7)]).mean(axis=0) for _ in range(6000)]
    expected = np.quantile(means, [0.025, 0.975], axis=0).T
    # two bootstraps of other random numbers differ by the error of a quantile of some thousand draws
    assert np.array(bootstrap(values, scenes)) == pytest.approx(expected, abs=0.01)
    assert np.array(bootstrap(values, scenes, draws=50_000)) == pytest.approx(expected, abs=0.006)


def test_the_order_of_images_and_the_names_of_scenes_do_not_matter():
    values, scenes = images(1, 6, 4)
    order = np.random.default_rng(0).permutation(len(scenes))
    found = np.array(bootstrap(values, scenes))
    assert np.array(bootstrap(values[order], [scenes[i] for i in order])) == pytest.approx(found, abs=1e-12)
    assert np.array(bootstrap(values, [f"{name} é" for name in scenes])) == pytest.approx(found, abs=1e-12)


def test_the_same_frame_many_times_narrows_nothing():
    values, scenes = images(2, 8, 1)
    repeated = bootstrap(np.repeat(values, 20, axis=0), [name for name in scenes for _ in range(20)])
    assert np.array(repeated) == pytest.approx(np.array(bootstrap(values, scenes)), abs=1e-12)
    single = bootstrap(np.repeat(values, 20, axis=0), [str(i) for i in range(160)])
    assert single[0].high - single[0].low < 0.5 * (repeated[0].high - repeated[0].low)


def test_columns_share_their_draws_and_calls_share_nothing_else():
    values, scenes = images(3, 5, 2)
    both = bootstrap(np.hstack([values, 2 * values + 1]), scenes)
    assert [2 * end + 1 for end in both[1]] == pytest.approx(list(both[3]), abs=1e-12)
    assert bootstrap(values, scenes) == both[:2]
    other = bootstrap(values, scenes, seed=1)
    assert other != both[:2]
    assert bootstrap(values, scenes) == both[:2]


def test_the_interval_holds_the_true_mean_at_about_its_level():
    held = 0
    for trial in range(200):
        values, scenes = images(trial, 25, 3, columns=1)
        (interval,) = bootstrap(values, scenes, draws=500)
        held += interval.low < 0.5 < interval.high
    assert 0.88 < held / 200 <= 0.99  # a percentile interval of 25 scenes is a little narrow
    assert LEVEL == 0.95
    assert DRAWS >= 1000


def test_a_higher_level_is_wider():
    values, scenes = images(4, 9, 2)
    narrow, wide = (bootstrap(values, scenes, level=level)[0] for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_where_there_is_no_interval_the_ends_are_nan():
    for values, scenes in (([[1.0], [2.0]], ["a", "a"]), ([[1.0]], ["a"]), (np.empty((0, 1)), [])):
        (interval,) = bootstrap(values, scenes)
        assert np.isnan(interval).all()
    values, scenes = images(5, 4, 2)
    finite = bootstrap(values, scenes)
    values[3, 1] = np.inf
    with np.errstate(all="raise"):
        found = bootstrap(values, scenes)
    assert found[0] == finite[0]
    assert np.isnan(found[1]).all()


def test_equal_values_have_an_interval_of_no_width():
    assert bootstrap([[0.25]] * 4, ["a", "b", "c", "c"]) == [Interval(0.25, 0.25)]


def test_each_image_needs_a_scene():
    with pytest.raises(ValueError, match="1 scenes for 2 images"):
        bootstrap([[0.0], [1.0]], ["a"])
