"""The figures against a plain NumPy reference, numbers worked out by hand, and the field's known mistakes."""

import itertools
import json
import math
import pickle
import statistics

import numpy as np
import pytest
import torch
from forked import forks, gloo
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torchmetrics import MeanMetric, Metric, MetricCollection

from depthnet.evaluation.metrics import (
    METRIC_NAMES,
    DepthMetrics,
    abs_rel,
    delta_accuracy,
    depth_metrics,
    log10,
    rmse,
    rmse_log,
    silog,
    sq_rel,
)

FUNCTIONS = {
    "delta1": lambda *batch: delta_accuracy(*batch),
    "delta2": lambda *batch: delta_accuracy(*batch, power=2),
    "delta3": lambda *batch: delta_accuracy(*batch, power=3),
    "abs_rel": abs_rel,
    "sq_rel": sq_rel,
    "rmse": rmse,
    "rmse_log": rmse_log,
    "log10": log10,
    "silog": silog,
}


def reference(pred, target, mask):
    """One image in NumPy, written from the definitions; the variance by exact rational arithmetic."""
    p, t = pred[mask].astype(np.float64), target[mask].astype(np.float64)
    if p.size == 0:
        return dict.fromkeys(METRIC_NAMES, math.nan)
    ratio = np.maximum(p / t, t / p)
    error = np.log(p) - np.log(t)
    return {
        "delta1": np.mean(ratio < 1.25),
        "delta2": np.mean(ratio < 1.25**2),
        "delta3": np.mean(ratio < 1.25**3),
        "abs_rel": np.mean(np.abs(p - t) / t),
        "sq_rel": np.mean((p - t) ** 2 / t),
        "rmse": np.sqrt(np.mean((p - t) ** 2)),
        "rmse_log": np.sqrt(np.mean(error**2)),
        "log10": np.mean(np.abs(np.log10(p) - np.log10(t))),
        "silog": 100 * math.sqrt(statistics.pvariance(error.tolist())),
    }


def batches(seed, images, height, width, holes, extremes):
    """Predictions and truths; ``extremes`` takes depths from the ends and from exact factors of 1.25."""
    rng = np.random.default_rng(seed)
    shape = (images, 1, height, width)
    if extremes:
        pred, target = (rng.choice([1e-3, 1.0, 1.25, 1.5625, 8.0, 10.0], shape) for _ in range(2))
    else:
        target = rng.uniform(0.5, 10, shape)
        pred = target * np.exp(rng.normal(0.1, 0.3, shape))
    if holes == "all but one":
        mask = np.arange(height * width).reshape(height, width) == rng.integers(height * width, size=(images, 1, 1, 1))
    else:
        mask = rng.random(shape) >= holes
    target = np.where(mask, target, rng.choice([0.0, math.nan, math.inf, -1.0], shape))
    return pred.astype(np.float32), target.astype(np.float32), mask


cases = st.builds(
    lambda seed, images, height, width, holes, extremes: (seed, images, height, width, holes, extremes),
    st.integers(0, 2**31),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.3, 0.9, "all but one", 1.0]),
    st.booleans(),
)


def tensors(*arrays):
    return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)


def one(pred, target):
    """A batch of one image with one row of pixels."""
    pred, target = (torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1) for values in (pred, target))
    return pred, target, target > 0


@settings(max_examples=400, deadline=None)
@given(cases)
@example((0, 2, 120, 161, 0.2, False))
@example((1, 1, 96, 128, 0.0, False))
@example((2, 1, 120, 161, 0.9, True))
def test_equals_an_independent_numpy_reference(case):
    arrays = batches(*case)
    table = depth_metrics(*tensors(*arrays))
    assert tuple(table) == METRIC_NAMES
    for index, image in enumerate(zip(*arrays, strict=True)):
        for name, expected in reference(*image).items():
            value = table[name][index].item()
            assert value == pytest.approx(expected, rel=1e-9, abs=1e-11, nan_ok=True), name


