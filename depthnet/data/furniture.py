"""The furniture of the built-in rooms, made of boxes, tubes and balls, and the room that it is put in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from depthnet.data import textures as tx
from depthnet.data.raycast import Light, Shape, Solid, Vector
from depthnet.data.textures import Material

BOX, TUBE, BALL = Shape
LAMPS = ((1.0, 0.8, 0.55), (1.0, 0.9, 0.75), (1.0, 0.97, 0.92), (0.92, 1.0, 0.95))
WHITE = Material(tx.plain, (0.91, 0.9, 0.88), gloss=0.1)
STEEL = Material(tx.plain, (0.62, 0.63, 0.64), gloss=0.3)
BLACK = Material(tx.plain, (0.09, 0.09, 0.1), gloss=0.15)
LEAF = Material(tx.carpet, (0.24, 0.4, 0.16), (0.1, 0.22, 0.08), (0.1, 0.1))
CARTON = Material(tx.plain, (0.68, 0.53, 0.36))


class Room(tx.Palette):
    """A room while it is being furnished, and its source of random numbers. All lengths are metres.

    Pieces are built in ``frame`` (x, y, z, turn [radians]): x runs along the wall that a piece stands at, y out of it.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.size = (self.uniform(2.5, 7), self.uniform(3, 10), self.uniform(2.3, 3.2))
        self.solids: list[Solid] = []
        self.materials: list[Material] = []
        self.lights: list[Light] = []
        self.taken: list[tuple[float, ...]] = []  # blocks of space: x, y, z from and to
        self.tops: list[tuple[tuple[float, ...], float, float, bool]] = []  # see top()
        self.frame: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
        self.blocks = False  # does what is added now cast shadows?
        self.day = self.random() < 0.5
        self.timber, self.fabric = self.wood(), self.cloth()  # of all chairs

    @contextmanager
    def at(self, x: float, y: float, turn: float = 0.0, z: float = 0.0) -> Iterator[None]:
        """Build inside at a place of the current frame, turned anticlockwise [radians]."""
        before = self.frame
        self.frame = (*self.world(x, y, z), before[3] + turn)
        yield
        self.frame = before

    def world(self, x: float, y: float, z: float) -> Vector:
        """Return world coordinates of a place in the current frame."""
        ox, oy, oz, turn = self.frame
        return ox + x * math.cos(turn) - y * math.sin(turn), oy + x * math.sin(turn) + y * math.cos(turn), oz + z

    def add(
        self, shape: Shape, foot: Vector, size: Vector, material: Material, tilt: float = 0, taper: float = 1
    ) -> None:
        """Add a solid of (width, depth, height), the middle of its foot here, leaning back by ``tilt`` [radians]."""
        c, s, ct, st = math.cos(self.frame[3]), math.sin(self.frame[3]), math.cos(tilt), math.sin(tilt)
        axes = np.array([[c, -s * ct, s * st], [s, c * ct, -c * st], [0, st, ct]])
        centre = self.world(foot[0], foot[1], foot[2] + size[2] / 2)
        half = (size[0] / 2, size[1] / 2, size[2] / 2)
        self.solids.append(Solid(shape, centre, half, axes, taper, self.blocks and not material.glow))
        self.materials.append(material)

    def legs(self, w: float, d: float, h: float, thick: float, material: Material) -> None:
        """Add four legs at the corners of a piece."""
        shape = self.choice((BOX, BOX, TUBE))
        for x, y in itertools.product((-1, 1), (-1, 1)):
            self.add(shape, (x * (w - thick) / 2, y * (d - thick) / 2, 0), (thick, thick, h), material)

    def top(self, z: float, w: float, d: float, x: float = 0.0, y: float = 0.0, low: bool = False) -> None:
        """Remember a surface where things may lie; only ``low`` ones on a shelf."""
        with self.at(x, y, 0, z):
            self.tops.append((self.frame, w, d, low))

    def stand(self, w: float, d: float, h: float, free: bool = False, low: float = 0.0, gap: float = 0.02) -> bool:
        """Move the frame to where a piece of this size fits, at a wall or ``free``; False if no place was found."""
        for _ in range(8):
            side = self.randrange(4)
            turn = side * math.pi / 2 + (self.gauss(0, 0.25) if free else 0)
            half_x = abs(w * math.cos(turn)) / 2 + abs(d * math.sin(turn)) / 2 + 0.01
            half_y = abs(w * math.sin(turn)) / 2 + abs(d * math.cos(turn)) / 2 + 0.01
            width, length = self.size[:2]
            x, y = self.uniform(half_x, width - half_x), self.uniform(half_y, length - half_y)
            if not free:
                x = (x, width - half_x - gap, x, half_x + gap)[side]
                y = (half_y + gap, y, length - half_y - gap, y)[side]
            block = (x - half_x, x + half_x, y - half_y, y + half_y, low, low + h)
            inside = 2 * half_x < width - 0.1 and 2 * half_y < length - 0.1
            if inside and all(any(block[k] >= b[k + 1] or b[k] >= block[k + 1] for k in (0, 2, 4)) for b in self.taken):
                self.taken.append(block)
                self.frame, self.blocks = (x, y, 0.0, turn), True
                return True
        return False

    def hang(self, w: float, h: float, low: float, keep: float = 0.06) -> bool:
        """Move the frame to the foot of a wall where a piece can hang with ``keep`` metres free in front of it."""
        if not self.stand(w, keep, h, low=low, gap=-0.01):
            return False
        self.frame, self.blocks = (*self.world(0, -keep / 2, 0), self.frame[3]), False
        return True


