import itertools
import math
import pickle
from random import Random

import numpy as np
import pytest

from depthnet.core.types import InputError
from depthnet.data.rooms import layout as rooms
from depthnet.data.rooms import room as rooms_room
from depthnet.data.rooms import textures
from depthnet.data.rooms.furniture import Room
from depthnet.data.rooms.layout import RoomsLayout
from depthnet.data.rooms.raycast import Camera, Hits, Light, Scene, Shape, Solid, cast, illuminate, intrinsics
from depthnet.data.rooms.room import find_camera, furnish
from depthnet.run.arguments import check_arguments

SMALL = (30, 40)
LAMP = Light((2.0, 2.5, 2.3), (0.0, 0.0, 0.0), (4.0, 4.0, 4.0))


def render(seed, frame, size, **options):
    return RoomsLayout({"train": frame + 1}, size, seed, **options).read("train", frame)


def camera_at(position, yaw, down=0.0, roll=0.0):
    forward = np.array([math.cos(yaw) * math.cos(down), math.sin(yaw) * math.cos(down), -math.sin(down)])
    right = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
    below = np.cross(forward, right)
    c, s = math.cos(roll), math.sin(roll)
    return Camera(np.array(position), np.stack([c * right + s * below, c * below - s * right, forward], 1))


def scene_of(*solids, size=(4.0, 5.0, 2.5), lights=(LAMP,)):
    return Scene(size, solids, lights, np.full((6, 3), 0.1))


def turned(yaw, tilt=0.0):
    c, s, ct, st = math.cos(yaw), math.sin(yaw), math.cos(tilt), math.sin(tilt)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, ct, -st], [0, st, ct]])


def rays_of(camera, size):
    """Rays through pixel centers from the calibration matrix, written apart from the code under test."""
    fx, fy, cx, cy = intrinsics(size)
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    v, u = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    return (camera.axes @ np.linalg.inv(matrix) @ np.stack([u.ravel(), v.ravel(), np.ones(u.size)])).T


def inside(solid, points, shrink=1.0):
    """Whether points ``(N, 3)`` lie in a solid scaled by ``shrink``, straight from its definition."""
    x, y, z = ((points - np.array(solid.center)) @ solid.axes / np.array(solid.half) / shrink).T
    if solid.shape == Shape.BOX:
        return np.maximum(np.maximum(abs(x), abs(y)), abs(z)) <= 1
    if solid.shape == Shape.BALL:
        return x * x + y * y + z * z <= 1
    upper, lower = min(solid.taper, 1), min(1 / solid.taper, 1)
    radius = (1 + z) / 2 * upper + (1 - z) / 2 * lower
    return (abs(z) <= 1) & (np.hypot(x, y) <= radius)


@pytest.fixture(scope="module")
def forty():
    layout = RoomsLayout({"train": 40}, (60, 80), seed=3)
    images, depths = zip(*(layout.read("train", frame) for frame in range(40)), strict=True)
    return np.stack(images), np.stack(depths)


def test_the_same_room_comes_back_bit_for_bit():
    layout = RoomsLayout({"train": 9}, SMALL, seed=5)
    first, _, again = render(5, 2, SMALL), layout.read("train", 7), layout.read("train", 2)
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes()


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_scene_is_the_same_at_every_size(index):
    small, large = render(0, index, (60, 80))[1], render(0, index, (180, 240))[1]
    middle = large[1::3, 1::3]  # the large picture's pixels whose centers are the small one's
    same = np.abs(small - middle) < 1e-3
    assert same.mean() > 0.998  # a ray along an edge may fall on either side of it


def test_splits_seeds_and_frames_are_different_rooms():
    seen = set()
    for seed, split, frame in itertools.product((0, 1), ("train", "val", "test"), range(3)):
        layout = RoomsLayout({"train": 3, "val": 3, "test": 3}, (12, 16), seed=seed)
        seen.add(layout.read(split, frame)[1].tobytes())
    assert len(seen) == 18


