"""Built-in scenes: furnished rooms made by index from a seed, rendered with exact metric depth. No files.

A room is furnished as rooms are: by a theme, with furniture along the walls and in the middle, things on top of it,
doors, windows and pictures on the walls, lamps and daylight. A camera like NYU's Kinect stands in it at the height of a
person. Everything is decided before the picture's size is looked at, so a scene is the same at every size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from depthnet.data import furniture as fn
from depthnet.data import textures as tx
from depthnet.data.furniture import BALL, BLACK, BOX, TUBE, WHITE, Room
from depthnet.data.layout import SPLITS, Layout, Pair, Truth
from depthnet.data.raycast import Camera, Light, Scene, cast, illuminate, sight
from depthnet.data.textures import Film, Material
from depthnet.types import DepthRange, InputError

__all__ = ["RoomsLayout", "render_room"]

_NEAREST, _FARTHEST = 0.4, 9.9  # no pixel is nearer or farther [m]

_THEMES = (
    (fn.sofa, fn.sofa, fn.cupboard, fn.bookcase, fn.table, fn.floor_lamp, fn.cupboard),
    (fn.bed, fn.cupboard, fn.cupboard, fn.desk, fn.bookcase, fn.oddment),
    (fn.bed, fn.bed, fn.desk, fn.cupboard, fn.floor_lamp),
    (fn.desk, fn.desk, fn.bookcase, fn.bookcase, fn.desk, fn.bookcase),
    (fn.kitchen, fn.table, fn.kitchen, fn.cupboard),
    (fn.table, fn.table, fn.table, fn.cupboard, fn.bookcase),
    (fn.sofa, fn.desk, fn.bookcase, fn.cupboard, fn.sofa, fn.plant),
    (fn.bathroom, fn.cupboard, fn.oddment),
)
_EXTRAS = (fn.oddment, fn.oddment, fn.plant, fn.floor_lamp, fn.cupboard, fn.bookcase, fn.sofa)
_PAINTS = (
    (0.91, 0.89, 0.85),
    (0.88, 0.83, 0.71),
    (0.8, 0.73, 0.6),
    (0.74, 0.74, 0.73),
    (0.85, 0.74, 0.5),
    (0.7, 0.65, 0.57),
)
_BOLD = (
    (0.6, 0.35, 0.28),
    (0.35, 0.46, 0.6),
    (0.72, 0.79, 0.84),
    (0.72, 0.77, 0.66),
    (0.84, 0.7, 0.62),
    (0.5, 0.45, 0.38),
)
_STILL = Camera(np.zeros(3), np.eye(3))
_SPARSE = sight(_STILL, (9, 12)).reshape(3, -1)  # what a camera is judged by
_EDGES = sight(_STILL, (480, 640))[:, ::479, ::639].reshape(3, -1)


class RoomsLayout(Layout):
    """Built-in rooms as a data set. Every frame is a room of its own; no two splits share one.

    Args:
        counts: How many frames each split has; a split that is not named has none.
        size: (height, width) of every frame [pixels].
        seed: Of everything; another seed gives other rooms.
        depth_range: Depths that count as valid [m].

    Raises:
        InputError: If a split is unknown, a count or the seed is negative, or a size is not positive.

    Example:
        >>> rooms = RoomsLayout({"train": 2, "val": 1}, (48, 64))
        >>> rooms.count("train"), rooms.count("test"), rooms.scene("val", 0)
        (2, 0, 'val room 000000')
        >>> image, depth = rooms.read("val", 0)
        >>> image.shape, depth.shape, bool((depth > 0.4).all())
        ((48, 64, 3), (48, 64), True)
    """

    name = "rooms"
    truth: Truth = "filled"
    scene_rule = "every frame is another room"

    def __init__(
        self,
        counts: Mapping[str, int],
        size: tuple[int, int],
        seed: int = 0,
        depth_range: DepthRange = DepthRange(1e-3, 10.0),  # noqa: B008  frozen
    ) -> None:
        for split, count in counts.items():
            if split not in SPLITS:
                raise InputError(f"rooms: split {split!r} is unknown; name {', '.join(SPLITS)}")
            if count < 0:
                raise InputError(f"rooms: {split}={count} frames; give 0 or more")
        if len(size) != 2 or min(size) < 1:
            raise InputError(f"rooms: a size of {tuple(size)} pixels; give (height, width), both positive")
        if seed < 0:
            raise InputError(f"rooms: seed={seed}; give 0 or more")
        self.description = f"built-in rooms, scene seed {seed}"
        self.depth_range = depth_range
        self._counts, self._size, self._seed = dict(counts), (int(size[0]), int(size[1])), seed

    def count(self, split: str) -> int:
        """Return the number of frames in a split; 0 for a split that was not named."""
        return self._counts.get(split, 0)

    def read(self, split: str, frame: int) -> Pair:
        """Render one pair: RGB ``uint8`` ``(H, W, 3)`` and depth [m] ``float32`` ``(H, W)``."""
        return _render((self._seed, SPLITS.index(split), frame), self._size)

    def size(self, split: str, frame: int) -> tuple[int, int]:
        """Return (height, width), the same for all frames."""
        return self._size

    def scene(self, split: str, frame: int) -> str:
        """Return the room's name."""
        return f"{split} room {frame:06d}"

    def label(self, split: str, frame: int) -> str:
        """Return a name that can be a file's."""
        return f"{split}_{frame:06d}"

    def where(self, split: str, frame: int) -> str:
        """Return what to call a frame in a message."""
        return f"rooms, {split}, frame {frame}"


