"""The losses against plain NumPy, and finite where a root, a division or a logarithm could not be."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import structural_similarity_index_measure

from depthnet.core.types import DepthRange, InputError
from depthnet.run.arguments import check_arguments
from depthnet.training.losses import TERMS, DepthLoss, berhu_loss, l1_loss, silog_loss, ssim_loss

RANGE = DepthRange(1e-3, 10.0)


def slope(error, mask):
    """Mean |dx| and |dy| over valid pairs of one map, by loops."""
    total = 0.0
    for down, right in ((0, 1), (1, 0)):
        pairs = [
            abs(error[y + down, x + right] - error[y, x])
            for y in range(error.shape[0] - down)
            for x in range(error.shape[1] - right)
            if mask[y, x] and mask[y + down, x + right]
        ]
        total += np.mean(pairs) if pairs else 0.0
    return total


def ssim_map(pred, target, mask, length):
    """(1 - SSIM) / 2 of each 11x11 window on a valid pixel, by loops; holes are left out of the window."""
    axis = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    values = []
    for y in range(5, pred.shape[0] - 5):
        for x in range(5, pred.shape[1] - 5):
            if not mask[y, x]:
                continue
            place = (slice(y - 5, y + 6), slice(x - 5, x + 6))
            keep = mask[place]
            weight = np.outer(axis, axis)[keep]
            weight /= weight.sum()
            p, t = pred[place][keep], target[place][keep]
            mp, mt = weight @ p, weight @ t
            vp, vt, cov = weight @ (p - mp) ** 2, weight @ (t - mt) ** 2, weight @ ((p - mp) * (t - mt))
            c1, c2 = (0.01 * length) ** 2, (0.03 * length) ** 2
            values.append(
                0.5 - 0.5 * (2 * mp * mt + c1) * (2 * cov + c2) / ((mp**2 + mt**2 + c1) * (vp + vt + c2)),
            )
    return values


def log_error(pred, target, mask):
    error = np.zeros(pred.shape)
    error[mask] = np.log(pred[mask]) - np.log(target[mask])
    return error


def silog(pred, target, mask):
    d = log_error(pred, target, mask)[mask]
    return np.sqrt(max(0.0, (d**2).mean() - 0.85 * d.mean() ** 2))


def berhu(pred, target, mask):
    e = np.abs(pred - target)[mask]
    c = 0.2 * e.max()
    return np.mean([x if x <= c else (x**2 + c**2) / (2 * c) for x in e])


def log_gradient(pred, target, mask):
    error = log_error(pred, target, mask)
    return sum(slope(error[::step, ::step], mask[::step, ::step]) for step in (1, 2, 4, 8))


REFERENCES = {
    "l1": lambda pred, target, mask: np.abs(pred - target)[mask].mean(),
    "gradient": lambda pred, target, mask: slope(np.where(mask, pred - target, 0.0), mask),
    "ssim": lambda *image: np.mean(ssim_map(*image, 10.0) or [0.0]),
    "silog": silog,
    "berhu": berhu,
    "log_l1": lambda *image: np.abs(log_error(*image)[image[2]]).mean(),
    "log_gradient": log_gradient,
}
"""Each term of one image in NumPy float64, from its definition; a new term adds its own. One that draws draws alike
after ``torch.manual_seed(0)``."""


def batch(seed, height=13, width=17, holes=0.3, images=2):
    """A batch whose invalid pixels hold what a careless loss would let through."""
    rng = np.random.default_rng(seed)
    shape = (images, 1, height, width)
    target = rng.uniform(0.5, 9.5, shape)
    pred = np.clip(target * np.exp(rng.normal(0.0, 0.3, shape)), 1e-3, 10.0)
    mask = rng.random(shape) >= holes
    target = np.where(mask, target, rng.choice([0.0, -1.0, np.nan, np.inf, -np.inf], shape))
    return [torch.from_numpy(x) for x in (pred.astype(np.float32), target.astype(np.float32), mask)]


def loss(name, *args):
    torch.manual_seed(0)  # for a term that draws, as the module seeds each step
    return TERMS[name](*args, max_depth=10.0) if name == "ssim" else TERMS[name](*args)


@pytest.mark.parametrize("name", TERMS)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    height=st.integers(1, 15),
    width=st.integers(1, 15),
    holes=st.sampled_from([0.0, 0.4, 0.95, 1.0]),
)
def test_equals_numpy(name, seed, height, width, holes):
    arrays = batch(seed, height, width, holes)
    values = loss(name, *arrays)
    assert values.shape == (2,)
    assert values.dtype == torch.float32
    for value, image in zip(values.tolist(), zip(*arrays, strict=True), strict=True):
        pred, target, mask = (tensor[0].numpy() for tensor in image)
        if name == "ssim":  # a small image is surrounded by holes on the right and below
            pad = [(0, max(0, 11 - side)) for side in mask.shape]
            pred, target, mask = (np.pad(x, pad) for x in (pred, target, mask))
        image = (pred.astype(np.float64), target.astype(np.float64), mask)
        expected = REFERENCES[name](*image) if mask.any() else 0.0
        assert value == pytest.approx(expected, rel=2e-4, abs=2e-6)


@pytest.mark.parametrize("length", [1.0, 10.0])
def test_ssim_is_the_usual_one_where_there_are_no_holes(length):
    pred, target, mask = batch(4, 40, 52, 0.0, 3)
    pred, target = pred * (length / 10), target * (length / 10)
    _, usual = structural_similarity_index_measure(pred, target, data_range=length, return_full_image=True)
    usual = usual[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))  # it mirrors the image at its border; ours stays inside
    assert ssim_loss(pred, target, mask, max_depth=length).numpy() == pytest.approx((1 - usual) / 2, abs=2e-6)


def test_ssim_keeps_its_digits_on_a_far_plane():
    target = torch.full((1, 1, 32, 32), 9.9) + 0.01 * torch.rand(1, 1, 32, 32, generator=torch.manual_seed(0))
    pred, mask = target + 0.01 * torch.rand(1, 1, 32, 32), target > 0
    expected = np.mean(ssim_map(*(x[0, 0].double().numpy() for x in (pred, target)), mask[0, 0].numpy(), 1.0))
    assert ssim_loss(pred, target, mask, max_depth=1.0).item() == pytest.approx(expected, rel=1e-3)


def edge_cases():
    pred, target, mask = batch(5, 16, 20)
    one, two = torch.zeros_like(mask), torch.zeros_like(mask)
    one[..., 8, 8] = True
    two[..., 8, 8:10] = True
    clean = torch.where(mask, target, 1.0)
    full = torch.ones_like(mask)
    ends = torch.where(torch.rand(clean.shape, generator=torch.manual_seed(0)) < 0.5, 1e-3, 10.0)
    half = mask.clone()
    half[0] = False
    rotten = torch.where(mask, pred, math.nan)
    return {
        "no valid pixel": (pred, target, torch.zeros_like(mask)),
        "no valid pixel in one image": (pred, target, half),
        "one valid pixel": (pred, clean, one),
        "two valid pixels": (pred, clean, two),
        "perfect": (clean.clone(), clean, full),
        "perfect where valid": (clean.clone(), target, mask),
        "perfect on one pixel": (clean.clone(), clean, one),
        "off by a factor": (clean * 2, clean, full),
        "off by one bit": (clean * (1 + 2**-23), clean, full),
        "the far end for the near": (torch.full_like(pred, 10.0), torch.full_like(pred, 1e-3), full),
        "the near end for the far": (torch.full_like(pred, 1e-3), torch.full_like(pred, 10.0), full),
        "ends": (ends, ends.flip(-1), full),
        "zero": (torch.zeros_like(pred), clean, full),
        "negative": (-pred, clean, full),
        "huge": (pred * 1e6, clean, full),
        "NaN at the holes of both": (rotten, target, mask),
        "one row": (pred[..., :1, :], target[..., :1, :], mask[..., :1, :]),
        "one pixel in all": (pred[..., :1, :1], clean[..., :1, :1], full[..., :1, :1]),
    }


@pytest.mark.parametrize("case", edge_cases())
@pytest.mark.parametrize("name", TERMS)
def test_value_and_gradient_are_finite(name, case):
    pred, target, mask = edge_cases()[case]
    pred.requires_grad_()
    values = loss(name, pred, target, mask)
    values.sum().backward()
    assert values.isfinite().all()
    assert (values >= 0).all()
    assert pred.grad.isfinite().all()
    assert (pred.grad[~mask] == 0).all()
    empty = ~mask.flatten(1).any(1)
    assert (values[empty] == 0).all()
    assert (pred.grad[empty] == 0).all()
    if case.startswith("perfect"):
        assert values.detach().numpy() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", TERMS)
def test_what_stands_at_a_hole_changes_no_bit(name):
    pred, target, mask = batch(6, 16, 20)
    results = []
    for filler in (0.0, 5.0, math.nan, math.inf, -1.0):
        p = torch.where(mask, pred, filler).requires_grad_()
        values = loss(name, p, torch.where(mask, target, filler), mask)
        values.sum().backward()
        results.append(torch.cat([values.detach(), p.grad.flatten()]))
    for other in results[1:]:
        assert torch.equal(results[0], other)


@pytest.mark.parametrize("name", TERMS)
def test_gradient_is_that_of_the_value(name):
    _, _, mask = batch(7, 16, 20)
    # An error that grows along both axes and is nowhere small keeps the step away from the kinks of absolute values.
    growth = 1.0 + 0.01 * torch.arange(20.0) + 0.02 * torch.arange(16.0)[:, None]
    target = torch.where(mask, 2.0, math.nan)
    pred = (2.0 * growth).expand(mask.shape).clone().requires_grad_()
    direction = torch.linspace(0, 1, 320).view(16, 20).expand(mask.shape).clone()
    direction[..., 15:, :] = 0.0
    direction[..., :, 19:] = 0.0  # BerHu's c is a constant for the gradient: the largest error stays
    loss(name, pred, target, mask).sum().backward()
    step = 1e-2
    with torch.no_grad():
        ahead, behind = (loss(name, pred + sign * step * direction, target, mask).double().sum() for sign in (1, -1))
    assert (pred.grad * direction).sum().item() == pytest.approx((ahead - behind).item() / (2 * step), rel=1e-2)


@pytest.mark.parametrize("name", TERMS)
def test_float32_inside_whatever_is_around(name):
    pred, target, mask = batch(8, 16, 20)
    pred, target = pred.bfloat16(), target.bfloat16()
    criterion = DepthLoss({name: 1.0}, RANGE)
    outside = criterion(pred.float(), target.float(), mask)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(criterion(pred, target, mask)[0], outside)


def test_refuses_shapes_that_would_broadcast_and_masks_of_numbers():
    pred, target, mask = batch(9)
    for wrong in [(pred[:1], target, mask), (pred, target, mask[:, 0]), (pred, target, mask.float()), (pred[0],) * 3]:
        with pytest.raises(ValueError, match="one shape"):
            DepthLoss({"l1": 1.0}, RANGE)(*wrong)


def test_by_hand():
    target = torch.ones(1, 1, 1, 4)
    pred, mask = torch.tensor([1.5, 2.0, 6.0, 1.0]).view(1, 1, 1, 4), target > 0
    assert l1_loss(pred, target, mask).item() == pytest.approx((0.5 + 1 + 5) / 4)
    assert TERMS["gradient"](pred, target, mask).item() == pytest.approx((0.5 + 4 + 5) / 3)
    assert berhu_loss(pred, target, mask).item() == pytest.approx((0.5 + 1 + 13) / 4)  # c = 1
    two = math.log(2)
    assert silog_loss(target * 2, target, mask).item() == pytest.approx(two * math.sqrt(0.15))
    assert silog_loss(target * 2, target, mask, variance_focus=1.0).item() == 0.0
    assert silog_loss(target * 2, target, mask, variance_focus=0.0).item() == pytest.approx(two)
    assert TERMS["log_l1"](target * 2, target, mask).item() == pytest.approx(two)
    flat = torch.ones(1, 1, 12, 12)  # SSIM of two flat maps is its luminance
    luminance = (2 * 2 + 0.01) / (1 + 4 + 0.01)
    assert ssim_loss(2 * flat, flat, flat > 0, max_depth=10.0).item() == pytest.approx((1 - luminance) / 2)


def test_ssim_of_a_prediction_far_outside_the_range_has_no_wild_gradient():
    target = 0.5 + 9 * torch.rand(1, 1, 32, 32, generator=torch.manual_seed(0))
    pred = (target + 1e4 * (torch.arange(32) > 16)).requires_grad_()  # a variance lost in the rounding of its squares
    ssim_loss(pred, target, target > 0, max_depth=10.0).backward()
    assert pred.grad.abs().max() < 1e-4


def test_berhu_has_a_constant_c_for_the_gradient():
    pred, target = torch.tensor([1.5, 6.0]).view(1, 1, 1, 2).requires_grad_(), torch.ones(1, 1, 1, 2)
    berhu_loss(pred, target, target > 0).backward()
    assert pred.grad.flatten().tolist() == pytest.approx([0.5, 2.5])  # sign / n, and e / c / n


def test_compiles_as_one_graph():
    pred, target, mask = batch(13, 24, 32)
    criterion = DepthLoss(dict.fromkeys(TERMS, 1.0), RANGE)
    compiled = torch.compile(criterion, backend="eager", fullgraph=True)
    losses = []
    for run in (compiled, criterion):
        torch.manual_seed(0)
        losses.append(run(pred, target, mask)[0].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_log_gradient_sees_a_slope_at_every_scale():
    target = torch.ones(1, 1, 1, 17)
    pred = torch.exp(torch.arange(17.0)).view(1, 1, 1, 17)
    # One step of the logarithm a pixel: 1, 2, 4 and 8 between the pixels taken.
    assert TERMS["log_gradient"](pred, target, target > 0).item() == pytest.approx(1 + 2 + 4 + 8, rel=1e-5)
    assert TERMS["log_gradient"](pred, target, target > 0, scales=1).item() == pytest.approx(1, rel=1e-5)


def test_published_loss_is_the_weighted_sum_on_depth_as_a_fraction():
    pred, target, mask = batch(10, 24, 32)
    criterion = DepthLoss({"ssim": 1.0, "gradient": 1.0, "l1": 0.3}, RANGE, unit="fraction")
    total, terms = criterion(pred, target, mask)
    parts = {name: loss(name, pred, target, mask).mean() for name in ("ssim", "gradient", "l1")}
    assert list(terms) == ["ssim", "gradient", "l1"]
    assert terms["ssim"].item() == pytest.approx(parts["ssim"].item(), rel=1e-4)
    assert terms["gradient"].item() == pytest.approx(parts["gradient"].item() / 10, rel=1e-5)
    assert terms["l1"].item() == pytest.approx(parts["l1"].item() / 10, rel=1e-5)
    expected = terms["ssim"] + terms["gradient"] + 0.3 * terms["l1"]
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_every_image_weighs_the_same_and_an_empty_one_counts_zero():
    target = torch.ones(3, 1, 4, 4)
    pred, mask = target + torch.tensor([1.0, 2.0, 5.0]).view(3, 1, 1, 1), target > 0
    mask[0, :, 1:] = False  # a quarter of the pixels
    mask[2] = False
    total, terms = DepthLoss({"l1": 2.0}, RANGE)(pred.requires_grad_(), target, mask)
    assert terms["l1"].item() == pytest.approx((1.0 + 2.0 + 0.0) / 3)
    assert total.item() == pytest.approx(2.0)
    assert total.requires_grad
    assert not terms["l1"].requires_grad


def test_every_term_together_trains_and_an_empty_batch_does_not_hurt():
    pred, target, mask = batch(11, 16, 20)
    pred.requires_grad_()
    criterion = DepthLoss(dict.fromkeys(TERMS, 1.0), RANGE)
    optimizer = torch.optim.Adam([pred], lr=0.03)
    losses = []
    for step in range(20):
        optimizer.zero_grad()
        total, terms = criterion(pred, target, mask & (step != 5))
        total.backward()
        optimizer.step()
        losses.append(total.item())
        assert list(terms) == list(TERMS)
    assert losses[5] == 0.0
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"l2": 1.0}, "loss: no term is called l2; there are l1, gradient, ssim, silog"),
        ({"l1": -0.1}, "it is {text: a number from 0}"),
        ({"l1": math.nan}, "it is {text: a number from 0}"),
        ({"l1": math.inf}, "it is {text: a number from 0}"),
        ({"l1": 0.0, "ssim": 0}, "loss: no term has a weight above 0"),
        ({}, "loss: no term has a weight above 0"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(terms, message):
    node = {"_target_": "depthnet.training.losses.DepthLoss", "terms": terms, "depth_range": [0.1, 10]}
    with pytest.raises(InputError, match=message):
        check_arguments(node, "loss") or DepthLoss(terms, RANGE)


def test_a_weight_of_zero_leaves_the_term_out():
    assert list(DepthLoss({"l1": 1, "ssim": 0.0}, RANGE)(*batch(12))[1]) == ["l1"]