def test_shapes_and_dtypes(forty):
    image, depth = render(1, 0, (37, 50))
    assert (image.shape, image.dtype) == ((37, 50, 3), np.uint8)
    assert (depth.shape, depth.dtype) == ((37, 50), np.float32)
    assert image.flags.c_contiguous
    assert depth.flags.c_contiguous


def test_depths_are_those_of_indoor_pictures(forty):
    _, depth = forty
    assert np.isfinite(depth).all()
    assert depth.min() > 0.5
    assert depth.max() < 9.9
    p5, median, p95 = np.percentile(depth, (5, 50, 95))
    assert 0.9 < p5 < 1.6
    assert 2.2 < median < 3.3
    assert 4.5 < p95 < 7.0
    rows = depth.mean((0, 2))
    assert rows[:20].mean() > 1.2 * rows[-20:].mean()  # the floor comes nearer towards the lower edge


def test_pictures_are_neither_flat_nor_alike_nor_of_bare_walls(forty):
    image, depth = forty
    assert (image.std((1, 2, 3)) > 15).all()
    assert image.mean((1, 2, 3)).min() > 30
    assert image.mean((1, 2, 3)).max() < 200
    thumbs = image[:, ::10, ::10].reshape(40, -1).astype(float)
    assert min(np.abs(a - b).mean() for a, b in itertools.combinations(thumbs, 2)) > 8
    steps = np.abs(np.diff(depth, axis=2)) / depth[:, :, 1:] > 0.05
    assert np.median(steps.mean((1, 2))) > 0.01  # things stand in front of other things


@pytest.mark.parametrize(("size", "nearest", "farthest"), [((6.0, 7.0, 3.2), 0.4, 5.5), ((4.0, 4.0, 2.4), 0.65, 9.9)])
def test_cameras_keep_to_the_nearest_and_farthest_depth(monkeypatch, size, nearest, farthest):
    monkeypatch.setattr(rooms_room, "_NEAREST", nearest)
    monkeypatch.setattr(rooms_room, "_FARTHEST", farthest)
    found = 0
    for seed in range(40):
        room = Room(seed)
        room.size = size
        scene, _ = furnish(room)
        camera = find_camera(room, scene)
        if camera is not None:
            depth = cast(scene, camera, (60, 80)).depth
            assert depth.min() > nearest
            assert depth.max() < farthest
            found += 1
    assert found > 10


def test_furniture_stands_on_something_and_in_the_room():
    for seed in range(12):
        room = Room(seed)
        scene, materials = furnish(room)
        count = len(scene.solids)
        assert len(materials) == count + 6
        reach = np.einsum("sij,sj->si", np.abs(scene.axes[:count]), scene.half[:count])
        low, high = scene.center[:count] - reach, scene.center[:count] + reach
        assert low.min() > -0.3
        assert (high - scene.size).max() < 0.3
        touching = ((low[:, None] < high[None] + 0.03) & (low[None] < high[:, None] + 0.03)).all(2)
        held = ((low < 0.03) | (high > scene.size - 0.03)).any(1)
        for _ in range(count):
            held |= (touching & held).any(1)
        assert held.all()


def test_empty_room_equals_plane_intersections():
    size = (48, 64)
    scene, camera = scene_of(), camera_at((1.1, 0.7, 1.5), 1.2, 0.25, 0.06)
    rays = rays_of(camera, size)
    expected = np.full(len(rays), np.inf)
    for axis, at in itertools.product(range(3), (0, 1)):
        normal = np.zeros(3)
        normal[axis] = 1
        distance = (at * scene.size[axis] - camera.position @ normal) / (rays @ normal)
        expected = np.where(distance > 0, np.minimum(expected, distance), expected)
    hits = cast(scene, camera, size)
    np.testing.assert_allclose(hits.depth.ravel(), expected, rtol=1e-5)
    np.testing.assert_allclose(hits.point.T, camera.position + rays * expected[:, None], atol=1e-4)


def test_depth_is_along_the_axis_not_along_the_ray():
    hits = cast(scene_of(), camera_at((1.0, 2.5, 1.25), 0.0), (48, 64))
    wall = hits.part == 1  # x = width, which the camera looks at squarely
    assert wall.mean() > 0.3
    np.testing.assert_allclose(hits.depth.ravel()[wall], 3.0, rtol=1e-6)