def chair(r: Room) -> None:
    """A chair in the current frame, its back towards -y."""
    w, h, seat = r.uniform(0.4, 0.48), r.uniform(0.8, 1.0), r.fabric if r.random() < 0.4 else r.timber
    if r.random() < 0.25:  # an office chair
        r.add(TUBE, (0, 0, 0.05), (0.06, 0.06, 0.38), BLACK)
        for turn in (0, math.pi / 2):
            with r.at(0, 0, turn):
                r.add(BOX, (0, 0, 0), (0.6, 0.05, 0.06), BLACK)
        r.add(BOX, (0, 0, 0.42), (0.5, 0.48, 0.09), r.fabric)
        r.add(BOX, (0, -0.23, 0.48), (0.46, 0.07, 0.55), r.fabric, 0.12)
        return
    r.legs(w, w, 0.43, 0.04, r.timber)
    r.add(BOX, (0, 0, 0.43), (w, w, 0.045), seat)
    if r.random() < 0.5:
        r.add(BOX, (0, -w / 2, 0.47), (w, 0.04, h - 0.47), seat, 0.1)
        return
    for x in (-1, 1):
        r.add(BOX, (x * (w - 0.04) / 2, -w / 2, 0.46), (0.04, 0.04, h - 0.46), r.timber, 0.1)
    for z in (0.62, h - 0.12):
        r.add(BOX, (0, -w / 2, z), (w - 0.06, 0.025, 0.09), r.timber, 0.1)


def table(r: Room) -> None:
    """A table with chairs, in the middle of a room."""
    w, d, h, wood = r.uniform(0.9, 1.8), r.uniform(0.7, 1.0), r.uniform(0.7, 0.77), r.wood()
    if not r.stand(w + 0.4, d + 0.8, h, free=True):
        return
    if r.random() < 0.25:
        w = d = max(d, 0.9)
        r.add(TUBE, (0, 0, h - 0.03), (w, w, 0.03), wood)
        r.add(TUBE, (0, 0, 0), (0.35 * w, 0.35 * w, h - 0.03), wood, taper=0.25)
    else:
        r.add(BOX, (0, 0, h - 0.035), (w, d, 0.035), wood)
        r.add(BOX, (0, 0, h - 0.12), (w - 0.15, d - 0.15, 0.085), wood)
        r.legs(w - 0.06, d - 0.06, h - 0.03, r.uniform(0.04, 0.08), wood)
    r.top(h, w * 0.7, d * 0.7)
    count = 2 if w > 1.3 else 1
    for side, k in itertools.product((-1, 1), range(count)):
        if r.random() < 0.75:
            x, y = (k + 0.5 - count / 2) * w / count, side * (d / 2 + r.uniform(0.05, 0.25))
            with r.at(x, y, (side > 0) * math.pi + r.gauss(0, 0.2)):
                chair(r)