@settings(max_examples=100, deadline=None)
@given(cases)
def test_single_functions_have_the_bits_of_the_fused_pass(case):
    batch = tensors(*batches(*case))
    for name, values in depth_metrics(*batch).items():
        alone = FUNCTIONS[name](*batch)
        assert alone.dtype == torch.float64
        assert alone.shape == (len(batch[0]),)
        assert alone.numpy().tobytes() == values.numpy().tobytes(), name


@pytest.mark.parametrize("size", [(3, 5), (120, 161), (480, 640)])
def test_bits_know_no_neighbor_order_layout_or_threads(size):
    batch = tensors(*batches(3, 3, *size, 0.2, False))
    table = torch.stack(list(depth_metrics(*batch).values()))
    backwards = torch.stack(list(depth_metrics(*(tensor.flip(0) for tensor in batch)).values())).flip(1)
    alone = torch.cat([torch.stack(list(depth_metrics(*(x[i : i + 1] for x in batch)).values())) for i in range(3)], 1)
    strided = torch.stack(list(depth_metrics(*(x.mT.contiguous().mT for x in batch)).values()))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        threaded = torch.stack(list(depth_metrics(*batch).values()))
    finally:
        torch.set_num_threads(threads)
    for other in (backwards, alone, strided, threaded):
        assert torch.equal(table, other)


def test_by_hand():
    table = {name: value.item() for name, value in depth_metrics(*one([1.0, 4.0], [2.0, 2.0])).items()}
    two = math.log(2)
    assert table == pytest.approx(
        {
            "delta1": 0.0,
            "delta2": 0.0,
            "delta3": 0.0,
            "abs_rel": (0.5 + 1.0) / 2,
            "sq_rel": (0.5 + 2.0) / 2,
            "rmse": math.sqrt((1 + 4) / 2),
            "rmse_log": two,
            "log10": math.log10(2),
            "silog": 100 * two,  # the errors are -log 2 and log 2, so their mean is 0
        }
    )


def test_delta_is_strictly_below_the_power():
    # In binary, 1.25, 1.25^2 and 1.25^3 and these depths are exact: each first pixel stands on the threshold.
    assert delta_accuracy(*one([2.5, 2.4999], [2.0, 2.0])).item() == 0.5
    assert delta_accuracy(*one([2.0, 2.0], [2.5, 2.4999])).item() == 0.5
    assert delta_accuracy(*one([3.125, 3.1249], [2.0, 2.0]), power=2).item() == 0.5
    assert delta_accuracy(*one([3.90625, 3.9062], [2.0, 2.0]), power=3).item() == 0.5


def test_no_valid_pixel_is_nan_and_a_useless_prediction_is_infinite():
    pred, target, mask = one([math.nan, 0.0, -3.0, math.inf, 2.0], [2.0] * 5)
    for name, function in FUNCTIONS.items():
        assert function(pred, target, torch.zeros_like(mask)).isnan().all()
        if name.startswith("delta"):
            assert function(pred, target, mask).item() == pytest.approx(0.2)  # a negative ratio is below 1.25 too
        else:
            assert function(pred, target, mask).item() == math.inf
    assert abs_rel(*one([0.0, 2.0], [2.0, 2.0])).item() == 0.5


def test_silog_does_not_cancel():
    pred, target, mask = one([3.0] * 1000, [1.0] * 1000)
    assert silog(pred, target, mask).item() < 1e-12  # E[e^2] - E[e]^2 gives 3e-6, or the root of a negative number
    target[..., 0] *= 1 + 2**-20
    assert silog(pred, target, mask).item() == pytest.approx(100 * math.log1p(2**-20) * math.sqrt(999) / 1000, rel=1e-9)


def test_silog_of_one_factor_is_nothing_for_every_number_of_pixels():
    for count in range(1, 300):  # the variance of equal numbers is rounded to a little more than 0, or a little less
        assert silog(*one([3.0] * count, [1.1] * count)).item() < 1e-12


