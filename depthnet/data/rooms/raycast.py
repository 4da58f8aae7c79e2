"""Exact depth of rooms made of boxes, cylinders and ellipsoids, and the light on them, by ray casting in NumPy.

World coordinates are meters, x along the room's width, y along its length, z up; the room spans [0, size]. A camera's
rays are 1 long along its optical axis, so a hit's ray parameter is its z-depth. Vectors lie in planar arrays, shape
``(3, N)``: each coordinate is contiguous, which is what makes NumPy fast here.
"""

# NumPy's arithmetic is typed Any
# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Vector = tuple[float, float, float]
Float = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

_MISS = np.float32(np.inf)
_CHUNK = 8192  # rays at a time, so that all temporary arrays stay in the processor's cache
# Light and openness are sampled in five of the nine pixels of each 3x3 tile, like the five on a die, each sample with
# another point of the light, and averaged over the 3x3 pixels around each pixel, which hold all five, and once more.
_DIE = np.array([[-1, -1], [1, -1], [0, 0], [-1, 1], [1, 1]])


class Shape(IntEnum):
    """What a solid is in its own frame, where it spans [-1, 1] along each axis."""

    BOX = 0
    TUBE = 1  # a cylinder, or a part of a cone
    BALL = 2  # an ellipsoid


class Solid(NamedTuple):
    """A convex solid.

    ``axes`` has its own axes as columns. ``taper`` is a cylinder's upper radius by its lower one; the wider end fills
    the box of ``half``. ``blocks``: does it cast shadows?
    """

    shape: Shape
    center: Vector
    half: Vector
    axes: Array
    taper: float = 1.0
    blocks: bool = True


class Light(NamedTuple):
    """Light from the box ``position`` +- ``spread``, all around or, as from a window, to where it is ``facing``.

    One with ``openings`` is the sun: ``position`` is the direction to it, 1 long, and it comes in only where the walls
    lie in one of these boxes (from, to).
    """

    position: Vector
    spread: Vector
    color: Vector
    facing: Vector | None = None
    openings: Sequence[tuple[Vector, Vector]] = ()


class Camera(NamedTuple):
    """A pinhole camera; ``axes`` has right, down and forward in world coordinates as columns."""

    position: Array
    axes: Array


class Scene:
    """A furnished room.

    Walls are numbered after the solids: x = 0, x = width, y = 0, y = length, floor, ceiling.

    Args:
        size: Width, length and height [m].
        solids: What stands in it.
        lights: At least one.
        bounce: The light that comes back from each wall, linear RGB, in the walls' order.
    """

    def __init__(self, size: Vector, solids: Sequence[Solid], lights: Sequence[Light], bounce: Array) -> None:
        self.size, self.solids, self.lights, self.bounce = np.array(size), solids, lights, bounce
        middle = (size[0] / 2, size[1] / 2, size[2] / 2)
        parts = [*solids, *[Solid(Shape.BOX, middle, middle, np.eye(3))] * 6]
        self.shape = np.array([part.shape for part in parts])
        self.center = np.array([part.center for part in parts])
        self.half = np.array([part.half for part in parts])
        self.axes = np.array([part.axes for part in parts])
        taper = np.array([part.taper for part in parts], np.float32)
        upper, lower = np.minimum(taper, 1), np.minimum(1 / taper, 1)
        # A cylinder's radius is cone[0] + z cone[1].
        self.cone = np.array([(upper + lower) / 2, (upper - lower) / 2], np.float32)
        # World to the frame where a part spans [-1, 1].
        self.to_unit = (self.axes.transpose(0, 2, 1) / self.half[:, :, None]).astype(np.float32)


class Hits(NamedTuple):
    """What the rays of a picture of N pixels met.

    Attributes:
        depth: Along the optical axis [m], ``(H, W)``.
        part: Which solid or wall, ``(N,)``.
        point: World coordinates [m], ``(3, N)``.
        normal: Unit, towards the camera's side, ``(3, N)``.
        eye: Unit direction to the camera, ``(3, N)``.
        place: Where on the face, from its lower left corner [m], ``(2, N)``.
        extent: Of that face [m], ``(2, N)``.
        face: The axis of its own frame that the face looks along: 0 side, 1 front or back, 2 top or bottom, ``(N,)``.
        footprint: How much of the surface a pixel covers [m], ``(N,)``.
    """

    depth: Float
    part: npt.NDArray[np.int32]
    point: Float
    normal: Float
    eye: Float
    place: Float
    extent: Float
    face: npt.NDArray[np.intp]
    footprint: Float