def sofa(r: Room) -> None:
    """A sofa or armchair at a wall, often with a low table and a rug before it."""
    w, d, low, h = r.choice((0.85, 1.5, 1.9, 2.2)), r.uniform(0.8, 0.95), r.uniform(0.38, 0.45), r.uniform(0.75, 0.95)
    deep = d + 1.2 * (w > 1)
    if not r.stand(w, deep, h, free=w < 1 and r.random() < 0.5):
        return
    r.frame = (*r.world(0, (d - deep) / 2, 0), r.frame[3])
    cloth, arm = r.cloth(), r.uniform(0.1, 0.22)
    r.add(BOX, (0, 0.03, 0.06), (w - 0.02, d - 0.06, low - 0.2), cloth)
    r.add(BOX, (0, 0.12 - d / 2, 0.1), (w - 0.02, 0.2, h - 0.1), cloth, 0.1)
    soft = r.random() < 0.6
    for x in ((arm - w) / 2, (w - arm) / 2):
        r.add(BOX, (x, 0, 0), (arm, d, low + 0.18), cloth)
        if soft:
            r.add(TUBE, (x, 0, low + 0.18 - d / 2), (arm + 0.04, arm + 0.04, d), cloth, math.pi / 2)
    count = max(1, round((w - 2 * arm) / 0.62))
    each = (w - 2 * arm) / count
    for x in (each * (k + 0.5 - count / 2) for k in range(count)):
        r.add(BOX, (x, 0.1, low - 0.14), (each - 0.015, d - 0.22, 0.16), cloth)
        if soft:
            r.add(BALL, (x, 0.24 - d / 2, low - 0.05), (each + 0.1, 0.24, h - low + 0.06), cloth, 0.2)
        if r.random() < 0.5:
            r.add(r.choice((BOX, BALL)), (x, 0.42 - d / 2, low), (0.44, 0.14, 0.36), r.cloth(), 0.35)
    with r.at(0, d / 2 + 0.7):
        if w > 1 and r.random() < 0.5:
            r.add(BOX, (0, 0.1, 0), (w, 1.5, 0.012), r.cloth())
        if w > 1 and r.random() < 0.7:
            long, wood = r.uniform(0.8, 1.1), r.wood()
            r.add(BOX, (0, 0, 0.38), (long, 0.55, 0.04), wood)
            r.legs(long - 0.04, 0.5, 0.38, 0.06, wood)
            r.top(0.42, long * 0.8, 0.4)


def bed(r: Room) -> None:
    """A bed with its head at a wall, and a night table."""
    w, d, h = r.choice((0.95, 1.4, 1.7)), r.uniform(1.95, 2.1), r.uniform(0.42, 0.62)
    if not r.stand(w + 0.5, d, h + 0.4):
        return
    wood, cover, sheet = r.wood(), r.cloth(), Material(tx.folds, r.shade((0.85, 0.84, 0.8)), step=(0.3, 1))
    with r.at(-0.25, 0):
        r.add(BOX, (0, 0, 0.12), (w, d, h - 0.34), wood)
        r.legs(w, d, 0.14, 0.08, wood)
        r.add(BOX, (0, 0.02, h - 0.22), (w - 0.04, d - 0.08, 0.22), sheet)
        r.add(BOX, (0, 0.28, h - 0.3), (w + 0.05, d - 0.55, 0.32), cover)
        r.add(BOX, (0, 0.5 - d / 2, h), (w + 0.03, 0.35, 0.04), sheet)
        r.add(BOX, (0, 0.03 - d / 2, 0.05), (w + 0.06, 0.06, h + r.uniform(0.25, 0.6)), wood)
        for x in (0.0,) if w < 1 else (-0.24 * w, 0.24 * w):
            r.add(BALL, (x, 0.28 - d / 2, h - 0.02), (0.65, 0.46, 0.2), r.choice((sheet, cover)), 0.3)
            if r.random() < 0.4:
                r.add(r.choice((BOX, BALL)), (x, 0.48 - d / 2, h), (0.4, 0.13, 0.34), r.cloth(), 0.5)
        r.top(h + 0.02, w * 0.7, 0.8, 0, 0.3)
    with r.at(w / 2 + 0.02, 0.22 - d / 2):
        chest(r, 0.42, 0.4, r.uniform(0.45, 0.6), 2, wood)


def chest(r: Room, w: float, d: float, h: float, drawers: int, wood: Material) -> None:
    """A chest of drawers in the current frame, or a cupboard if it has none."""
    across = max(1, round(w / r.uniform(0.45, 0.8)))
    step = (w / across, h / max(drawers, 1))
    knob = STEEL.first if r.random() < 0.6 else BLACK.first
    r.add(BOX, (0, 0, 0.04), (w, d, h - 0.06), Material(tx.panels, wood.first, knob, step, wood.gloss))
    r.add(BOX, (0, 0.01, h - 0.025), (w + 0.03, d + 0.03, 0.025), wood)
    r.add(BOX, (0, -0.03, 0), (w - 0.04, d - 0.06, 0.05), BLACK)
    r.top(h, w * 0.8, d * 0.6)


