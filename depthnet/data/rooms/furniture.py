"""The furniture of the built-in rooms, made of boxes, tubes and balls, and the room that it is put in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter

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
    """A room while it is being furnished, and its source of random numbers. All lengths are metres.

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
        """Build inside at a place of the current frame, turned anticlockwise [radians]."""
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
        centre = self.world(foot[0], foot[1], foot[2] + size[2] / 2)
        half = (size[0] / 2, size[1] / 2, size[2] / 2)
        self.solids.append(Solid(shape, centre, half, axes, taper, self.blocks and not stuff.glow))
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
        """Move the frame to the foot of a wall where a piece can hang with ``keep`` metres free in front of it."""
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
    """Read a table: in each row some words, then parts: shape, size, foot, material, and if need be tilt and taper.

    Lengths are hundredths of those that :meth:`Room.build` is given. A part at ~x or ~y stands on both sides.
    """
    shapes, things = {"box": BOX, "tube": TUBE, "ball": BALL}, []
    for row in table.strip().replace("\n ", "").splitlines():
        head, *rows = row.split("|")
        parts = []
        for shape, *fields in map(str.split, rows):
            w, d, h, x, y, z = (float(field.strip("~")) / 100 for field in fields[:6])
            tilt, taper = map(float, fields[7:] + ["0", "1"][len(fields) - 7 :])
            sides = [(v, -v) if "~" in field else (v,) for v, field in zip((x, y), fields[3:5], strict=True)]
            for stuff, (x, y) in zip([fields[6], "-", "-", "-"], itertools.product(*sides), strict=False):
                parts.append((shapes[shape], (x, y, z), (w, d, h), stuff, tilt, taper))
        things.append((head.split(), parts))
    return things


