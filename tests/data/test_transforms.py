"""Image, depth and mask stay one picture through every transform.

The image's red and green say from which row and column a pixel comes (two levels a pixel), its blue where the picture
is; the depth says the same with one number for each pixel, so where a depth was measured can be read from it exactly.
"""

import random
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from depthnet.core.camera import Intrinsics
from depthnet.core.types import InputError
from depthnet.data.datamodule import DepthDataModule
from depthnet.data.dataset import DepthDataset
from depthnet.data.layouts.official import NYU_INTRINSICS
from depthnet.data.layouts.registry import open_root
from depthnet.data.transforms import Augment, CutDepth, DepthZoom
from depthnet.run.arguments import check_arguments

STRONG = Path(__file__).resolve().parents[2] / "conf/augment/strong.yaml"

HEIGHT, WIDTH = 96, 128
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
IMAGE = np.stack([2 * ROWS, 2 * COLUMNS, np.full_like(ROWS, 255)], axis=2).astype(np.uint8)
NUMBERS = (1 + COLUMNS + WIDTH * ROWS).astype(np.float32)  # the depth at a pixel is its number
HOLES = np.random.default_rng(0).random((HEIGHT // 8, WIDTH // 8)).repeat(8, 0).repeat(8, 1) < 0.3

FLIP = A.HorizontalFlip(p=0.5)
ZOOM = DepthZoom(scale=(1.0, 2.5), p=0.8)
CROP = A.RandomCrop(64, 80, p=1.0)
TURN = A.Rotate(limit=(-45, 45), p=0.8)


def strong():
    config = OmegaConf.create({"data": {"depth_range": {"min": 1e-3, "max": 10.0}}, "augment": OmegaConf.load(STRONG)})
    return instantiate(config.augment.transforms, _convert_="all")


def geometric():
    return [transform for transform in strong() if not isinstance(transform, A.ImageOnlyTransform)]


def numbers_in(depth, transforms):
    """Return the number of the pixel that each depth was measured at, 0 where it is missing."""
    zooms = [t.get_applied_params().get("zoom", 1.0) for t in transforms if isinstance(t, DepthZoom)]
    measured = np.append(np.float32(0), NUMBERS.ravel()) / np.float32(np.prod(zooms))
    numbers = np.searchsorted(measured, depth)
    assert (measured[np.minimum(numbers, len(measured) - 1)] == depth).all(), "a depth that nobody measured"
    return numbers


@pytest.mark.parametrize(
    ("transforms", "pixels"),
    [([FLIP], 0), ([CROP], 0), ([ZOOM], 0.8), ([TURN], 0.8), ([FLIP, ZOOM, TURN, CROP], 1.4), (geometric(), 1.4)],
    ids=["flip", "crop", "zoom", "rotation", "all four", "strong"],
)
def test_image_depth_and_mask_agree_whatever_is_drawn(transforms, pixels):
    """Depth takes the nearest pixel, half a pixel off at most for each resampling; colors are rounded."""
    augment = Augment(transforms)
    seen = set()
    for seed in range(200):
        image, depth, _ = augment(IMAGE, NUMBERS, seed)
        numbers = numbers_in(depth, transforms)
        seen.add(depth.tobytes())

        inside = image[..., 2] == 255
        assert inside.mean() > 0.3
        assert (numbers[inside] > 0).all()
        assert (numbers[image[..., 2] == 0] == 0).all()
        rows, columns = np.divmod(numbers[inside] - 1, WIDTH)
        assert abs(image[inside, 0] / 2 - rows).max() <= pixels
        assert abs(image[inside, 1] / 2 - columns).max() <= pixels

        same, holed, _ = augment(IMAGE, np.where(HOLES, 0, NUMBERS).astype(np.float32), seed)
        assert (same == image).all()
        assert (holed == np.where(np.append(True, HOLES)[numbers], 0, depth)).all()
    assert len(seen) >= (2 if transforms == [FLIP] else 50)


def test_zoom_divides_depth_by_what_it_enlarges_by():
    plane = np.full((HEIGHT, WIDTH), 6, np.float32)
    factors = []
    for seed in range(300):
        image, depth, _ = Augment([DepthZoom(scale=(1.0, 2.5), p=1.0)])(IMAGE, plane, seed)
        assert len(np.unique(depth)) == 1
        assert (image[..., 2] == 255).all(), "nothing from outside the picture"
        zoom = 6 / depth[0, 0]
        levels = image[HEIGHT // 2].astype(float)[[5, -6], 1]  # away from the rim, where the last color is repeated
        assert (WIDTH - 11) * 2 / (levels[1] - levels[0]) == pytest.approx(zoom, rel=0.03)
        factors.append(zoom)
    assert 1.0 <= min(factors) < 1.05
    assert 2.45 < max(factors) <= 2.5


def test_zoom_takes_the_depth_under_the_center_of_each_pixel():
    depth = np.arange(1, 9, dtype=np.float32).reshape(2, 4)
    zoom = DepthZoom(scale=(2.0, 2.0))
    doubled = zoom.apply_to_mask(depth, zoom=2.0, top=0.0, left=1.0)
    assert (doubled * 2).tolist() == [[2, 2, 3, 3], [2, 2, 3, 3]]
    assert (zoom.apply_to_mask(depth, zoom=2.0, top=0.3, left=1.2) * 2).tolist() == [[2, 2, 3, 3], [6, 6, 7, 7]]


def test_zoom_reaches_every_part_of_the_picture():
    augment = Augment([DepthZoom(scale=(2.0, 2.0), p=1.0)])
    corners = np.array([augment(IMAGE, NUMBERS, seed)[0][0, 0, :2] / 2 for seed in range(300)])
    assert corners.min(axis=0).max() < 3
    assert (corners.max(axis=0) > (HEIGHT / 2 - 4, WIDTH / 2 - 4)).all()


def test_color_blur_and_noise_leave_depth_alone():
    """All of the strong chain but its geometry, which comes first, so that both chains draw it alike."""
    whole, frame = Augment(strong()), Augment(geometric())
    changed = 0
    for seed in range(100):
        image, depth, _ = whole(IMAGE, NUMBERS, seed)
        framed, same, _ = frame(IMAGE, NUMBERS, seed)
        assert depth.tobytes() == same.tobytes()
        changed += not (image == framed).all()
    assert changed > 60


def test_cut_depth_pastes_the_depth_and_nothing_where_it_is_missing():
    augment = Augment([CutDepth((1e-3, 8.0), p=1.0)])
    depth = np.where(HOLES, 0, 1 + COLUMNS / WIDTH * 8).astype(np.float32)  # up to 9 m: more than white
    gray = np.rint(np.where(depth < 8, depth, 0) * np.float32(255 / 8)).astype(np.uint8)[..., None].repeat(3, 2)
    shares = []
    for seed in range(200):
        image, same, _ = augment(IMAGE, depth, seed)
        assert same.tobytes() == depth.tobytes()
        pasted = (image != IMAGE).any(axis=2)
        assert not (pasted & ((depth == 0) | (depth >= 8))).any()
        assert (image[pasted] == gray[pasted]).all()
        rows, columns = np.nonzero(pasted)
        if len(rows):  # all that is valid in the rectangle is pasted
            box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
            assert (pasted[box] == ((depth[box] > 0) & (depth[box] < 8))).all()
        shares.append(pasted.mean())
    assert max(shares) > 0.15
    assert (IMAGE[0, :, 0] == 0).all(), "the image given is not written to"


def test_transforms_are_drawn_apart():
    """Those of one probability neither always come together nor never."""
    flip, zoom = A.HorizontalFlip(p=0.5), DepthZoom(p=0.5)
    augment = Augment([flip, zoom])
    drawn = []
    for seed in range(400):
        augment(IMAGE[:4, :4], NUMBERS[:4, :4], seed)
        drawn.append((bool(flip.get_applied_params()), bool(zoom.get_applied_params())))
    assert all(60 < drawn.count((first, second)) < 140 for first in (False, True) for second in (False, True))


def test_a_seed_gives_the_same_whatever_came_before():
    augment = Augment(strong())
    first = [augment(IMAGE, NUMBERS, seed)[0].tobytes() for seed in range(20)]
    backwards = [augment(IMAGE, NUMBERS, seed)[0].tobytes() for seed in reversed(range(20))][::-1]
    assert first == backwards
    assert len(set(first)) == 20


CAMERA = Intrinsics(110.0, 110.0, 60.25, 50.5)
SAME, MIRRORED = np.eye(2), np.diag([-1.0, 1.0])


@pytest.mark.parametrize(
    ("transforms", "axes", "pixels"),
    [
        ([A.HorizontalFlip(p=1.0)], MIRRORED, 0.01),
        ([A.VerticalFlip(p=1.0)], -MIRRORED, 0.01),
        ([A.Transpose(p=1.0)], SAME[::-1], 0.01),
        ([CROP], SAME, 0.01),
        ([A.PadIfNeeded(120, 150, p=1.0)], SAME, 0.01),
        ([DepthZoom(scale=(1.0, 2.5), p=1.0)], SAME, 1.3),
        ([A.Resize(192, 200, p=1.0)], SAME, 1.6),
        ([A.RandomSizedCrop((50, 90), (96, 128), p=1.0)], SAME, 2.6),
        ([A.RandomResizedCrop((64, 100), p=1.0)], SAME, 4.0),
        ([A.Rotate(limit=(-45, 45), p=1.0)], None, 1.1),
        ([A.Affine(scale=(0.8, 1.4), keep_ratio=True, translate_px=(-9, 9), rotate=(-30, 30), p=1.0)], None, 1.4),
        ([A.HorizontalFlip(p=1.0), DepthZoom(scale=(1.0, 2.5), p=1.0), CROP], MIRRORED, 1.3),
        (geometric(), None, 1.7),
    ],
    ids=lambda value: "" if not isinstance(value, list) else " ".join(type(each).__name__ for each in value),
)
def test_a_point_reprojects_after_each_transform(transforms, axes, pixels):
    """A point seen at a pixel stays where it is in space, seen from the side, from a mirror, or z times as near.

    Each depth states the pixel it was measured at, so where each went is known; a nearest pixel is half a pixel off.
    """
    augment = Augment(transforms)
    for seed in range(25):
        _, depth, camera = augment(IMAGE, NUMBERS, seed, CAMERA)
        numbers = numbers_in(depth, transforms)
        seen = numbers > 0
        assert seen.sum() > 500
        rows, columns = np.divmod(numbers[seen] - 1, WIDTH)
        nearer = depth[seen] / NUMBERS.ravel()[numbers[seen] - 1]
        before = np.stack([(columns - CAMERA.cx) / CAMERA.fx, (rows - CAMERA.cy) / CAMERA.fy], axis=1)
        rows, columns = np.nonzero(seen)
        after = np.stack([(columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy], axis=1) * nearer[:, None]
        turn = axes
        if turn is None:  # the rotation that fits best; it leaves no room for a focal length that is wrong
            left, _, right = np.linalg.svd(after.T @ before)
            turn = left @ right
        off = (after - before @ turn.T) * (camera.fx, camera.fy) / nearer[:, None]
        assert abs(off).max() < pixels
        assert abs(off.mean(axis=0)).max() < pixels / 2


@pytest.mark.parametrize("name", ["flip", "standard", "strong"])
def test_the_camera_changes_nothing_of_what_is_drawn_and_keeps_its_focal_length(name):
    """Image and depth are those of the plain chain, as it was before cameras; only zooms and resizes change a focal."""
    config = OmegaConf.create({"data": {"depth_range": {"min": 1e-3, "max": 10.0}}})
    config.augment = OmegaConf.load(STRONG.with_name(f"{name}.yaml"))
    first, second = (instantiate(config.augment.transforms, _convert_="all") for _ in range(2))
    augment, plain = Augment(first), A.Compose(second, additional_targets={"depth": "mask"})
    nyu = Intrinsics(*NYU_INTRINSICS).resized((480, 640), (HEIGHT, WIDTH))
    for seed in range(60):
        plain.set_random_state(np.random.default_rng(seed), random.Random(seed))
        expected = plain(image=IMAGE, depth=NUMBERS)
        image, depth, camera = augment(IMAGE, NUMBERS, seed, nyu)
        for found in ((image, depth), augment(IMAGE, NUMBERS, seed)[:2]):
            assert found[0].tobytes() == expected["image"].tobytes()
            assert found[1].tobytes() == expected["depth"].tobytes()
        assert camera.focal == pytest.approx(nyu.focal, rel=1e-12)
        assert camera[:2] == (nyu[:2] if name != "strong" else pytest.approx(nyu[:2], rel=1e-4))


@pytest.mark.parametrize(
    "bent", [A.ElasticTransform(p=1.0), A.Perspective(p=1.0), A.GridDistortion(p=1.0), A.OpticalDistortion(p=1.0)]
)
def test_a_distortion_leaves_no_pinhole_camera(bent):
    assert Augment([bent])(IMAGE, NUMBERS, 1, CAMERA)[2] is None


def test_a_transform_that_moves_no_points_leaves_the_camera_unknown():
    class Upside(A.DualTransform):
        def apply(self, img, **params):
            return img[::-1].copy()

    augment = Augment([Upside(p=1.0)])
    image, depth, camera = augment(IMAGE, NUMBERS, 1, CAMERA)
    assert camera is None
    assert (image == IMAGE[::-1]).all()
    assert (depth == NUMBERS[::-1]).all()
    assert augment(IMAGE, NUMBERS, 1, None)[2] is None
    assert Augment()(IMAGE, NUMBERS, 1, CAMERA)[2] is CAMERA


def test_a_sample_has_the_camera_of_its_augmented_image(make_lists):
    layout = open_root(make_lists())
    camera = layout.intrinsics("train", 0).resized((48, 64), (24, 32))
    flipped = DepthDataset(layout, "train", (24, 32), Augment([A.HorizontalFlip(p=1.0)]))[0].intrinsics
    assert torch.equal(flipped, torch.tensor([camera.fx, camera.fy, 31 - camera.cx, camera.cy]))
    bent = DepthDataset(layout, "train", (24, 32), Augment([A.Perspective(p=1.0)]))[0].intrinsics
    assert bent.isnan().all()
    assert bent.shape == (4,)


def epochs(root, workers):
    """Return two epochs' samples by frame."""
    data = DepthDataModule.from_root(
        root, image_size=[24, 32], batch_size=2, augment=Augment(strong()), num_workers=workers, seed=3
    )
    loader = data.train_dataloader()
    samples = []
    for epoch in range(2):
        loader.batch_sampler.set_epoch(epoch)
        rows = [row for batch in loader for row in zip(batch.frame, batch.image, batch.depth, batch.mask, strict=True)]
        samples.append({int(frame): parts for frame, *parts in rows})
    return samples


def test_workers_change_nothing_and_epochs_differ(make_lists):
    root = make_lists(train=8, holes=True)
    alone = epochs(root, 0)
    for workers in (1, 4):
        for one, other in zip(alone, epochs(root, workers), strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(a, b) for frame in one for a, b in zip(one[frame], other[frame], strict=True))
    both = alone[0].keys() & alone[1].keys()
    assert sum(not torch.equal(alone[0][frame][0], alone[1][frame][0]) for frame in both) >= len(both) - 1
    assert any(not torch.equal(alone[0][frame][1], alone[1][frame][1]) for frame in both)


def test_none_is_the_identity():
    assert Augment()(IMAGE, NUMBERS, 5)[0] is IMAGE


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Augment([print]), "no albumentations transform"),
        (lambda: DepthZoom(scale=(0.9, 1.5)), r"DepthZoom: scale=\(0\.9, 1\.5\)"),
        (lambda: DepthZoom(scale=(1.5, 1.2)), "DepthZoom: scale="),
        (lambda: DepthZoom(scale=(1.0, float("inf"))), "DepthZoom: scale="),
        (lambda: CutDepth(None), "data.depth_range="),
        (lambda: CutDepth((1e-3, "far")), "depth_range: .*far"),
    ],
)
def test_what_cannot_be_is_refused(make, words):
    with pytest.raises(InputError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("DepthZoom", {"scale": 1.5}, "scale=1.5"),
        ("DepthZoom", {"scale": [1.0, 1.2, 1.4]}, "scale="),
        ("DepthZoom", {"p": 1.5}, "p=1.5"),
        ("CutDepth", {"share": 1.5}, "share=1.5"),
        ("CutDepth", {"p": "often"}, "p=often"),
    ],
)
def test_what_cannot_be_is_refused_in_a_config(name, arguments, words):
    config = {"_target_": f"depthnet.data.transforms.{name}", "depth_range": [1e-3, 10.0], **arguments}
    if name == "DepthZoom":
        del config["depth_range"]
    with pytest.raises(InputError, match=f"^augment.{words}.*: it is "):
        check_arguments(config, "augment")
