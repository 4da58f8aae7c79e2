"""The protocols that scale each map by itself, that crop to the center, and that average flips."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from depthnet.core.types import Crop, DepthRange
from depthnet.evaluation.protocols import PROTOCOLS, default_protocol, find_protocols

NYU = (480, 640)


def min_max(**fields):
    """``published_keras``' arithmetic for maps of any size, without its crop."""
    plain = dataclasses.replace(PROTOCOLS["uncropped"], depth_range=DepthRange(1e-3, 10.0))
    return dataclasses.replace(plain, align="min_max", **fields)


def maps(*values):
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def test_the_center_is_that_of_the_halved_frame():
    crop = PROTOCOLS["nyu_center"].crop
    assert (crop.height // 2, crop.width // 2) == (228, 304)
    assert (crop.top, crop.left) == (NYU[0] - crop.bottom, NYU[1] - crop.right)


def test_min_max_by_hand():
    depth, mask = maps(1.0, 2.0, 3.0, 5.0, 9.9), torch.tensor([1, 1, 1, 1, 0], dtype=torch.bool).view(1, 1, 1, 5)
    got = min_max()(maps(20.0, 30.0, 60.0, math.nan, math.inf), depth, mask)
    low = np.float32(1e-3).item()
    assert got[0].flatten().tolist() == [low, 1.875, 7.5, low, 10.0]  # nan is the floor, infinity the range's end
    assert got[1].flatten().tolist()[:4] == [0.0, 1.875, 3.75, 7.5]  # what is no depth takes no part in its extremes
    assert got[2].flatten().tolist() == [False, True, True, True, False]  # the nearest pixel is nothing to divide by


def test_min_max_looks_at_the_whole_map_and_the_metrics_at_the_crop():
    depth = maps(1.0, 2.0, 4.0, 5.0)
    pred, scaled_depth, mask = min_max(crop=Crop(0, 1, 1, 3))(depth * 3, depth, depth > 0)
    assert mask.flatten().tolist() == [False, True, True, False]
    assert pred[mask].tolist() == scaled_depth[mask].tolist() == [1.875, 5.625]


def test_a_constant_prediction_cannot_slip_out_of_min_max():
    depth = maps(1.0, 2.0, 5.0)
    for useless in (torch.full_like(depth, 3.0), torch.full_like(depth, math.nan)):
        pred, _, mask = min_max()(useless, depth, depth > 0)
        assert mask.sum() == 2
        assert pred.flatten().tolist() == [np.float32(1e-3).item()] * 3
    _, _, mask = min_max()(depth, torch.full_like(depth, 2.0), depth > 0)
    assert not mask.any()  # a ground truth of one value has nothing to compare with


def test_published_keras_states_what_it_is_not():
    published = PROTOCOLS["published_keras"]
    assert published.definition.startswith("Not a result on the NYU test set")
    assert "of which 386 are official training frames" in published.definition
    for nyu in (True, False):
        for ground_truth in ("raw", "filled"):
            for size in (NYU, (120, 160)):
                assert default_protocol(nyu, ground_truth, size) != "published_keras"
    for ground_truth in ("raw", "filled"):
        assert published in find_protocols("all", ground_truth, NYU)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_flip_variant_differs_in_the_flip_alone(name):
    plain = PROTOCOLS[name]
    ground_truth, size = "raw" if plain.ground_truth == "any" else plain.ground_truth, plain.size or (3, 4)
    (flipped,) = find_protocols(f"{name}_flip", ground_truth, size)
    assert (flipped.name, flipped.flip_test) == (f"{name}_flip", True)
    assert "mirrored image" in flipped.definition
    assert "No flip averaging" not in flipped.definition
    same = {"name": plain.name, "flip_test": False}
    assert dataclasses.replace(flipped, **same) == plain
    assert flipped.digest != plain.digest
    assert f"{name}_flip" not in {found.name for found in find_protocols("all", ground_truth, size)}
    both = find_protocols(["all", f"{name}_flip"], ground_truth, size)
    assert both[-1] == flipped
    assert plain in both