def render_room(seed: int, index: int, size: tuple[int, int]) -> Pair:
    """Render the built-in room of a seed and an index: the frame ``index`` of the training split.

    Args:
        seed: Not negative; another seed gives other rooms.
        index: Not negative.
        size: (height, width) [pixels]; the scene does not depend on it.

    Returns:
        RGB, ``uint8``, shape ``(H, W, 3)``, and exact depth along the optical axis [m], ``float32``, shape ``(H, W)``,
        no pixel nearer than 0.4 or farther than 9.9 where the picture is as wide as NYU's or wider.
    """
    return _render((seed, SPLITS.index("train"), index), size)


def _render(stream: tuple[int, int, int], size: tuple[int, int], attempt: int = 0) -> Pair:
    words = np.random.SeedSequence([*stream, attempt]).generate_state(3, np.uint64)
    room = Room(int(words[0]))
    scene, materials = _furnish(room)
    camera = _find_camera(room, scene)
    if camera is None:  # too full; take another room
        return _render(stream, size, attempt + 1)
    hits = cast(scene, camera, size)
    surface = (hits.place, hits.extent, hits.footprint, hits.face)
    albedo, gloss, glow = tx.paint(*surface, hits.part, materials, int(words[1]))
    falls, mirrored = illuminate(scene, hits)
    light = albedo * (falls + glow) + mirrored * gloss
    return tx.develop(light.reshape(3, *size), _film(room), np.random.default_rng(words[2])), hits.depth


def _furnish(room: Room) -> tuple[Scene, list[Material]]:
    """Return a furnished room with the material of each solid and wall."""
    walls = _shell(room)
    for piece in room.choice(_THEMES):
        piece(room)
    for _ in range(room.randint(1, 3) + int(room.size[0] * room.size[1] / 8)):
        room.choice(_EXTRAS)(room)
    _pictures(room)
    room.blocks = True
    for frame, w, d, low in room.tops:
        room.frame = frame
        for _ in range(min(room.choice((0, 2, 3, 4, 5)), int(1 + w * 3))):
            with room.at(room.uniform(-0.5, 0.5) * w, room.uniform(-0.5, 0.5) * d, room.gauss(0, 0.5)):
                fn.thing(room, low)
    tone = np.sum([light.colour for light in room.lights], 0) * room.uniform(0.04, 0.11)
    bounce = tone * (0.3 + 0.7 * tx.linear([wall.first for wall in walls]))
    return Scene(room.size, room.solids, room.lights, bounce), room.materials + walls