def test_nyu_intrinsics_scale_with_the_width():
    assert intrinsics((480, 640)) == pytest.approx((518.8579, 519.4696, 325.5824, 253.7362))
    fx, fy, cx, cy = intrinsics((240, 320))
    assert (fx, fy) == pytest.approx((518.8579 / 2, 519.4696 / 2))
    assert (2 * cx + 0.5, 2 * cy + 0.5) == pytest.approx((325.5824, 253.7362))  # half-pixel centers
    assert intrinsics((200, 640))[:2] == pytest.approx((518.8579, 519.4696))


@pytest.mark.parametrize("shape", Shape)
@pytest.mark.parametrize("taper", [0.5, 1.0, 1.6])
def test_rays_end_on_a_solid_and_pass_through_none(shape, taper):
    size = (45, 60)
    solids = [
        Solid(shape, (2.6, 3.2, 0.9), (0.5, 0.3, 0.6), turned(0.7, 0.3), taper),
        Solid(shape, (1.5, 3.8, 1.6), (0.02, 0.02, 0.5), turned(0.2), taper),
        Solid(shape, (1.2, 2.6, 0.4), (0.6, 0.4, 0.1), turned(-0.4, -0.8), taper),
    ]
    scene, camera = scene_of(*solids), camera_at((1.3, 0.6, 1.4), 1.35, 0.2, 0.05)
    hits = cast(scene, camera, size)
    rays, depth = rays_of(camera, size), hits.depth.ravel()
    for number, solid in enumerate(solids):
        own = hits.part == number
        assert own.sum() > 5
        end = camera.position + rays[own] * depth[own, None]
        assert inside(solid, end, 1.002).all()
        assert not inside(solid, end, 0.998).any()
        assert ((hits.normal.T[own] * (camera.position - end)).sum(1) > -1e-4).all()
        for share in np.linspace(0.0, 0.999, 300):
            assert not inside(solid, camera.position + rays * (share * depth)[:, None], 0.995).any()


def test_things_cast_shadows():
    board = Solid(Shape.BOX, (2.0, 2.5, 1.0), (0.4, 0.4, 0.02), np.eye(3))
    camera = camera_at((2.0, 0.6, 0.8), math.pi / 2, 0.3)
    scene = scene_of(board)
    hits = cast(scene, camera, (60, 80))
    falls, _ = illuminate(scene, hits)
    bare, _ = illuminate(scene_of(), hits)
    x, y, _ = hits.point
    floor = hits.part == len(scene.solids) + 4
    under = floor & (abs(x - 2.0) < 0.45) & (abs(y - 2.5) < 0.45)  # the lamp's shadow reaches 0.7 m
    beside = floor & ((abs(x - 2.0) > 0.9) | (abs(y - 2.5) > 0.9))
    assert under.sum() > 20
    assert beside.sum() > 20
    assert falls[0, under].max() < 0.11  # only what the walls send back
    assert (bare[0, under] > 0.5).all()
    np.testing.assert_allclose(falls[:, beside], bare[:, beside], atol=0.02)