def cupboard(r: Room) -> None:
    """A wardrobe, chest of drawers or sideboard at a wall, or a low one with a television on it."""
    w, d, wide = r.uniform(0.7, 1.7), r.uniform(0.4, 0.6), r.uniform(0.6, 1.2)
    h = r.choices((r.uniform(1.8, 2.15), r.uniform(0.7, 1.15), r.uniform(0.4, 0.55)), (3, 5, 2))[0]
    if not r.stand(w, d, max(h, 1.1)):
        return
    chest(r, w, d, h, 0 if h > 1.5 or r.random() < 0.3 else round(h / 0.25), r.wood())
    if h < 0.6:
        r.tops.pop()
        r.add(BOX, (0, -0.05, h + 0.05), (wide, 0.06, wide * 0.57), BLACK)
        r.add(BOX, (0, -0.05, h), (0.4, 0.22, 0.06), BLACK)


def bookcase(r: Room) -> None:
    """A bookcase with rows of books and things between them."""
    w, d, h, wood = r.uniform(0.6, 1.4), r.uniform(0.26, 0.36), r.choice((0.9, 1.3, 1.9, 2.1)), r.wood()
    if not r.stand(w, d, h):
        return
    r.add(BOX, (0, 0.012 - d / 2, 0), (w, 0.02, h), wood)
    for x in (0.012 - w / 2, w / 2 - 0.012):
        r.add(BOX, (x, 0, 0), (0.024, d, h), wood)
    count = round(h / r.uniform(0.3, 0.4))
    pitch = (h - 0.06) / count
    for k in range(count + 1):
        z = 0.03 + k * pitch
        r.add(BOX, (0, 0, z), (w, d, 0.025), wood)
        if k < count and r.random() < 0.8:
            fill = (w - 0.06) * r.choice((0.5, 0.75, 1.0))
            backs = Material(tx.books, r.hue(), (0.75, 0.7, 0.6), (r.uniform(0.022, 0.05), 1))
            x, tall = r.choice((-1, 1)) * (w - 0.06 - fill) / 2, pitch * r.uniform(0.72, 0.9)
            r.add(BOX, (x, -0.03, z + 0.025), (fill, d * 0.7, tall), backs)
        else:
            r.top(z + 0.025, w * 0.6, d * 0.4, low=k < count)


def desk(r: Room) -> None:
    """A desk with a screen, a keyboard and a chair."""
    w, d, h, wood = r.uniform(1.1, 1.7), r.uniform(0.6, 0.75), r.uniform(0.7, 0.76), r.wood()
    if not r.stand(w, d + 0.6, h):
        return
    with r.at(0, -0.3):
        r.add(BOX, (0, 0, h - 0.03), (w, d, 0.03), wood)
        r.legs(w - 0.04, d - 0.04, h - 0.03, 0.05, r.choice((STEEL, wood)))
        if r.random() < 0.6:
            front = Material(tx.panels, wood.first, STEEL.first, (0.4, 0.2))
            r.add(BOX, (w / 2 - 0.24, 0.02, 0.05), (0.4, d - 0.1, h - 0.1), front)
        on = r.random() < 0.4
        glass = Material(tx.picture if on else tx.plain, (0.1, 0.1, 0.12), gloss=0.2, glow=1.2 * on)
        with r.at(r.uniform(-0.3, 0.1), 0, z=h):
            r.add(BOX, (0, -0.15, 0.1), (0.52, 0.035, 0.32), BLACK)
            r.add(BOX, (0, -0.128, 0.115), (0.49, 0.006, 0.29), glass)
            r.add(TUBE, (0, -0.17, 0), (0.2, 0.16, 0.15), BLACK, taper=0.3)
            r.add(BOX, (0, 0.12, 0), (0.42, 0.14, 0.02), r.choice((BLACK, WHITE)))
        r.top(h, 0.35, d * 0.5, w * 0.3)
        with r.at(r.uniform(-0.2, 0.1), d / 2 + 0.2, math.pi + r.gauss(0, 0.4)):
            chair(r)