def _shell(room: Room) -> list[Material]:
    """Return what walls, floor and ceiling are made of; add doors, windows, skirting and ceiling lamps."""
    width, length, _ = room.size
    paint, wood = room.shade(room.choice(_PAINTS if room.random() < 0.75 else _BOLD)), room.wood()
    other, plain = room.shade(paint, 0.2), Material(tx.plain, paint)
    papers = (
        plain,
        Material(tx.plain, room.shade(room.choice(_BOLD))),
        Material(tx.stripes, paint, other, (room.uniform(0.06, 0.3), 9)),
        Material(tx.blotches, paint, other, (0.12, 0.12)),
        Material(tx.tiles, room.shade((0.6, 0.35, 0.27)), (0.75, 0.72, 0.68), (0.24, 0.08)),
        Material(tx.planks, wood.first, wood.second, (3.0, 0.12)),
    )
    walls = [room.choices(papers, (20, 0, 1, 1, 0.5, 0.7))[0]] * 4
    if room.random() < 0.3:  # one wall is not like the others
        walls = [plain] * 4
        walls[room.randrange(4)] = room.choices(papers, (0, 8, 1, 1, 0.7, 1))[0]
    step = room.choice((0.2, 0.3, 0.45))
    boards = (room.uniform(0.6, 1.8), room.uniform(0.07, 0.2))
    floor = (wood.first, wood.second) if wood.pattern is tx.grain else ((0.66, 0.47, 0.3), (0.5, 0.34, 0.2))
    floors = (
        Material(tx.planks, *floor, boards, room.uniform(0, 0.2)),
        Material(tx.carpet, room.shade((0.62, 0.55, 0.46), 0.45), room.shade((0.5, 0.44, 0.38), 0.4), (0.4, 0.4)),
        Material(tx.tiles, room.shade((0.72, 0.66, 0.58), 0.3), (0.5, 0.48, 0.45), (step, step), 0.1),
        Material(tx.checks, (0.8, 0.78, 0.72), room.shade((0.35, 0.3, 0.28), 0.5), (0.3, 0.3), 0.1),
    )
    trim = WHITE if room.random() < 0.6 else room.timber
    for _ in range(room.choice((1, 1, 2))):
        _door(room, trim)
    for _ in range(room.choice((0, 1, 1, 2))):
        _window(room, trim)
    for x, y, w, d in ((width / 2, 0, width, 0.03), (width / 2, length, width, 0.03), (0, length / 2, 0.03, length)):
        room.frame = (x, y, 0, 0)
        room.add(BOX, (0, 0, 0), (w, d, 0.09), trim)
    _ceiling_lamp(room)
    return [*walls, room.choices(floors, (5, 4, 2, 0.5))[0], Material(tx.plain, room.shade((0.92, 0.91, 0.88), 0.06))]


def _door(room: Room, trim: Material) -> None:
    w, h = room.uniform(0.78, 0.95), 2.02
    if room.hang(w + 0.2, h, 0.0, 0.75):
        leaf = Material(tx.panels, room.choice((WHITE, room.timber)).first, (0.5, 0.45, 0.3), (w, h))
        room.add(BOX, (0, 0, 0), (w + 0.16, 0.05, h + 0.08), trim)
        room.add(BOX, (0, 0, 0), (w, 0.07, h), leaf)
        room.add(BALL, (w / 2 - 0.08, 0.07, 0.98), (0.06, 0.06, 0.06), fn.STEEL)