def test_the_sun_comes_in_through_openings_only_and_casts_shadows():
    size = (90, 120)
    toward = np.array([0.8, 0.1, 0.6]) / math.sqrt(1.01)
    panes = [((3.5, 1.6, 1.0), (4.5, 2.4, 1.9)), ((3.5, 2.6, 1.0), (4.5, 3.4, 1.9))]
    sun = Light(tuple(toward), (0.0, 0.0, 0.0), (5.0, 5.0, 5.0), None, panes)
    post = Solid(Shape.TUBE, (2.9, 2.0, 0.7), (0.15, 0.15, 0.7), np.eye(3))
    scene = scene_of(post, lights=[sun])
    hits = cast(scene, camera_at((0.4, 2.4, 1.6), 0.0, 0.4), size)
    falls, _ = illuminate(scene, hits)

    out = (np.where(toward > 0, scene.size, 0)[:, None] - hits.point) / toward[:, None]
    leaves = (hits.point + toward[:, None] * out.min(0)).T
    lit = np.zeros(len(leaves), bool)
    for low, high in panes:
        lit |= ((leaves > low) & (leaves < high)).all(1)
    open_sky = lit.copy()
    for share in np.linspace(0.01, 1, 300):
        lit &= ~inside(post, hits.point.T + share * (leaves - hits.point.T))
    lit &= toward @ hits.normal > 0
    grid = lit.reshape(size)
    around = [np.roll(grid, (dy, dx), (0, 1)) == grid for dy in range(-2, 3) for dx in range(-2, 3)]
    sure = np.all(around, 0).ravel() & (hits.part != 0)
    floor = hits.part == 5
    assert (sure & floor & lit).sum() > 100
    assert (sure & floor & ~lit & open_sky).sum() > 20  # the post's shadow
    expected = 0.1 + lit * 5.0 * (toward @ hits.normal)
    assert np.abs(falls[1] - expected)[sure & floor].max() < 0.12  # corners get less of the light that walls send back


def test_sun_shines_in_some_day_rooms_and_each_window_is_a_light_by_day():
    sunny = day = 0
    for seed in range(60):
        room = Room(seed)
        scene, materials = furnish(room)
        windows = sum(material.pattern in (textures.window, textures.blinds) for material in materials)
        suns = sum(bool(light.openings) for light in scene.lights)
        assert sum(light.facing is not None for light in scene.lights) == windows * room.day
        assert suns <= room.day
        sunny, day = sunny + suns, day + room.day
    assert 0.15 < sunny / day < 0.7


def test_holes_are_zero_and_all_else_is_exact():
    share = []
    for frame in range(10):
        image, depth = render(4, frame, (60, 80))
        same, holed = render(4, frame, (60, 80), holes=True)
        assert same.tobytes() == image.tobytes()
        assert holed.tobytes() == render(4, frame, (60, 80), holes=True)[1].tobytes()
        missing = holed == 0
        assert (holed[~missing] == depth[~missing]).all()
        share.append(missing.mean())
    assert 0.02 < np.mean(share) < 0.35
    assert min(share) > 0


def test_what_is_near_throws_the_projectors_shadow_to_its_left():
    board = Solid(Shape.BOX, (2.0, 1.6, 1.25), (0.3, 0.02, 0.3), np.eye(3))
    hits = cast(scene_of(board), camera_at((2.0, 0.6, 1.25), math.pi / 2), (120, 160))
    holes = rooms._holes(hits, np.zeros(hits.part.size), 0)[60]
    near = np.flatnonzero(hits.part.reshape(120, 160)[60] == 0)
    width = round(0.075 * intrinsics((120, 160))[0] * (1 / 0.98 - 1 / 4.4))
    assert holes[near[0] - width + 1 : near[0]].all()
    assert not holes[near[0] - 2 * width : near[0] - width - 1].any()
    assert not holes[near[0] : near[-1] + 2 * width].any()


def test_a_lamp_without_a_shadow_follows_the_inverse_square():
    camera = camera_at((2.0, 0.6, 1.2), math.pi / 2, 0.4)
    hits = cast(scene_of(), camera, (40, 53))
    floor = np.flatnonzero((hits.part == 4) & (hits.point[1] > 1.0) & (hits.point[1] < 4.0))
    falls, _ = illuminate(scene_of(), hits)
    dark, _ = illuminate(scene_of(lights=[LAMP._replace(color=(0.0, 0.0, 0.0))]), hits)
    toward = np.array(LAMP.position)[:, None] - hits.point[:, floor]
    square = (toward**2).sum(0)
    expected = 4.0 * toward[2] / np.sqrt(square) / (square + 0.15)
    np.testing.assert_allclose((falls - dark)[1, floor], expected, rtol=1e-3)


PATTERNS = "plain grain planks tiles checks carpet stripes plaid folds blotches books panels picture window blinds"