def kitchen(r: Room) -> None:
    """A row of kitchen cupboards with a stove, a sink, tiles, wall cupboards and a fridge."""
    w, h, wood = r.uniform(1.8, min(3.6, max(r.size[:2]) - 0.8)), 0.9, r.wood()
    if not r.stand(w, 0.64, 2.1):
        return
    stone = Material(tx.blotches, r.shade((0.45, 0.42, 0.4), 0.5), r.shade((0.3, 0.28, 0.26), 0.3), (0.03, 0.03), 0.15)
    step = (0.15, r.choice((0.075, 0.15)))
    tiles = Material(tx.tiles, r.shade((0.8, 0.78, 0.72), 0.25), (0.85, 0.85, 0.82), step, 0.15)
    step = (r.uniform(0.4, 0.6), r.choice((0.8, 0.4, 0.2)))
    front = Material(tx.panels, wood.first, STEEL.first, step, wood.gloss)
    if r.random() < 0.6:
        cold = Material(tx.panels, r.choice((WHITE, STEEL, BLACK)).first, (0.3, 0.3, 0.3), (0.68, 1.15), 0.15)
        r.add(BOX, (w / 2 - 0.35, 0, 0.05), (0.68, 0.64, 1.7), cold)
        w -= 0.7
        r.frame = (*r.world(-0.35, 0, 0), r.frame[3])
    r.add(BOX, (0, 0, 0.08), (w, 0.58, h - 0.12), front)
    r.add(BOX, (0, -0.04, 0), (w, 0.5, 0.09), BLACK)
    r.add(BOX, (0, 0.01, h - 0.04), (w, 0.62, 0.04), stone)
    r.add(BOX, (0, -0.31, h), (w, 0.015, 0.55), tiles)
    if r.random() < 0.8:
        x = r.uniform(-0.2, 0.2) * w
        r.add(BOX, (x, -0.15, 1.45), (w - abs(x) * 2, 0.34, 0.65), front)
    r.add(BOX, (-w / 4, 0.01, 0.1), (0.6, 0.62, h - 0.09), r.choice((BLACK, STEEL)))
    r.add(BOX, (w * 0.2, 0.02, h), (0.55, 0.42, 0.006), STEEL)
    r.add(TUBE, (w * 0.2, -0.2, h), (0.03, 0.03, 0.25), STEEL)
    r.top(h, w * 0.9, 0.4)


def bathroom(r: Room) -> None:
    """A basin in a cupboard under a mirror, a toilet and a tub."""
    w = r.uniform(0.8, 1.6)
    if r.stand(w, 0.55, 2.0):
        chest(r, w, 0.53, 0.82, 0, r.choice((WHITE, r.wood())))
        r.add(BALL, (0, 0.03, 0.76), (0.5, 0.38, 0.12), WHITE)
        r.add(TUBE, (0, -0.2, 0.82), (0.03, 0.03, 0.18), STEEL)
        r.add(BOX, (0, -0.28, 1.1), (w, 0.03, 0.8), Material(tx.plain, (0.6, 0.65, 0.66), gloss=0.3))
    if r.stand(0.45, 0.7, 0.8):
        r.add(BOX, (0, -0.25, 0.38), (0.42, 0.18, 0.4), WHITE)
        r.add(TUBE, (0, 0.05, 0), (0.32, 0.48, 0.37), WHITE, taper=1.4)
        r.add(TUBE, (0, 0.07, 0.37), (0.38, 0.5, 0.04), WHITE)
    if r.stand(1.6, 0.75, 0.6):
        for y in (-0.34, 0.34):
            r.add(BOX, (0, y, 0), (1.6, 0.07, 0.55), WHITE)
        for x, size in ((-0.77, 0.06), (0.77, 0.06), (0, 1.5)):
            r.add(BOX, (x, 0, 0), (size, 0.62, 0.55 if x else 0.2), WHITE)


def lamp(r: Room, h: float) -> None:
    """A lamp with a shade in the current frame."""
    foot, wide = r.choice((STEEL, BLACK, r.timber)), 0.2 + 0.12 * h
    lit, power = r.random() < (0.2 if r.day else 0.6), r.uniform(0.3, 0.8)
    tone = r.choice(LAMPS[:2]) if lit else r.shade((0.85, 0.8, 0.7))
    r.add(TUBE, (0, 0, 0), (wide * 0.6, wide * 0.6, 0.03), foot)
    r.add(TUBE, (0, 0, 0.02), (0.03, 0.03, h - 0.1), foot)
    shade = Material(tx.plain, tone, glow=r.uniform(1, 2.5) if lit else 0.0)
    r.add(TUBE, (0, 0, h - wide * 0.75), (wide, wide, wide * 0.75), shade, taper=r.uniform(0.5, 1))
    if lit and len(r.lights) < 2:
        red, green, blue = (c * power for c in tone)
        r.lights.append(Light(r.world(0, 0, h - wide * 0.3), (0.05, 0.05, 0.05), (red, green, blue)))