@pytest.mark.parametrize("factor", [1.0, 1e3])
def test_silog_of_a_large_image_whose_first_pixels_are_no_guide(factor):
    pred = 3.0 + 1e-4 * torch.rand(40_000, generator=torch.manual_seed(0))
    pred[:3] *= factor
    error = np.log(pred.double().numpy())
    expected = 100 * math.sqrt(statistics.pvariance(error.tolist()))
    assert silog(*one(pred.tolist(), [1.0] * 40_000)).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("function", [*FUNCTIONS.values(), depth_metrics])
def test_refuses_shapes_that_would_broadcast_and_masks_of_numbers(function):
    pred, target, mask = one([1.0, 2.0], [1.0, 2.0])
    for batch in [(pred[..., :1], target, mask), (pred, target, mask[0]), (pred, target, mask.byte()), (pred[0],) * 3]:
        with pytest.raises(ValueError, match="one shape"):
            function(*batch)


def test_known_mistake_swapped_arguments():
    pred, target, mask = one([4.0], [2.0])
    assert abs_rel(pred, target, mask).item() == 1.0
    assert abs_rel(target, pred, mask).item() == 0.5


def test_known_mistake_pooled_pixels():
    pred, target = torch.full((2, 1, 1, 4), 2.0), torch.full((2, 1, 1, 4), 2.0)
    pred[1] = 4.0
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.bool).view(2, 1, 1, 4)
    metrics = DepthMetrics()
    metrics.update(pred, target, mask, torch.arange(2))
    assert metrics.compute()["abs_rel"].item() == 0.5  # pooled: 1 of 5 pixels is off by 1, so 0.2
    assert metrics.compute()["rmse"].item() == 1.0  # pooled: sqrt(4 / 5)


def test_known_mistake_silog_with_another_lambda():
    pred, target, mask = one([2.0, 4.0], [1.0, 1.0])
    error = np.log([2.0, 4.0])
    half = 100 * math.sqrt((error**2).mean() - 0.5 * error.mean() ** 2)
    assert silog(pred, target, mask).item() == pytest.approx(100 * math.log(2) / 2)
    assert silog(pred, target, mask).item() < 0.5 * half


def seven():
    """Seven images, the fifth without a valid pixel."""
    pred, target, mask = tensors(*batches(7, 7, 12, 16, 0.2, False))
    mask[4] = False
    return pred, target, mask, torch.arange(7)


def hexed(metrics):
    return {name: value.item().hex() for name, value in metrics.compute().items()}


def test_metrics_have_the_same_bits_in_every_grouping_and_order():
    *batch, frame = seven()
    seen = set()
    for seed, size in itertools.product(range(4), (1, 2, 3, 7)):
        order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
        metrics = DepthMetrics()
        for places in order.split(size):
            metrics.update(*(tensor[places] for tensor in batch), frame[places])
        frames, rows = metrics.rows()
        assert frames.tolist() == list(range(7))
        assert rows.isnan().any(1).nonzero().flatten().tolist() == [4]
        seen.add((json.dumps(hexed(metrics)), rows.numpy().tobytes()))
    assert len(seen) == 1


def test_mean_is_over_the_images_with_a_valid_pixel():
    *batch, frame = seven()
    metrics = DepthMetrics()
    metrics.update(*batch, frame)
    for name, values in depth_metrics(*batch).items():
        expected = math.fsum(values[values.isfinite()].tolist()) / 6
        assert metrics.compute()[name].item() == expected


def test_a_prediction_of_nan_is_never_averaged_away():
    pred, target, mask = one([math.nan], [2.0])
    metrics = DepthMetrics()
    metrics.update(target, target, mask, 0)
    metrics.update(pred, target, mask, 1)
    assert not metrics.rows()[1].isnan().any()
    assert metrics.compute()["delta1"].item() == 0.5
    assert metrics.compute()["rmse"].item() == math.inf


def test_known_mistake_padded_sampler_counts_a_frame_twice():
    *batch, frame = seven()
    once, padded = DepthMetrics(), DepthMetrics()
    once.update(*batch, frame)
    places = torch.tensor([0, 2, 4, 6, 1, 3, 5, 0])
    padded.update(*(tensor[places] for tensor in batch), frame[places])
    assert hexed(once) == hexed(padded)