# Small things: a name, and where they lie, as Room.top has it; parts in centimetres.
_THINGS = _read("""
books tsf| box 24 17 3 0 0 0 any | box 20 15 5 1 0 3 any | box 17 13 2 0 0 8 any
row ts| box 30 17 22 0 0 0 books
boxes tsf| box 20 14 16 0 0 0 box | box 10 10 12 16 3 0 any
mugs ts| tube 8 8 10 0 0 0 any | tube 7 7 8 11 3 0 -
jars ts| tube 7 7 15 0 0 0 any | tube 6 6 9 0 0 15 - 0 0.4 | tube 6 6 18 10 3 0 any
bowl ts| tube 22 22 8 0 0 0 any 0 1.8 | ball 8 8 8 -4 0 5 any | ball 8 8 8 4 2 5 -
basket ts| tube 20 20 13 0 0 0 wood 0 1.2
papers tb| box 21 29 1 0 0 0 white | box 21 29 1 13 9 0.5 white
laptop tb| box 33 23 2 0 0 0 steel | box 33 1.5 22 0 -13 1 - 0.3 | box 30 1 19 0 -12 2 screen 0.3
oven t| box 44 32 25 0 0 0 steel | box 29 2 16 -5 16 5 dark
kettle t| tube 15 15 20 0 0 0 any 0 0.7 | ball 10 10 6 0 0 17 dark
flowers t| tube 11 11 22 0 0 0 any 0 0.7 | ball 26 24 20 0 0 20 leaf | ball 11 10 9 5 6 31 any | ball 9 9 9 -6 4 30 -
pot t| tube 15 15 13 0 0 0 any 0 1.3 | ball 7 34 5 0 6 17 leaf 0.7 | ball 7 30 5 2 -6 18 - -0.9 | ball 24 20 14 0 0 9 -
photo t| box 18 2 24 0 0 0 picture 0.2
printer t| box 42 35 18 0 0 0 any | box 24 20 1 0 14 16 white 0.4
tv t| box 30 20 6 0 0 0 dark | box 60 8 38 0 0 5 - | box 56 1 34 0 4 7 screen
pillow b| ball 55 16 42 0 0 -4 cloth 0.8
towels b| box 40 30 7 0 0 0 cloth | box 36 28 6 1 0 7 cloth
clothes bf| ball 45 35 16 0 0 -3 cloth | ball 35 40 20 14 8 -4 cloth | ball 30 25 12 -15 12 -2 -
bag bf| ball 36 24 38 0 0 -2 cloth | box 25 4 26 0 11 2 - 0.1
cartons f| box 45 38 30 0 0 0 box | box 38 32 24 2 0 30 box
bin f| tube 28 28 34 0 0 0 any 0 1.2 | ball 26 26 14 0 0 26 white
ball f| ball 23 23 23 0 0 0 any
shoes f| ball 11 28 11 -8 0 -1 any | ball 11 28 11 7 4 -1 -
stool f| tube 34 34 5 0 0 42 fabric | tube 6 6 42 0 0 0 steel | tube 32 32 3 0 0 0 -
crate f| box 45 35 24 0 0 0 any | ball 40 32 20 0 0 12 cloth
laundry f| tube 40 40 48 0 0 0 white 0 1.2 | ball 44 44 24 0 0 38 cloth
""")
# Furniture: a name, width, depth, height [cm], what may lie on it and how high up [percent], and for some the depth
# of the place before it [cm] with what stands there; parts in percent of its size.
_PIECES = _read("""
cabinet 45 55 110 t 100| box 100 100 100 0 0 0 drawers
dresser 105 50 95 t 100| box 100 96 93 0 0 3 drawers | box 103 103 4 0 0 96 - | box 94 88 3 0 -3 0 dark
sideboard 150 45 70 t 100| box 100 96 93 0 0 3 doors | box 103 103 4 0 0 96 - | box 94 88 3 0 -3 0 dark
wardrobe 120 58 205 t 100| box 100 100 97 0 0 3 doors | box 103 103 3 0 0 97 - | box 94 88 3 0 -3 0 dark
washer 60 60 88 t 100| box 100 100 100 0 0 0 white | tube 55 55 3 0 50 45 dark 1.57
fridge 70 66 175 t 100| box 100 100 100 0 0 0 fridge
television 120 45 105 - 0| box 100 100 42 0 0 0 wood | box 35 40 5 0 0 42 dark | box 85 15 52 0 0 46 -
 | box 80 2 46 0 8 49 screen
television 75 55 105 - 0| box 100 100 50 0 0 0 drawers | box 85 90 45 0 0 50 dark | box 70 2 33 0 45 56 screen
piano 145 60 115 - 0| box 100 50 100 0 -20 0 wood | box 100 50 12 0 15 52 - | box 5 40 52 ~46 20 0 -
 | box 88 20 1.5 0 28 64 white
rail 130 50 160 - 0| tube 3 8 100 ~48 0 0 steel | box 98 5 2 0 0 97 - | box 50 75 60 -18 0 37 folds
 | box 30 70 52 25 0 45 folds
hearth 145 35 115 t 100| box 50 20 85 0 -38 0 dark | box 26 100 85 ~37 0 0 brick | box 100 100 17 0 0 80 -
 | box 110 120 4 0 5 96 wood
rack 90 40 95 t 100| box 100 100 3 0 0 97 wood | box 100 100 3 0 0 52 - | box 100 100 3 0 0 8 -
 | box 5 8 97 ~47 ~45 0 - | box 40 80 25 -20 0 55 box | box 30 70 30 25 0 55 any | box 70 80 30 0 0 11 box
lamp 40 40 155 - 0
bookcase 100 31 110 - 0
bookcase 95 31 190 - 0
cooler 32 32 125 - 0| box 100 100 70 0 0 0 white | tube 80 80 30 0 0 70 mirror
bench 90 45 42 b 100| box 90 90 30 0 0 0 dark | box 100 100 70 0 0 30 fabric
island 140 75 90 t 100| box 95 90 95 0 0 0 doors | box 105 105 5 0 0 95 stone
kitchen 260 64 215 t 42| box 100 78 5 0 -6 0 dark | box 100 90 37 0 0 4 doors | box 80 53 30 5 -23 69 -
 | box 100 97 2 0 2 40 stone | box 100 2 26 0 -48 42 tiles | box 23 97 38 -25 2 4 steel | box 21 66 0.4 20 3 42 steel
 | tube 1 5 12 20 -30 42 -
basin 110 55 200 t 42| box 100 96 39 0 0 2 drawers | box 103 100 2 0 0 40 stone | ball 45 70 7 0 5 38 white
 | tube 3 6 10 0 -35 42 steel | box 100 5 40 0 -50 52 mirror
toilet 45 70 80 - 0| box 93 26 50 0 -36 47 white | tube 70 68 46 0 7 0 - 0 1.4 | tube 84 72 5 0 10 46 -
tub 160 75 58 - 0| box 95 85 35 0 0 0 white | box 100 10 95 0 ~45 0 - | box 4 85 95 ~48 0 0 -
 | box 45 4 240 -25 52 80 folds
bed 215 205 95 b 60| box 75 96 12 -12 0 0 dark | box 78 96 25 -12 0 12 wood | box 76 96 25 -12 1 34 white
 | box 81 72 34 -12 14 28 cloth | box 80 17 5 -12 -24 59 white | box 81 3 100 -12 -50 0 wood
 | ball 32 22 22 -30 -36 55 white 0.3 | ball 32 22 22 6 -36 55 - 0.3 | box 20 6 36 -12 -24 60 cloth 0.5
 | box 20 20 58 40 -38 0 drawers
bed 100 200 85 b 66| box 98 96 35 0 0 8 wood | box 97 95 25 0 1 40 white | box 102 70 30 0 14 37 cloth
 | box 100 3 100 0 -50 0 wood | box 100 3 70 0 50 0 - | ball 64 22 24 0 -36 60 white 0.3
sofa 195 90 85 b 50 110 coffee| box 98 92 27 0 3 7 cloth | box 98 22 88 0 -37 12 - 0.1 | box 9 100 72 ~45 0 0 -
 | box 40 75 18 ~20 8 33 - | ball 22 16 42 -28 -14 50 cloth 0.35 | box 22 14 40 26 -14 50 cloth 0.4
sofa 205 95 85 b 50 110 coffee| box 98 92 27 0 3 7 cloth | box 98 24 85 0 -37 12 - 0.1 | box 9 100 72 ~45 0 0 -
 | tube 11 24 108 ~45 0 19 - 1.57 | ball 42 28 58 ~20 -24 44 - 0.2 | box 40 75 20 ~20 8 33 -
 | ball 20 16 42 10 -12 50 cloth 0.4
armchair 88 85 92 b 45 60 bench| box 98 92 27 0 3 5 cloth | box 98 24 88 0 -37 10 - 0.12 | box 20 100 64 ~42 0 0 -
 | box 62 75 18 0 8 30 - | ball 50 16 40 0 -12 46 cloth 0.35
desk 140 70 75 t 100 65 chair| box 100 100 4 0 0 96 wood | box 4 95 96 ~48 0 0 - | box 95 3 45 0 -40 45 -
 | box 28 85 80 32 2 8 drawers | box 14 22 12 0 -22 100 dark | box 38 6 46 0 -24 112 - | box 36 1 42 0 -20.5 114 screen
 | box 30 20 2.5 0 18 100 dark
desk 125 65 75 t 100 65 chair| box 100 100 4 0 0 96 wood | tube 4 8 96 ~46 ~42 0 steel | box 32 50 55 22 -18 100 dark
 | box 28 1 42 22 7.5 106 screen
coffee 100 55 43 t 100| box 100 100 9 0 0 91 wood | box 8 12 91 ~45 ~42 0 - | box 90 90 5 0 0 30 -
table 150 90 75 t 100| box 100 100 5 0 0 95 wood | box 90 85 11 0 0 84 - | box 5 8 95 ~46 ~44 0 -
table 110 110 74 t 100| tube 100 100 4 0 0 96 wood | tube 35 35 96 0 0 0 - 0 0.25
table 160 75 73 t 100| box 100 100 4 0 0 96 white | tube 3 6 96 ~46 ~40 0 steel
chair 45 46 90 b 54| box 9 9 48 ~45 ~45 0 timber | box 100 100 5 0 0 48 - | box 9 8 50 ~45 -50 50 - 0.1
 | box 88 5 11 0 -48 68 - 0.1 | box 88 5 11 0 -52 88 - 0.1
chair 47 48 88 b 54| tube 7 7 48 ~44 ~44 0 steel | box 100 100 8 0 0 46 fabric | box 95 8 46 0 -48 54 - 0.1
chair 48 48 96 - 0| box 125 11 6 0 0 0 dark | box 11 125 6 0 0 0 - | tube 12 12 40 0 0 6 -
 | box 110 105 10 0 0 45 fabric | box 100 14 54 0 -50 54 - 0.12 | box 9 52 4 ~54 0 70 dark | box 7 9 20 ~54 0 52 -
plant 75 75 115 - 0| tube 38 38 28 0 0 0 any 0 1.25 | ball 22 95 10 0 20 45 leaf 0.7 | ball 20 90 10 0 -22 50 - -0.8
 | ball 16 30 70 -18 0 30 - 0.3 | ball 18 32 76 16 4 28 - -0.2 | ball 60 56 36 0 0 40 - | ball 80 14 9 8 6 62 - 0.4
""")
# What hangs on walls, written as furniture is.
_HUNG = _read("""
painting 70 5 50| box 100 100 100 0 50 0 picture
poster 60 3 85| box 100 100 100 0 50 0 picture
photo 25 4 30| box 100 100 100 0 50 0 picture
whiteboard 170 6 110| box 100 50 100 0 25 0 steel | box 97 20 94 0 50 3 white | box 60 100 2 0 50 0 steel
pinboard 110 5 80| box 100 60 100 0 30 0 wood | box 94 20 92 0 60 4 box | box 20 10 26 -25 75 50 white
 | box 18 10 26 5 75 20 any | box 20 10 26 28 75 55 any | box 16 10 20 -20 75 15 white
mirror 60 5 90| box 100 80 100 0 40 0 wood | box 90 20 92 0 80 4 mirror
clock 30 4 30| tube 100 750 10 0 50 45 white 1.57
shelf 80 22 40| box 100 100 7 0 50 0 wood | box 60 70 60 -15 45 7 books | box 16 50 30 35 45 7 any
coats 70 28 90| box 110 10 8 0 5 92 wood | ball 45 90 100 -25 50 0 cloth | ball 45 80 90 20 45 5 cloth
cupboard 80 35 65| box 100 100 100 0 50 0 doors
screen 100 8 58| box 100 100 100 0 50 0 dark | box 96 5 92 0 100 4 screen
switch 9 2 9| box 100 100 100 0 50 0 white
""")


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