def _window(room: Room, trim: Material) -> None:
    w, low = room.uniform(0.7, 2.0), room.uniform(0.7, 1.0)
    h = min(room.uniform(1.0, 1.5), room.size[2] - low - 0.15)
    curtain, shut = room.random() < 0.45, room.random() < 0.3
    if not room.hang(w + (0.7 if curtain else 0.2), h, low, 0.3):
        return
    sky = room.choice(((0.85, 0.93, 1.0), (1, 1, 1), (0.75, 0.87, 1.0))) if room.day else (0.08, 0.09, 0.13)
    glow = room.uniform(1.5, 4) if room.day else 0.2
    if shut:
        glass = Material(
            tx.blinds, sky if room.day else (0.7, 0.68, 0.6), step=(w, room.uniform(0.03, 0.06)), glow=glow
        )
    else:
        panes = (w / room.choice((1, 2, 2, 3)), h / room.choice((1, 1, 2)))
        glass = Material(tx.window, sky, trim.first, panes, 0.1, glow)
    room.add(BOX, (0, 0, low - 0.06), (w + 0.14, 0.06, h + 0.12), trim)
    room.add(BOX, (0, 0, low), (w, 0.08, h), glass)
    room.add(BOX, (0, 0.06, low - 0.05), (w + 0.18, 0.14, 0.03), trim)
    if curtain:
        cloth = Material(tx.folds, room.hue(), step=(room.uniform(0.07, 0.14), 1))
        foot = 0.05 if room.random() < 0.6 else low - 0.15
        for x in (-w / 2 - 0.12, w / 2 + 0.12):
            room.add(BOX, (x, 0.09, foot), (0.38, 0.07, low + h + 0.1 - foot), cloth)
        room.add(TUBE, (0, 0.1, low + h + 0.12), (w + 0.75, 0.03, 0.03), room.timber)
    elif room.random() < 0.4:
        radiator = Material(tx.stripes, (0.9, 0.9, 0.88), (0.6, 0.6, 0.6), (0.05, 1))
        room.add(BOX, (0, 0.07, 0.12), (w * 0.8, 0.1, 0.5), radiator)
    if room.day and not room.lights:
        out = (-math.sin(room.frame[3]), math.cos(room.frame[3]), 0.0)
        spread, power = (abs(out[1]) * w / 3, abs(out[0]) * w / 3, h / 3), room.uniform(4, 9) * w * h
        colour = (0.9 * power, 0.95 * power, 1.05 * power)
        room.lights.append(Light(room.world(0, 0.12, low + h / 2), spread, colour, out))


def _ceiling_lamp(room: Room) -> None:
    width, length, height = room.size
    lit = not room.lights or room.random() < 0.6
    tone, power, kind = room.choice(fn.LAMPS), room.uniform(2.5, 5), room.randrange(4)
    shade = Material(tx.plain, tone if lit else (0.85, 0.84, 0.8), glow=room.uniform(2, 5) if lit else 0.0)
    x, y = width * room.uniform(0.35, 0.65), length * room.uniform(0.3, 0.7)
    room.frame, drop = (x, y, height, 0), 0.12
    if kind == 0:
        room.add(TUBE, (0, 0, -0.1), (0.36, 0.36, 0.1), shade)
    elif kind == 1 and height > 2.5:
        drop = 0.6
        room.add(TUBE, (0, 0, -0.5), (0.012, 0.012, 0.5), BLACK)
        room.add(TUBE, (0, 0, -0.65), (0.4, 0.4, 0.24), shade, taper=0.5)
    elif kind == 2:
        room.add(BALL, (0, 0, -0.22), (0.3, 0.3, 0.24), shade)
    else:
        for across, along in itertools.product((-0.2, 0.2), range(-2, 3)):
            if abs(along) * 1.6 < min(y, length - y) - 0.7 and width > 3.4:
                room.add(BOX, (across * width, along * 1.6, -0.03), (0.6, 1.2, 0.03), shade)
    if lit:
        spread = (0.5, 0.7, 0.0) if kind == 3 else (0.15, 0.15, 0.05)
        colour = (tone[0] * power, tone[1] * power, tone[2] * power)
        room.lights.append(Light((x, y, height - drop), spread, colour))


def _pictures(room: Room) -> None:
    for _ in range(room.randrange(8)):
        w, h = room.uniform(0.25, 1.1), room.uniform(0.25, 0.8)
        low, kind = room.uniform(1.45, 1.7) - h / 2, room.randrange(6)
        if kind == 0 and room.hang(w, 0.35, low, 0.25):
            room.add(BOX, (0, 0.11, low), (w, 0.22, 0.025), room.timber)
            with room.at(0, 0.11):
                room.top(low + 0.025, w * 0.7, 0.05, low=True)
        elif kind > 0 and room.hang(w, h, low):
            frame = room.choice((room.wood().first, (0.1, 0.1, 0.1), (0.85, 0.84, 0.8)))
            room.add(BOX, (0, 0, low), (w, 0.05, h), Material(tx.picture, frame, step=(room.uniform(0, 0.08), 0)))