@pytest.mark.parametrize("name", PATTERNS.split())
def test_patterns_are_colors_and_calm_from_afar(name):
    rng = np.random.default_rng(0)
    count = 3000
    place = rng.uniform(0, 2, (2, count)).astype(np.float32)
    material = textures.Material(getattr(textures, name), (0.7, 0.5, 0.3), (0.2, 0.3, 0.4), (0.3, 0.2), 0.1, 0.5)
    spread = {}
    for blur in (0.002, 3.0):
        hits = Hits(
            depth=None,
            part=np.zeros(count, np.int32),
            point=None,
            normal=None,
            eye=None,
            place=place,
            extent=np.full((2, count), 2, np.float32),
            face=np.ones(count, int),
            footprint=np.full(count, blur, np.float32),
        )
        albedo, gloss, glow = textures.paint(hits, [material], 5)
        assert albedo.shape == (3, count)
        assert np.isfinite(albedo).all()
        assert albedo.min() >= -0.05
        assert albedo.max() < 1.3
        assert gloss[0] == pytest.approx(0.1)
        assert glow[0] == pytest.approx(0.5)
        spread[blur] = albedo.std(1).max()
    assert spread[3.0] <= spread[0.002] + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_stronger_in_the_dark(seed):
    light = np.ones((3, 40, 80), np.float32)
    light[:, :, 40:] = 0.1
    image = textures.develop(light, np.ones(3), Random(seed), np.random.default_rng(0)).astype(float)
    assert image[:, :40].mean() > 2 * image[:, 40:].mean()
    grains = np.abs(np.diff(image, axis=0))  # not the vignette
    assert grains[:, 40:].mean() > 1.1 * grains[:, :40].mean()


def test_a_blur_has_its_standard_deviation():
    light = np.zeros((3, 20, 100), np.float32)
    light[:, :, 50] = 1
    column = textures._blur(light, 2, 3.0)[0, 10]
    assert math.sqrt((column * (np.arange(100) - 50) ** 2).sum() / column.sum()) == pytest.approx(3, rel=0.01)


def test_layout_names_every_frame():
    layout = RoomsLayout({"train": 3, "val": 2}, (20, 30), seed=1)
    assert [layout.count(split) for split in ("train", "val", "test")] == [3, 2, 0]
    assert (layout.name, layout.ground_truth, layout.depth_range.max) == ("rooms", "filled", 10.0)
    assert layout.size("val", 1) == (20, 30) == layout.read("val", 1)[1].shape
    frames = [(split, frame) for split in ("train", "val") for frame in range(layout.count(split))]
    assert len({layout.scene(*frame) for frame in frames}) == len({layout.label(*frame) for frame in frames}) == 5
    assert layout.label("train", 2) == "train_000002"
    assert layout.where("train", 2) == "rooms, train, frame 2"
    assert layout.intrinsics("val", 1) == intrinsics((20, 30))
    others = [{"size": (20, 31)}, {"seed": 2}, {"holes": True}]
    first = {"counts": {"train": 3, "val": 2}, "size": (20, 30), "seed": 1}
    assert RoomsLayout(**first).identity() == layout.identity()
    assert RoomsLayout(**{**first, "counts": {"train": 9}}).identity() == layout.identity(), "the frames are the same"
    assert len({RoomsLayout(**{**first, **other}).identity() for other in ({}, *others)}) == 4
    assert RoomsLayout(**first, holes=True).ground_truth == "raw"
    copy = pickle.loads(pickle.dumps(layout))
    assert (copy.read("val", 0)[0] == layout.read("val", 0)[0]).all()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("frames", {"train": -1}, r"frames=\{train:-1\}"),
        ("frames", {"dev": 5}, r"frames=\{dev:5\}: it is \{'train' or 'val' or 'test'"),
        ("scene_seed", -2, "scene_seed=-2"),
    ],
)
def test_impossible_rooms_are_refused_in_a_config(key, value, message):
    config = {"_target_": "depthnet.data.datamodule.DepthDataModule.rooms", "frames": {"train": 1}, key: value}
    with pytest.raises(InputError, match=rf"data\..*{message}") as caught:
        check_arguments(config, "data")
    assert "\n" not in str(caught.value)
