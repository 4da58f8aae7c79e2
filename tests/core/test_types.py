import math

import pytest

from depthnet.core.types import Crop, DepthRange, InputError


@pytest.mark.parametrize(("low", "high"), [(0, 10), (-1, 10), (5, 5), (6, 5), (math.nan, 1), (1, math.inf)])
def test_an_impossible_depth_range_is_refused(low, high):
    with pytest.raises(InputError, match="0 < min < max"):
        DepthRange(low, high)


@pytest.mark.parametrize("value", [{"min": 1}, {"min": 1, "max": 2, "unit": "m"}, {"min": "a", "max": 2}, 3, None])
def test_of_refuses_what_states_no_range(value):
    with pytest.raises(InputError, match="depth_range"):
        DepthRange.of(value)


def test_of_takes_a_range_and_a_mapping():
    assert DepthRange.of({"min": 1e-3, "max": 10}) == DepthRange.of(DepthRange(1e-3, 10.0)) == DepthRange(1e-3, 10.0)


@pytest.mark.parametrize("edges", [(0, 0, 0, 1), (5, 4, 0, 1), (-1, 4, 0, 1), (0, 1, 3, 2)])
def test_an_empty_crop_is_refused(edges):
    with pytest.raises(InputError, match="hold no pixel"):
        Crop(*edges)


def test_the_eigen_crop_has_its_size():
    assert (Crop(45, 471, 41, 601).height, Crop(45, 471, 41, 601).width) == (426, 560)