def _find_camera(room: Room, scene: Scene) -> Camera | None:
    """Find a camera that sees depths like NYU's and many things; None if the room has no place for one."""
    corners = np.array(list(itertools.product(*((0, s) for s in room.size))))
    count = len(scene.solids)
    blocks = np.flatnonzero([solid.blocks for solid in scene.solids])
    inward = (scene.axes[blocks].transpose(0, 2, 1) / scene.half[blocks, :, None]).reshape(-1, 3)
    wanted = math.log(2.7) + room.gauss(0, 0.35)  # the median depths of NYU's pictures spread like this
    best, found, left = math.inf, None, 8
    for _ in range(100):
        camera = _pose(room)
        local = np.einsum("sji,sj->si", scene.axes[:count], camera.position - scene.centre[:count])
        # The ray to a picture's corner is 1.28 times as long as its depth, so 1.4 keeps corners clear too.
        clear = (np.maximum(np.abs(local) - scene.half[:count], 0) ** 2).sum(1).min() > (1.4 * _NEAREST) ** 2
        ahead = (corners - camera.position) @ camera.axes[:, 2]
        if not clear or ahead.max() > _FARTHEST or _leave(camera, _EDGES, scene).min() < _NEAREST:
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1 / (inward @ camera.axes @ _SPARSE).astype(np.float32).reshape(len(blocks), *_SPARSE.shape)
            middle = -inverse * (local[blocks] / scene.half[blocks]).astype(np.float32)[:, :, None]
            reach = np.abs(inverse)
            into, out = (middle - reach).max(1), (middle + reach).min(1)
        met = np.where((into > 0) & (into < out), into, np.inf).min(0, initial=np.inf)
        empty = _leave(camera, _SPARSE, scene)
        depth = np.minimum(empty, met)
        bare, flat = (met > empty).mean(), np.log(depth).std()
        if flat + 1 - bare < 0.25:  # hardly more than a wall
            continue
        cost = abs(math.log(np.median(depth)) - wanted) + max(bare - 0.4, 0) + max(0.35 - flat, 0)
        if cost < best:
            best, found = cost, camera
        left -= 1
        if not left or best < 0.05:
            break
    return found


def _pose(room: Room) -> Camera:
    """Hold a camera somewhere in the room as a person does, mostly a little downwards."""
    width, length, _ = room.size
    x, y, z = room.uniform(0.15, width - 0.15), room.uniform(0.15, length - 0.15), room.gauss(1.42, 0.16)
    yaw = math.atan2(length * room.random() - y, width * room.random() - x)
    down, roll = room.gauss(0.19, 0.12), room.gauss(0, 0.035)
    forward = np.array([math.cos(yaw) * math.cos(down), math.sin(yaw) * math.cos(down), -math.sin(down)])
    right = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
    below = np.cross(forward, right)
    c, s = math.cos(roll), math.sin(roll)
    return Camera(
        np.array([x, y, min(max(z, 0.95), 1.75)]), np.stack([c * right + s * below, c * below - s * right, forward], 1)
    )


def _leave(camera: Camera, rays: npt.NDArray[np.float32], scene: Scene) -> npt.NDArray[np.float64]:
    """Return the depth at which rays, ``(3, N)`` in the camera's frame, leave an empty room."""
    ray = camera.axes @ rays
    with np.errstate(divide="ignore"):
        at = np.where(ray > 0, (scene.size - camera.position)[:, None], -camera.position[:, None]) / ray
    depth: npt.NDArray[np.float64] = at.min(0)
    return depth


def _film(room: Room) -> Film:
    """Choose an exposure; white balance leaves a part of the lamps' colour, as the Kinect's does."""
    tone = np.sum([light.colour for light in room.lights], 0)
    red, green, blue = (tone.mean() / tone) ** room.uniform(0.4, 1.0) * [math.exp(room.gauss(0.0, 0.06)) for _ in "rgb"]
    return Film(
        exposure=0.27 * math.exp(room.gauss(0, 0.4)),
        balance=(float(red), float(green), float(blue)),
        contrast=room.uniform(0.3, 1.0),
        saturation=room.uniform(0.45, 0.9),
        vignette=room.uniform(0, 0.35),
        blur=room.uniform(0.1, 0.45),
        noise=room.uniform(0.002, 0.009),
    )