def intrinsics(size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the Kinect's (fx, fy, cx, cy) [pixels] for a picture of (height, width).

    NYU's RGB camera at 640x480, scaled by width with pixel centers at whole numbers: the horizontal field of view and
    the shape of a pixel stay, at any aspect.

    Example:
        >>> [round(value, 4) for value in intrinsics((480, 640))]
        [518.8579, 519.4696, 325.5824, 253.7362]
    """
    height, width = size
    scale = width / 640
    return 518.8579 * scale, 519.4696 * scale, (325.5824 + 0.5) * scale - 0.5, height / 2 - 0.5 + 14.2362 * scale


def sight(camera: Camera, size: tuple[int, int]) -> Float:
    """Return the ray through each pixel in world coordinates, 1 long along the optical axis, ``(3, H, W)``."""
    height, width = size
    fx, fy, cx, cy = intrinsics(size)
    x, y = (np.arange(width) - cx) / fx, ((np.arange(height) - cy) / fy)[:, None]
    right, down, forward = camera.axes.T[:, :, None, None]
    return (x * right + (y * down + forward)).astype(np.float32)


def cast(scene: Scene, camera: Camera, size: tuple[int, int]) -> Hits:
    """Find what a camera inside the room and outside of all solids sees in a picture of (height, width)."""
    rays = sight(camera, size)
    ray = rays.reshape(3, -1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        depth, index = _nearest(scene, camera, rays)
        point = camera.position[:, None].astype(np.float32) + ray * depth.ravel()
        normal, place, extent, face = _surface(scene, index.ravel(), point)
    eye = -ray / np.sqrt((ray * ray).sum(0))
    footprint = depth.ravel() / (np.float32(intrinsics(size)[0]) * np.maximum((normal * eye).sum(0), 0.1))
    return Hits(depth, index.ravel(), point, normal, eye, place, extent, face, footprint)


def illuminate(scene: Scene, hits: Hits) -> tuple[Float, Float]:
    """Return the light that falls on what was cast and the lamps that it would mirror, linear RGB, both ``(3, N)``."""
    height, width = hits.depth.shape
    cell = (np.arange(height)[:, None] % 3 * 3 + np.arange(width) % 3).ravel()
    some = np.flatnonzero(cell % 2 == 0)
    die = cell // 2
    seen = np.ones((1 + len(scene.lights), height * width), np.float32)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        incoming = [_incoming(light, hits) for light in scene.lights]
        seen[0, some] = _openness(hits, some, die[some])
        for layer, light, (_, strength) in zip(seen[1:], scene.lights, incoming, strict=True):
            # Where light is faint beside what the walls send back, its shadows are not seen.
            lit = some[strength[some] * max(light.color) > 0.05 * scene.bounce.mean()]
            for part in (lit[start : start + _CHUNK] for start in range(0, lit.size, _CHUNK)):
                layer[part] = _visible(scene, light, hits.point.take(part, 1), die[part])
    surface = (hits.part * 4 + hits.face).reshape(height, width)
    shares = _smooth(seen.reshape(-1, height, width), (cell % 2 == 0).reshape(height, width), surface)

    falls = _bounced(scene, hits.normal) * shares[0]
    mirrored = np.zeros_like(falls)
    for light, (toward, strength), share in zip(scene.lights, incoming, shares[1:], strict=True):
        color = np.array(light.color, np.float32)[:, None]
        falls += color * (strength * share)
        halfway = toward + hits.eye
        sharp = (hits.normal * halfway).sum(0) / np.sqrt((halfway * halfway).sum(0))
        for _ in range(5):  # to the 32nd power
            sharp = sharp * sharp
        mirrored += color * (sharp * share)
    return falls, mirrored


def enter_box(origin: Float, ray: Float) -> Float:
    """Return where rays enter the box that spans [-1, 1], as :func:`_enter` does; vectors along the first axis."""
    inverse = 1 / ray
    between, reach = -origin * inverse, np.abs(inverse)
    near: Float = (between - reach).max(0)
    near[~((near > 0) & (near <= (between + reach).min(0)))] = _MISS
    return near


def _enter(shape: int, cone: Float, origin: Float, ray: Float) -> Float:
    """Return where rays enter a solid that spans [-1, 1], as a multiple of the ray, inf for a miss: ``(N,)``."""
    if shape == Shape.BOX:
        return enter_box(origin, ray)
    if shape == Shape.BALL:
        # From the point nearest to the center: the textbook discriminant loses all digits of a small far ball.
        length = (ray * ray).sum(0)
        closest = -(origin * ray).sum(0) / length
        passing = origin + closest * ray
        near: Float = closest - np.sqrt((1 - (passing * passing).sum(0)) / length)
        near[~(near > 0)] = _MISS
        return near
    middle, slope = cone
    flat = ray[:2]
    closest = -(origin[:2] * flat).sum(0) / (flat * flat).sum(0)
    start = origin + closest * ray
    radius = middle + slope * start[2]
    a = (flat * flat).sum(0) - (slope * ray[2]) ** 2
    b = -slope * ray[2] * radius
    c = (start[:2] * start[:2]).sum(0) - radius * radius
    near = closest - (b + np.sqrt(b * b - a * c)) / a
    near[~((near > 0) & (np.abs(origin[2] + near * ray[2]) <= 1))] = _MISS
    end = -np.sign(ray[2])  # the flat end that a ray can come in by
    cap = (end - origin[2]) / ray[2]
    at = origin[:2] + cap * flat
    cap[~((cap > 0) & ((at * at).sum(0) <= (middle + slope * end) ** 2))] = _MISS
    return np.minimum(near, cap)


def _nearest(scene: Scene, camera: Camera, rays: Float) -> tuple[Float, npt.NDArray[np.int32]]:
    """Return depth and the index of the solid or wall that each ray meets, both ``(H, W)``."""
    position = camera.position[:, None, None].astype(np.float32)
    leaves = np.where(rays > 0, scene.size.astype(np.float32)[:, None, None] - position, -position) / rays
    wall = leaves.argmin(0)
    depth: Float = leaves.min(0)
    index = (len(scene.solids) + 2 * wall + (np.take_along_axis(rays, wall[None], 0)[0] > 0)).astype(np.int32)
    origins = np.einsum("sij,sj->si", scene.to_unit, camera.position - scene.center).astype(np.float32)
    for k, (top, bottom, left, right) in enumerate(_windows(scene, camera, (rays.shape[1], rays.shape[2]))):
        if left == right:
            continue
        local = scene.to_unit[k] @ rays[:, top:bottom, left:right].reshape(3, -1)
        near = _enter(scene.shape[k], scene.cone[:, k], origins[k][:, None], local).reshape(-1, right - left)
        closer = near < depth[top:bottom, left:right]
        np.copyto(depth[top:bottom, left:right], near, where=closer)
        np.copyto(index[top:bottom, left:right], k, where=closer)
    return depth, index


def _windows(scene: Scene, camera: Camera, size: tuple[int, int]) -> list[list[int]]:
    """Return rows and columns (top, bottom, left, right) of the picture outside of which a solid cannot be seen."""
    count, signs = len(scene.solids), np.array(list(itertools.product((-1, 1), repeat=3)))
    corners = np.einsum("sij,skj->ski", scene.axes, signs * scene.half[:, None])[:count]
    corners = (corners + scene.center[:count, None] - camera.position) @ camera.axes
    fx, fy, cx, cy = intrinsics(size)
    ahead = corners[..., 2] > 0.05
    z = np.maximum(corners[..., 2], 0.05)
    column, row = corners[..., 0] / z * fx + cx, corners[..., 1] / z * fy + cy
    bounds = np.stack([row.min(1), row.max(1) + 2, column.min(1), column.max(1) + 2], 1)
    bounds[~ahead.all(1)] = (0, size[0], 0, size[1])
    bounds[~ahead.any(1)] = 0
    return bounds.clip(0, np.repeat(size, 2)).astype(int).tolist()


def _surface(scene: Scene, index: Array, point: Float) -> tuple[Float, Float, Float, npt.NDArray[np.intp]]:
    """Return the normal, place, extent and face of points on solids and walls, as :class:`Hits` has them."""
    offset = np.einsum("sij,sj->si", scene.to_unit, scene.center).astype(np.float32)
    rows = scene.to_unit.transpose(1, 2, 0).take(index, 2)
    at = rows[:, 0] * point[0] + rows[:, 1] * point[1] + rows[:, 2] * point[2] - offset.T.take(index, 1)
    half = scene.half.T.astype(np.float32).take(index, 1)
    face = np.abs(at).argmax(0)
    sign = np.sign(at.ravel().take(face * index.size + np.arange(index.size)))
    sign[index >= len(scene.solids)] *= -1  # a room is seen from inside
    columns = scene.axes.astype(np.float32).transpose(1, 0, 2).reshape(3, -1)
    normal = columns.take(index * 3 + face, 1) * sign
    meters = (at + 1) * half
    curved = np.flatnonzero(scene.shape.take(index) != Shape.BOX)
    if curved.size:
        here, size, solid = at[:, curved], half[:, curved], index[curved]
        outward = here / size
        tube = scene.shape[solid] == Shape.TUBE
        cap = tube & (np.abs(here[2]) > 0.9999)
        middle, slope = scene.cone[:, solid]
        outward[2, tube] = (-slope * (middle + slope * here[2]) / size[2])[tube]
        outward[:, cap] = 0
        outward[2, cap] = np.sign(here[2, cap])
        outward = np.einsum("nij,jn->in", scene.axes.astype(np.float32)[solid], outward)
        normal[:, curved] = outward / np.sqrt((outward * outward).sum(0))
        face[curved] = np.where(cap, 2, 1)
        meters[0, curved] = np.where(cap, meters[0, curved], np.arctan2(here[1], here[0]) * size[0])
    side, lying = face == 0, face == 2
    place, extent = (np.stack([np.where(side, a[1], a[0]), np.where(lying, a[1], a[2])]) for a in (meters, 2 * half))
    return normal, place, extent, face


def _incoming(light: Light, hits: Hits) -> tuple[Float, Float]:
    """Return the unit direction to a light's middle, ``(3, N)``, and how strongly it lights the surface, ``(N,)``."""
    position = np.array(light.position, np.float32)[:, None]
    if light.openings:
        return position, np.maximum((hits.normal * position).sum(0), 0)
    toward = position - hits.point
    square = (toward * toward).sum(0)
    toward /= np.sqrt(square)
    strength = np.maximum((hits.normal * toward).sum(0), 0) / (square + 0.15)
    if light.facing is not None:
        strength *= np.maximum(-(np.array(light.facing, np.float32) @ toward), 0)
    return toward, strength


def _visible(scene: Scene, light: Light, point: Float, die: Array) -> Array:
    """Return whether points on lit surfaces see a point of the light, which ``die`` chooses: bool, ``(N,)``."""
    position, spread = np.array(light.position), np.array(light.spread)
    x, y = _DIE.T
    pattern = np.stack([x, y, x * y] if spread[2] <= spread[:2].min() else [x, x, y])
    origin = (position[:, None] + spread[:, None] * pattern).astype(np.float32)[:, die]
    grain = np.random.default_rng(0).random(origin.shape, np.float32) - 0.5  # else a shadow's edge shows five steps
    origin += grain * (0.7 * spread[:, None]).astype(np.float32)
    blocking = np.flatnonzero([solid.blocks for solid in scene.solids])
    free = np.ones(die.size, bool)
    if light.openings:
        walls = np.where(origin > 0, scene.size.astype(np.float32)[:, None] - point, -point) / origin
        origin = point + origin * walls.min(0)  # where the sun's ray comes in
        free[:] = False
        for low, high in np.array(light.openings, np.float32)[..., None]:
            free |= ((origin > low) & (origin < high)).all(0)
        near = np.broadcast_to(free, (blocking.size, die.size))
    else:
        # Only points in a cone behind a solid can lie in its shadow; around the light itself all can.
        outward = point - position[:, None].astype(np.float32)
        distance = np.sqrt((outward * outward).sum(0))
        centers = scene.center[blocking] - position
        away = np.sqrt((centers * centers).sum(1))
        radius = np.sqrt((scene.half[blocking] ** 2).sum(1)) + 1.35 * np.sqrt((spread * spread).sum())
        narrow = np.sqrt(np.maximum(1 - (radius / away) ** 2, 0)) - 2.0 * (radius >= away)
        bounds = centers / away[:, None], narrow[:, None], (away - radius)[:, None]
        axes, narrow, first = (bound.astype(np.float32) for bound in bounds)
        near = (axes @ (outward / distance) > narrow) & (distance > first)
    ray = point - origin
    for k, behind in zip(blocking, near, strict=True):
        some = np.flatnonzero(behind & free)
        if some.size:
            start = origin.take(some, 1) - scene.center[k].astype(np.float32)[:, None]
            local = scene.to_unit[k] @ start, scene.to_unit[k] @ ray.take(some, 1)
            free[some[_enter(scene.shape[k], scene.cone[:, k], *local) < 0.997]] = False
    return free


def _openness(hits: Hits, some: Array, die: Array) -> Float:
    """Return how open ``some`` points are to the room, 0 to 1, from their neighbors in the picture: ``(N,)``."""
    height, width = hits.depth.shape
    reach, samples = 0.5, 6
    point, normal = hits.point.take(some, 1), hits.normal.take(some, 1)
    radius = np.minimum(reach * intrinsics((height, width))[0] / hits.depth.ravel()[some], width / 5)
    row, column = some // width, some % width
    closed = np.zeros(some.size, np.float32)
    for k in range(samples):
        turn = 2 * math.pi * (k + np.arange(5) / 5) / samples
        share = ((k * 2 + np.arange(5) * 3) % 5 + 0.6) / 5
        near_row = (row + radius * (share * np.sin(turn)).astype(np.float32)[die]).astype(np.int32)
        near_column = (column + radius * (share * np.cos(turn)).astype(np.float32)[die]).astype(np.int32)
        near = near_row.clip(0, height - 1) * width + near_column.clip(0, width - 1)
        offset = hits.point.take(near, 1) - point
        square = (offset * offset).sum(0) + 1e-4
        rise = (offset * normal).sum(0) / np.sqrt(square)
        closed += np.maximum(rise - 0.1, 0) * np.maximum(1 - square / reach**2, 0)
    return np.maximum(1 - closed * (2.2 / samples), 0.15)


def _smooth(layers: Float, known: Array, surface: Array) -> Float:
    """Average what is known of ``(L, H, W)`` over each pixel's neighbors on its own surface, and once more: (L, N)."""
    height, width = known.shape
    edge = ((1, 1), (1, 1))
    around = np.pad(surface, edge, constant_values=-1)
    for lone in (0, 1):  # where none of them is known, the second time over all neighbors
        total, weight = np.zeros_like(layers), np.full_like(layers[0], 1e-6)
        layers, sure = np.pad(layers, ((0, 0), *edge)), np.pad(known, edge)
        for dy, dx in itertools.product(range(3), range(3)):
            at = np.s_[..., dy : dy + height, dx : dx + width]
            same = ((surface == around[at]) | (known < lone)) & sure[at]
            weight += same
            total += layers[at] * same
        layers, known = total / weight, weight > 0.5
    return layers.reshape(len(layers), -1)


def _bounced(scene: Scene, normal: Float) -> Float:
    """Return the light that comes back from the walls that a surface looks at, RGB, ``(3, N)``."""
    square = normal**2
    ahead = (normal > 0) * square
    walls = scene.bounce.astype(np.float32).reshape(3, 2, 3, 1)
    return sum(high * on + low * (both - on) for (low, high), on, both in zip(walls, ahead, square, strict=True))