def test_two_images_under_one_frame_number_are_refused():
    *batch, frame = seven()
    metrics = DepthMetrics()
    metrics.update(*batch, frame % 4)
    with pytest.raises(ValueError, match="frame 0 came twice"):
        metrics.compute()
    with pytest.raises(ValueError, match="2 frame numbers for 7 images"):
        metrics.update(*batch, frame[:2])


def test_reset_pickle_and_no_image():
    *batch, frame = seven()
    metrics = DepthMetrics()
    metrics.update(*batch, frame)
    again = pickle.loads(pickle.dumps(metrics))
    assert hexed(again) == hexed(metrics)
    metrics.reset()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert all(value.isnan() for value in metrics.compute().values())
    metrics.update(*batch, frame)
    assert hexed(again) == hexed(metrics)


def test_forward_gives_the_batch_and_keeps_the_set():
    *batch, frame = seven()
    metrics = DepthMetrics()
    first = metrics(*(tensor[:1] for tensor in batch), frame[:1])
    assert first["rmse"].item() == rmse(*(tensor[:1] for tensor in batch)).item()
    metrics(*(tensor[1:] for tensor in batch), frame[1:])
    whole = DepthMetrics()
    whole.update(*batch, frame)
    assert hexed(whole) == hexed(metrics)


class SharedName(Metric):
    """How a metric is usually written: every power keeps its rows under the same name."""

    full_state_update = False

    def __init__(self, power):
        super().__init__()
        self.power = power
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, pred, target, mask, frame):
        self.rows.append(delta_accuracy(pred, target, mask, self.power))

    def compute(self):
        return torch.cat(list(self.rows)).mean()


def test_known_mistake_collection_merges_delta2_and_delta3():
    target = torch.full((1, 1, 2, 2), 2.0)
    usual = MetricCollection({"delta2": SharedName(2), "delta3": SharedName(3)}, compute_groups=True)
    ours = DepthMetrics()
    for frame, factor in enumerate((1.0, 1.8)):  # both deltas are 1.0 at first; then 1.25^2 < 1.8 < 1.25^3
        usual.update(target * factor, target, target > 0, frame)
        ours.update(target * factor, target, target > 0, frame)
    assert usual.compute()["delta2"] == usual.compute()["delta3"]  # the mistake, still there
    figures = ours.compute()
    assert (figures["delta2"].item(), figures["delta3"].item()) == (0.5, 1.0)


def test_known_mistake_average_of_batches():
    *batch, frame = seven()
    metrics, batches_mean = DepthMetrics(), MeanMetric()
    for places in (torch.arange(4), torch.arange(5, 7)):
        metrics.update(*(tensor[places] for tensor in batch), frame[places])
        batches_mean.update(rmse(*(tensor[places] for tensor in batch)).mean())
    assert metrics.compute()["rmse"].item() != pytest.approx(batches_mean.compute().item(), rel=1e-3)


@forks
def test_two_processes_with_uneven_shares_have_the_bits_of_one(tmp_path):
    *batch, frame = seven()

    def work(rank):
        """In three rounds the shares are uneven, padded, and all on one side."""
        answers = []
        for shares in ([[0, 2, 4, 6], [1, 3, 5]], [[0, 2, 4, 6], [1, 3, 5, 0]], [[5, 4, 3, 2, 1, 0, 6], []]):
            metrics = DepthMetrics()
            for place in shares[rank]:
                metrics.update(*(tensor[place : place + 1] for tensor in batch), frame[place : place + 1])
            kept = len(metrics.depth_metrics)
            figures = hexed(metrics)
            frames, rows = metrics.rows()
            answers.append((figures, frames.tolist(), frames[rows.isnan().any(1)].tolist()))
            left = len([row for row in metrics.depth_metrics if len(row)])
            assert kept == left, "the rows of the other stayed behind"
        return answers

    metrics = DepthMetrics()
    metrics.update(*batch, frame)
    assert gloo(work, tmp_path) == [[(hexed(metrics), list(range(7)), [4])] * 3] * 2
