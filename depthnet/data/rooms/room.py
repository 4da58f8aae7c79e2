"""Draws a room: walls, doors, windows, furniture, lamps and sun, and a camera that stands in it.

A room is furnished as rooms are: by a theme, with furniture along the walls and in the middle, things on top of it,
doors, windows and pictures on the walls, lamps, daylight and sun. A camera like NYU's Kinect stands in it at the height
of a person. Nothing here knows the picture's size, so a room is the same at every size.
"""

# NumPy's arithmetic is typed Any
# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt

from depthnet.data.rooms import furniture as fn
from depthnet.data.rooms import textures as tx
from depthnet.data.rooms.furniture import BALL, BOX, TUBE, Room
from depthnet.data.rooms.raycast import Camera, Light, Scene, Vector, enter_box, sight
from depthnet.data.rooms.textures import Material

_NEAREST, _FARTHEST = 0.5, 9.9  # no pixel is nearer or farther [m]

_PAINTS = tx.colors("e8e3d9 e0d4b5 ccba99 bdbdba d9bd80 b3a691")
_BOLD = tx.colors("995947 597599 b8c9d6 b8c4a8 d6b39e 807361")
_STILL = Camera(np.zeros(3), np.eye(3))
_SPARSE = sight(_STILL, (9, 12)).reshape(3, -1)  # what a camera is chosen by
_EDGES = sight(_STILL, (480, 640))[:, ::479, ::639].reshape(3, -1)


def furnish(room: Room) -> tuple[Scene, list[Material]]:
    """Return a furnished room with the material of each solid and wall."""
    walls = _shell(room)
    for name in room.choice(fn.TABLES["themes"]).split():
        fn.place(room, name)
    for _ in range(room.randint(2, 5) + int(room.size[0] * room.size[1] / 6)):
        fn.place(room, room.choice(fn.TABLES["extras"].split()))
    for _ in range(room.randint(4, 12)):
        fn.decorate(room)
    for _ in range(room.choice((1, 2, 4, 6, 9))):
        if room.stand(0.45, 0.45, 0.5, free=room.random() < 0.5):
            room.top(0, 0.1, 0.1, "f")
    for frame, w, d, kind in room.tops:
        room.frame = frame
        for _ in range(min(room.choice((1, 2, 3, 5, 7)), int(1 + w * 5))):
            with room.at(room.uniform(-0.5, 0.5) * w, room.uniform(-0.5, 0.5) * d, room.gauss(0, 0.5)):
                fn.thing(room, kind)
    tone = np.sum([light.color for light in room.lights], 0) * room.uniform(0.04, 0.11)
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
    trim = fn.WHITE if room.random() < 0.6 else room.timber
    for _ in range(room.choice((1, 1, 2))):
        _door(room, trim)
    openings = [pane for _ in range(room.choice((0, 1, 2, 2, 3))) for pane in _window(room, trim)]
    if openings and room.random() < 0.6:
        _shine(room, openings)
    for x, y, w, d in ((width / 2, 0, width, 0.03), (width / 2, length, width, 0.03), (0, length / 2, 0.03, length)):
        room.frame = (x, y, 0, 0)
        room.add(BOX, (0, 0, 0), (w, d, 0.09), trim)
    if length > 5 and room.random() < 0.5:
        _partition(room, walls[0], trim)
    for near, far in room.zones:
        fn.ceiling_lamp(room, near, far)
    return [*walls, room.choices(floors, (5, 4, 2, 0.5))[0], Material(tx.plain, room.shade((0.92, 0.91, 0.88), 0.06))]


def _partition(room: Room, wall: Material, trim: Material) -> None:
    """Part the room by a wall with a wide opening, or with a door that stands open."""
    width, length, height = room.size
    y, w = room.uniform(0.3, 0.7) * length, room.choice((0.85, 0.85, 1.5, 2.2))
    x, top = room.uniform(w / 2 + 0.2, width - w / 2 - 0.2), room.uniform(2.0, 2.15)
    if w > width - 0.6 or not room.take((0, width, y - 0.1, y + 0.1, 0, height)):
        return
    room.taken.append((x - w / 2, x + w / 2, y - 0.8, y + 0.8, 0, height))
    room.zones = [(0.0, y - 0.07), (y + 0.07, length)]
    room.frame, room.blocks = (x, y, 0, 0), True
    for side, wide in ((-1, x - w / 2), (1, width - x - w / 2)):
        room.add(BOX, (side * (w + wide) / 2, 0, 0), (wide, 0.14, height), wall)
        room.add(BOX, (side * w / 2, 0, 0), (0.08, 0.18, top + 0.04), trim)
    room.add(BOX, (0, 0, top), (w, 0.14, height - top), wall)
    if w < 1 and room.random() < 0.6:
        leaf = Material(tx.panels, trim.first, (0.5, 0.45, 0.3), (w, 2))
        with room.at(-w / 2, 0.07, room.uniform(0.6, 1.8)):
            room.add(BOX, (w / 2, 0, 0.01), (w - 0.03, 0.04, top - 0.02), leaf)


def _door(room: Room, trim: Material) -> None:
    w, h = room.uniform(0.78, 0.95), 2.02
    if room.hang(w + 0.2, h, 0.0, 0.75):
        leaf = Material(tx.panels, room.choice((fn.WHITE, room.timber)).first, (0.5, 0.45, 0.3), (w, h))
        room.add(BOX, (0, 0, 0), (w + 0.16, 0.05, h + 0.08), trim)
        room.add(BOX, (0, 0, 0), (w, 0.07, h), leaf)
        room.add(BALL, (w / 2 - 0.08, 0.07, 0.98), (0.06, 0.06, 0.06), fn.STEEL)