def floor_lamp(r: Room) -> None:
    """A standard lamp."""
    if r.stand(0.4, 0.4, 1.75):
        lamp(r, r.uniform(1.4, 1.75))


def plant(r: Room) -> None:
    """A big pot plant on the floor."""
    size = r.uniform(0.7, 1.3)
    if not r.stand(0.9 * size, 0.9 * size, size):
        return
    r.add(TUBE, (0, 0, 0), (0.3 * size, 0.3 * size, 0.28 * size), r.choice((WHITE, r.plastic())), taper=1.25)
    for k in range(r.randint(7, 11)):
        long, tilt = r.uniform(0.35, 0.7) * size, r.uniform(0.6, 1.4)
        y, z = math.cos(tilt) * long / 2, 0.25 * size + math.sin(tilt) * long / 2
        with r.at(0, 0, k * 2.4):
            r.add(BALL, (0, y, z), (r.uniform(0.1, 0.2) * size, long, 0.03), LEAF, tilt)


def oddment(r: Room) -> None:
    """What stands or lies about on a floor: cartons, a bin, a ball, a heap of clothes."""
    kind, w, z = r.randrange(4), r.uniform(0.25, 0.5), 0.0
    if not r.stand(w + 0.1, w + 0.1, 0.5, free=r.random() < 0.5):
        return
    if kind == 0:
        for _ in range(r.randint(1, 3)):
            h = r.uniform(0.2, 0.4)
            with r.at(0, 0, r.gauss(0, 0.15), z):
                r.add(BOX, (0, 0, 0), (w, w * r.uniform(0.6, 1), h), r.choice((CARTON, CARTON, r.plastic())))
            z += h
    elif kind == 1:
        r.add(TUBE, (0, 0, 0), (w * 0.7, w * 0.7, w), r.plastic(), taper=1.2)
    elif kind == 2:
        r.add(BALL, (0, 0, 0), (w * 0.7, w * 0.7, w * 0.7), r.choice((r.plastic(), r.cloth())))
    else:
        for x in (-0.1, 0, 0.1):
            r.add(BALL, (x, r.gauss(0, 0.08), -0.03), (w, w * 0.8, r.uniform(0.15, 0.4)), r.cloth())


def thing(r: Room, low: bool) -> None:
    """A small thing that stands on furniture, in the current frame; a ``low`` one fits on a shelf."""
    kind, s, smooth = r.randrange(4 if low else 7), r.uniform(0.6, 0.85) if low else r.uniform(0.8, 1.3), r.plastic()
    if kind == 0:  # books or papers
        for k in range(r.randint(1, 4)):
            with r.at(0, 0, r.gauss(0, 0.2), 0.035 * k):
                r.add(BOX, (0, 0, 0), (0.24 * s, 0.17 * s, 0.035), r.plastic())
    elif kind == 1:  # fruit
        for x in (-0.07, 0, 0.07):
            r.add(BALL, (x, x * x * 6, 0), (0.08, 0.08, 0.08), r.plastic())
    elif kind == 2:
        r.add(BOX, (0, 0, 0), (0.2 * s, 0.14 * s, 0.18 * s), r.choice((CARTON, smooth, r.cloth())))
    elif kind == 3:  # a cup or a bottle
        r.add(TUBE, (0, 0, 0), (0.075, 0.075, 0.1 * s), smooth)
        if r.random() < 0.5:
            r.add(TUBE, (0, 0, 0.1 * s), (0.06, 0.06, 0.16 * s), smooth, taper=0.4)
    elif kind == 4:  # a vase with flowers
        r.add(TUBE, (0, 0, 0), (0.11 * s, 0.11 * s, 0.22 * s), smooth, taper=r.uniform(0.5, 1.4))
        for turn in range(r.choice((0, 5))):
            with r.at(0, 0, turn * 1.3):
                r.add(BALL, (0, 0.09 * s, 0.26 * s), (0.1 * s, 0.22 * s, 0.05), r.choice((LEAF, smooth)), 0.9)
    elif kind == 5:
        lamp(r, r.uniform(0.35, 0.55))
    else:
        r.add(BOX, (0, 0, 0), (0.18 * s, 0.02, 0.24 * s), Material(tx.picture, r.wood().first, step=(0.02, 0)), 0.2)
