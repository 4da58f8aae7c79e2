"""The furniture of the built-in rooms, made of boxes, tubes and balls, and the room that it is put in."""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path

import numpy as np

from depthnet.data.rooms import textures as tx
from depthnet.data.rooms.raycast import Light, Shape, Solid, Vector
from depthnet.data.rooms.textures import Material

BOX, TUBE, BALL = Shape
LAMPS = ((1.0, 0.8, 0.55), (1.0, 0.9, 0.75), (1.0, 0.97, 0.92), (0.92, 1.0, 0.95))
WHITE = Material(tx.plain, (0.91, 0.9, 0.88), gloss=0.1)
STEEL = Material(tx.plain, (0.62, 0.63, 0.64), gloss=0.3)
BLACK = Material(tx.plain, (0.09, 0.09, 0.1), gloss=0.15)
GLASS = Material(tx.plain, (0.1, 0.1, 0.12), gloss=0.2)
CARTON = Material(tx.plain, (0.68, 0.53, 0.36))


Part = tuple[Shape, Vector, Vector, str, float, float]
"""A solid as :meth:`Room.add` takes it, but for a name of its material, "-" for that of the part before."""


class Room(tx.Palette):
    """A room while it is being furnished, and its source of random numbers. All lengths are meters.

    Pieces are built in ``frame`` (x, y, z, turn [radians]): x runs along the wall that a piece stands at, y out of it.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.size = (self.uniform(2.4, 7.5), self.uniform(3, 10.5), self.uniform(2.3, 3.2))
        self.zones = [(0.0, self.size[1])]  # the parts of the room's length between its walls
        self.solids: list[Solid] = []
        self.materials: list[Material] = []
        self.lights: list[Light] = []
        self.taken: list[tuple[float, ...]] = []  # blocks of space: x, y, z from and to
        self.tops: list[tuple[tuple[float, ...], float, float, str]] = []  # see top()
        self.frame: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
        self.blocks = False  # does what is added now cast shadows?
        self.day = self.random() < 0.55
        self.timber, self.fabric = self.wood(), self.cloth()  # of all chairs

    @contextmanager
    def at(self, x: float, y: float, turn: float = 0.0, z: float = 0.0) -> Iterator[None]:
        """Build inside at a place of the current frame, turned counterclockwise [radians]."""
        before = self.frame
        self.frame = (*self.world(x, y, z), before[3] + turn)
        yield
        self.frame = before

    def world(self, x: float, y: float, z: float) -> Vector:
        """Return world coordinates of a place in the current frame."""
        ox, oy, oz, turn = self.frame
        return ox + x * math.cos(turn) - y * math.sin(turn), oy + x * math.sin(turn) + y * math.cos(turn), oz + z

    def add(self, shape: Shape, foot: Vector, size: Vector, stuff: Material, tilt: float = 0, taper: float = 1) -> None:
        """Add a solid of (width, depth, height), the middle of its foot here, leaning back by ``tilt`` [radians]."""
        c, s, ct, st = math.cos(self.frame[3]), math.sin(self.frame[3]), math.cos(tilt), math.sin(tilt)
        axes = np.array([[c, -s * ct, s * st], [s, c * ct, -c * st], [0, st, ct]])
        center = self.world(foot[0], foot[1], foot[2] + size[2] / 2)
        half = (size[0] / 2, size[1] / 2, size[2] / 2)
        self.solids.append(Solid(shape, center, half, axes, taper, self.blocks and not stuff.glow))
        self.materials.append(stuff)

    def light(self, place: Vector, spread: Vector, tone: Vector, power: float, facing: Vector | None = None) -> None:
        """Add a light, in world coordinates."""
        self.lights.append(Light(place, spread, (tone[0] * power, tone[1] * power, tone[2] * power), facing))

    def build(self, parts: Sequence[Part], w: float = 1, d: float = 1, h: float = 1) -> None:
        """Add the parts of a thing, stretched along its width, depth and height."""
        material = WHITE
        for shape, (x, y, z), size, stuff, tilt, taper in parts:
            material = material if stuff == "-" else _STUFF[stuff](self)
            self.add(shape, (x * w, y * d, z * h), (size[0] * w, size[1] * d, size[2] * h), material, tilt, taper)

    def top(self, z: float, w: float, d: float, kind: str) -> None:
        """Remember where things may lie, and of which kind: see :func:`thing`."""
        self.tops.append(((*self.world(0, 0, z), self.frame[3]), w, d, kind))

    def stand(self, w: float, d: float, h: float, free: bool = False, low: float = 0.0, gap: float = 0.02) -> bool:
        """Move the frame to where a piece of this size fits, at a wall or ``free``; False if no place was found."""
        for _ in range(8):
            side, (near, far) = self.randrange(4), self.choice(self.zones)
            turn = side * math.pi / 2 + (self.gauss(0, 0.25) if free else 0)
            half_x = abs(w * math.cos(turn)) / 2 + abs(d * math.sin(turn)) / 2 + 0.01
            half_y = abs(w * math.sin(turn)) / 2 + abs(d * math.cos(turn)) / 2 + 0.01
            width = self.size[0]
            x, y = self.uniform(half_x, width - half_x), self.uniform(near + half_y, far - half_y)
            if not free:
                x = (x, width - half_x - gap, x, half_x + gap)[side]
                y = (near + half_y + gap, y, far - half_y - gap, y)[side]
            block = (x - half_x, x + half_x, y - half_y, y + half_y, low, low + h)
            if 2 * half_x < width - 0.1 and 2 * half_y < far - near - 0.1 and self.take(block):
                self.frame, self.blocks = (x, y, 0.0, turn), True
                return True
        return False

    def take(self, block: tuple[float, ...]) -> bool:
        """Take a block of space, x, y and z from and to, if nothing of it is taken."""
        left, right, near, far, low, high = block
        for x, to_x, y, to_y, z, to_z in self.taken:
            if left < to_x and x < right and near < to_y and y < far and low < to_z and z < high:
                return False
        self.taken.append(block)
        return True

    def hang(self, w: float, h: float, low: float, keep: float = 0.06) -> bool:
        """Move the frame to the foot of a wall where a piece can hang with ``keep`` meters free in front of it."""
        if not self.stand(w, keep, h, low=low, gap=-0.01):
            return False
        self.frame, self.blocks = (*self.world(0, -keep / 2, 0), self.frame[3]), False
        return True


Row = tuple[list[str], list[Part]]
_STUFF: Mapping[str, Callable[[Room], Material]] = {
    "any": Room.plastic,
    "cloth": Room.cloth,
    "wood": Room.wood,
    "timber": attrgetter("timber"),
    "fabric": attrgetter("fabric"),
    "white": lambda _: WHITE,
    "steel": lambda _: STEEL,
    "dark": lambda _: BLACK,
    "mirror": lambda _: Material(tx.plain, (0.6, 0.65, 0.66), gloss=0.3),
    "leaf": lambda _: Material(tx.carpet, (0.24, 0.4, 0.16), (0.1, 0.22, 0.08), (0.1, 0.1)),
    "box": lambda r: r.choice((CARTON, CARTON, r.plastic())),
    "books": lambda r: Material(tx.books, r.hue(), (0.75, 0.7, 0.6), (r.uniform(0.022, 0.05), 1)),
    "folds": lambda r: Material(tx.folds, r.hue(), step=(r.uniform(0.06, 0.3), 1)),
    "brick": lambda r: Material(tx.tiles, r.shade((0.6, 0.35, 0.27)), (0.75, 0.72, 0.68), (0.24, 0.08)),
    "tiles": lambda r: Material(tx.tiles, r.shade((0.8, 0.78, 0.72), 0.25), (0.85, 0.85, 0.82), (0.15, 0.1), 0.15),
    "stone": lambda r: Material(tx.blotches, r.shade((0.45, 0.42, 0.4), 0.5), (0.3, 0.28, 0.26), (0.03, 0.03), 0.15),
    "picture": lambda r: Material(tx.picture, r.wood().first, step=(r.uniform(0, 0.08), 0)),
    "screen": lambda r: r.choice((GLASS, GLASS, Material(tx.picture, BLACK.first, glow=1.2))),
    "drawers": lambda r: Material(tx.panels, r.wood().first, STEEL.first, (r.uniform(0.35, 0.8), r.uniform(0.18, 0.3))),
    "doors": lambda r: Material(tx.panels, r.wood().first, STEEL.first, (r.uniform(0.35, 0.6), 2.0), 0.05),
    "fridge": lambda r: Material(tx.panels, r.choice((WHITE, STEEL, BLACK)).first, (0.3, 0.3, 0.3), (0.7, 1.1), 0.15),
}


def _read(table: str) -> list[Row]:
    """Read a table of furniture.toml, whose head states its form.

    Lengths of parts are hundredths of those that :meth:`Room.build` is given.
    """
    things = []
    for row in table.replace("\n ", "").splitlines():
        head, *rows = row.split("|")
        parts = []
        for shape, *fields in map(str.split, rows):
            w, d, h, x, y, z = (float(field.strip("~")) / 100 for field in fields[:6])
            tilt, taper = map(float, fields[7:] + ["0", "1"][len(fields) - 7 :])
            sides = [(v, -v) if "~" in field else (v,) for v, field in zip((x, y), fields[3:5], strict=True)]
            for stuff, (x, y) in zip([fields[6], "-", "-", "-"], itertools.product(*sides), strict=False):
                parts.append((Shape[shape.upper()], (x, y, z), (w, d, h), stuff, tilt, taper))
        things.append((head.split(), parts))
    return things


TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_THINGS, _PIECES, _HUNG = (_read(TABLES[name]) for name in ("things", "pieces", "hung"))


def place(r: Room, name: str) -> None:
    """Put a piece of furniture, with what belongs to it, where there is room for it."""
    piece = _pick(r, name, _PIECES)
    head, _, (w, d, h) = piece
    front = float(head[6]) / 100 if len(head) > 6 else 0.0
    around = 0.8 if name == "table" else 0.0
    free = name in ("table", "island") or (h < 1.1 and r.random() < 0.2)
    if not r.stand(w + around / 2, d + around + front, h, free):
        return
    r.frame = (*r.world(0, -front / 2, 0), r.frame[3])
    _set(r, *piece)
    if name == "lamp":
        lamp(r, h)
    if name == "bookcase":
        _bookcase(r, w, d, h)
    if front and r.random() < 0.75:
        with r.at(r.uniform(-0.2, 0.2) * w, (d + front) / 2, math.pi + r.gauss(0, 0.3)):
            _set(r, *_pick(r, head[7], _PIECES))
    count = 2 if w > 1.3 else 1
    for side, k in itertools.product((-1, 1) if around else (), range(count)):
        if r.random() < 0.75:
            x, y = (k + 0.5 - count / 2) * w / count, side * (d / 2 + r.uniform(0.05, 0.25))
            with r.at(x, y, (side > 0) * math.pi + r.gauss(0, 0.2)):
                _set(r, *_pick(r, "chair", _PIECES))


def decorate(r: Room) -> None:
    """Hang a picture, a board or the like on a wall."""
    _, parts, (w, d, h) = _pick(r, r.choice(_HUNG)[0][0], _HUNG)
    low = r.uniform(1.45, 1.7) - h / 2
    if r.hang(w, h, low, d + 0.02):
        with r.at(0, 0, z=low):
            r.build(parts, w, d, h)


def _pick(r: Room, name: str, table: list[Row]) -> tuple[list[str], list[Part], Vector]:
    head, parts = r.choice([row for row in table if row[0][0] == name])
    w, d, h = (float(field) / 100 * r.uniform(0.85, 1.18) for field in head[1:4])
    return head, parts, (w, d, h)


def _set(r: Room, head: list[str], parts: list[Part], size: Vector) -> None:
    r.build(parts, *size)
    if head[4] != "-":
        r.top(float(head[5]) / 100 * size[2], size[0] * 0.8, size[1] * 0.6, head[4])


def _bookcase(r: Room, w: float, d: float, h: float) -> None:
    wood = r.wood()
    r.add(BOX, (0, -d / 2, 0), (w, 0.02, h), wood)
    for x in (0.012 - w / 2, w / 2 - 0.012):
        r.add(BOX, (x, 0, 0), (0.024, d, h), wood)
    count = round(h / r.uniform(0.3, 0.4))
    pitch = (h - 0.06) / count
    for k in range(count + 1):
        z = 0.03 + k * pitch
        r.add(BOX, (0, 0, z), (w, d, 0.025), wood)
        if k < count and r.random() < 0.7:
            fill = (w - 0.06) * r.choice((0.5, 0.75, 1.0))
            x, tall = r.choice((-1, 1)) * (w - 0.06 - fill) / 2, pitch * r.uniform(0.6, 0.9)
            stuff = _STUFF[r.choice(("books", "books", "books", "box", "folds"))](r)
            r.add(BOX, (x, -0.03, z + 0.025), (fill, d * 0.7, tall), stuff)
        else:
            r.top(z + 0.025, w * 0.7, d * 0.4, "s" if k < count else "t")


def lamp(r: Room, h: float) -> None:
    """A lamp with a shade in the current frame."""
    foot, wide = r.choice((STEEL, BLACK, r.timber)), 0.2 + 0.12 * h
    lit, power = r.random() < (0.3 if r.day else 0.6), r.uniform(0.3, 0.8)
    tone = r.choice(LAMPS[:2]) if lit else r.shade((0.85, 0.8, 0.7))
    r.add(TUBE, (0, 0, 0), (wide * 0.6, wide * 0.6, 0.03), foot)
    r.add(TUBE, (0, 0, 0.02), (0.03, 0.03, h - 0.1), foot)
    shade = Material(tx.plain, tone, glow=r.uniform(1, 2.5) if lit else 0.0)
    r.add(TUBE, (0, 0, h - wide * 0.75), (wide, wide, wide * 0.75), shade, taper=r.uniform(0.5, 1))
    if lit and len(r.lights) < 5:
        r.light(r.world(0, 0, h - wide * 0.3), (0.05, 0.05, 0.05), tone, power)


def ceiling_lamp(r: Room, near: float, far: float) -> None:
    """A lamp, or rows of flat ones, under the ceiling of a zone of the room."""
    width, height = r.size[0], r.size[2]
    lit = not r.lights or r.random() < (0.4 if r.day else 0.7)
    tone, kind = r.choice(LAMPS), r.randrange(4)
    shade = Material(tx.plain, tone if lit else (0.85, 0.84, 0.8), glow=r.uniform(2, 5) if lit else 0.0)
    x, y = width * r.uniform(0.35, 0.65), near + (far - near) * r.uniform(0.3, 0.7)
    r.frame, drop = (x, y, height, 0), 0.12
    if kind == 0:
        r.add(TUBE, (0, 0, -0.1), (0.36, 0.36, 0.1), shade)
    elif kind == 1 and height > 2.5:
        drop = 0.6
        r.add(TUBE, (0, 0, -0.5), (0.012, 0.012, 0.5), BLACK)
        r.add(TUBE, (0, 0, -0.65), (0.4, 0.4, 0.24), shade, taper=0.5)
    elif kind == 2:
        r.add(BALL, (0, 0, -0.22), (0.3, 0.3, 0.24), shade)
    else:
        for across, along in itertools.product((-0.2, 0.2), range(-2, 3)):
            if abs(along) * 1.6 < min(y - near, far - y) - 0.7 and width > 3.4:
                r.add(BOX, (across * width, along * 1.6, -0.03), (0.6, 1.2, 0.03), shade)
    if lit:
        r.light((x, y, height - drop), (0.5, 0.7, 0.0) if kind == 3 else (0.15, 0.15, 0.05), tone, r.uniform(2.5, 5))


def thing(r: Room, kind: str) -> None:
    """A small thing in the current frame, of those that lie on a table "t", a shelf "s", a bed "b" or a floor "f"."""
    r.blocks = kind != "s"
    if kind == "t" and r.random() < 0.1:
        lamp(r, r.uniform(0.35, 0.55))
        return
    _, parts = r.choice([row for row in _THINGS if kind in row[0][1]])
    r.build(parts, *(r.uniform(0.75, 1.25) * (1.1 if r.blocks else 0.85) for _ in "wdh"))