def _window(room: Room, trim: Material) -> list[tuple[Vector, Vector]]:
    """Add a window, by day a light; return its panes, where the sun may come in."""
    w, low = room.uniform(0.7, 2.0), room.uniform(0.7, 1.0)
    h = min(room.uniform(1.0, 1.5), room.size[2] - low - 0.15)
    curtain, shut = room.random() < 0.45, room.random() < 0.3
    across, up = room.choice((1, 2, 2, 3)), room.choice((1, 1, 2))
    if not room.hang(w + (0.7 if curtain else 0.2), h, low, 0.3):
        return []
    sky = room.choice(((0.85, 0.93, 1.0), (1, 1, 1), (0.75, 0.87, 1.0))) if room.day else (0.08, 0.09, 0.13)
    glow = room.uniform(2, 6) if room.day else 0.2
    blind = Material(tx.blinds, sky if room.day else (0.7, 0.68, 0.6), step=(w, room.uniform(0.03, 0.06)), glow=glow)
    glass = Material(tx.window, sky, trim.first, (w / across, h / up), 0.1, glow)
    room.add(BOX, (0, 0, low - 0.06), (w + 0.14, 0.06, h + 0.12), trim)
    room.add(BOX, (0, 0, low), (w, 0.08, h), blind if shut else glass)
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
    if not room.day:
        return []
    out = (-math.sin(room.frame[3]), math.cos(room.frame[3]), 0.0)
    spread, power = (abs(out[1]) * w / 3, abs(out[0]) * w / 3, h / 3), room.uniform(3, 8) * w * h * (0.4 if shut else 1)
    room.light(room.world(0, 0.12, low + h / 2), spread, (0.9, 0.95, 1.05), power, out)
    panes = []
    for i, k in itertools.product(range(0 if shut else across), range(up)):
        ends = (((i + e) / across - 0.5, y, (k + e) / up) for e, y in ((0.04, -0.5), (0.96, 0.1)))
        corners = [room.world(x * w, y, low + z * h) for x, y, z in ends]
        panes.append((tuple(map(min, *corners)), tuple(map(max, *corners))))
    return panes


def _shine(room: Room, openings: list[tuple[Vector, Vector]]) -> None:
    """Let the sun in through a window, and through all others that it then reaches."""
    x, y, _ = room.choice([light.facing for light in room.lights if light.facing])
    turn, rise, power = math.atan2(-y, -x) + room.uniform(-1, 1), room.uniform(0.2, 0.9), room.uniform(4, 14)
    toward = (math.cos(turn) * math.cos(rise), math.sin(turn) * math.cos(rise), math.sin(rise))
    room.lights.append(Light(toward, (0.005, 0.005, 0.005), (power, 0.9 * power, 0.75 * power), None, openings))


def find_camera(room: Room, scene: Scene) -> Camera | None:
    """Find a camera that sees depths like NYU's and many things; None if the room has no place for one."""
    corners = np.array(list(itertools.product(*((0, s) for s in room.size))))
    count = len(scene.solids)
    blocks = np.flatnonzero([solid.blocks and max(solid.half) > 0.15 for solid in scene.solids])
    inward = (scene.axes[blocks].transpose(0, 2, 1) / scene.half[blocks, :, None]).reshape(-1, 3)
    wanted = math.log(2.75) + room.gauss(0, 0.45)  # the median depths of NYU's pictures spread like this
    best, found, left = math.inf, None, 8
    for _ in range(100):
        camera = _pose(room)
        local = np.einsum("sji,sj->si", scene.axes[:count], camera.position - scene.center[:count])
        # The ray to a picture's corner is 1.28 times as long as its depth, so 1.4 keeps corners clear too.
        clear = (np.maximum(np.abs(local) - scene.half[:count], 0) ** 2).sum(1).min() > (1.4 * _NEAREST) ** 2
        ahead = (corners - camera.position) @ camera.axes[:, 2]
        if not clear or ahead.max() > _FARTHEST or _leave(camera, _EDGES, scene).min() < _NEAREST:
            continue
        ray = (inward @ camera.axes @ _SPARSE).astype(np.float32).reshape(len(blocks), *_SPARSE.shape)
        origin = (local[blocks] / scene.half[blocks]).astype(np.float32)[:, :, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            into = enter_box(origin.swapaxes(0, 1), ray.swapaxes(0, 1))
        empty = _leave(camera, _SPARSE, scene)
        depth = np.minimum(empty, into.min(0, initial=np.inf))
        # What parts the room is as bare as its walls.
        things = into[scene.half[blocks, 2] < 0.49 * room.size[2]].min(0, initial=np.inf)
        bare, flat = (things > depth).mean(), np.log(depth).std()
        if flat + 1 - bare < 0.25:  # hardly more than a wall
            continue
        cost = abs(math.log(np.median(depth)) - wanted) + max(bare - 0.25, 0) + max(0.35 - flat, 0)
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
    cy, sy, cd, sd, c, s = (f(turn) for turn in (yaw, down, roll) for f in (math.cos, math.sin))
    right, below = np.array([sy, -cy, 0.0]), np.array([-sd * cy, -sd * sy, -cd])
    axes = np.stack([c * right + s * below, c * below - s * right, [cy * cd, sy * cd, -sd]], 1)
    return Camera(np.array([x, y, min(max(z, 0.95), 1.75)]), axes)


def _leave(camera: Camera, rays: npt.NDArray[np.float32], scene: Scene) -> npt.NDArray[np.float64]:
    """Return the depth at which rays, ``(3, N)`` in the camera's frame, leave an empty room."""
    ray = camera.axes @ rays
    with np.errstate(divide="ignore"):
        at = np.where(ray > 0, (scene.size - camera.position)[:, None], -camera.position[:, None]) / ray
    return at.min(0)
