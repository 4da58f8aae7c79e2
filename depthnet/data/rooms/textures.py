"""Procedural materials of the built-in rooms, and the film that turns light into a picture.

Patterns fade to their mean where a pixel covers more than their period, so that far surfaces do not flicker.
"""

# NumPy's arithmetic is typed Any
# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from depthnet.data.rooms.raycast import Array, Float, Hits

Color = tuple[float, float, float]

_TABLE = np.random.default_rng(7).random(1 << 16, np.float32)  # lattice of the noise, 256x256, repeats
_RANDOM = np.random.default_rng(8)
_HUES = _RANDOM.random((3, 1 << 16)) * 1.3 - 1  # muted more often than bright
_HUES = ((1 + _HUES * _RANDOM.beta(1, 1.3, 1 << 16)) * _RANDOM.beta(1.1, 2.2, 1 << 16)).astype(np.float32)

_WOODS = ((0.78, 0.6, 0.4), (0.66, 0.47, 0.3), (0.5, 0.32, 0.2), (0.4, 0.2, 0.12), (0.3, 0.2, 0.15), (0.85, 0.77, 0.6))
_LACQUERS = ((0.88, 0.88, 0.86), (0.15, 0.15, 0.16), (0.7, 0.7, 0.68), (0.8, 0.76, 0.68))


class Texels(NamedTuple):
    """Places on surfaces: ``u``, ``v`` from a face's lower left corner and its ``extent``, all in meters.

    ``blur`` is what a pixel covers there [m], ``front`` is true on faces that look forwards or backwards, ``first``
    and ``second`` are the material's colors ``(3, N)``, ``step`` its period along u and v ``(2, N)``, ``seed`` its
    own number.
    """

    u: Float
    v: Float
    extent: Float
    blur: Float
    front: npt.NDArray[np.bool_]
    first: Float
    second: Float
    step: Float
    seed: Float


Pattern = Callable[[Texels], Array]


class Material(NamedTuple):
    """A pattern of two sRGB colors with periods [m]; ``gloss`` mirrors lamps, ``glow`` emits light."""

    pattern: Pattern
    first: Color
    second: Color = (0.0, 0.0, 0.0)
    step: tuple[float, float] = (1.0, 1.0)
    gloss: float = 0.0
    glow: float = 0.0


class Palette(Random):
    """Random numbers, and colors and materials as rooms have them."""

    def shade(self, color: Color, by: float = 0.12) -> Color:
        """Return a color a little off."""
        k = 1 + self.uniform(-by, by)
        r, g, b = (min(max(c * k + self.uniform(-0.03, 0.03), 0.02), 0.97) for c in color)
        return r, g, b

    def hue(self) -> Color:
        """Return any color, warm and muted ones more often than not."""
        value, strength = self.uniform(0.1, 0.95), self.random() ** 2 * 0.85
        turn = self.uniform(-0.3, 1.2) if self.random() < 0.5 else self.uniform(0, 6.283)
        r, g, b = (value * (1 - strength * (0.5 - 0.5 * math.cos(turn - k * 2.094))) for k in range(3))
        return r, g, b

    def wood(self) -> Material:
        """Return wood or lacquer."""
        if self.random() < 0.25:
            return Material(plain, self.shade(self.choice(_LACQUERS)), gloss=self.uniform(0, 0.1))
        r, g, b = self.shade(self.choice(_WOODS))
        k = self.uniform(0.6, 0.9)
        return Material(grain, (r, g, b), (r * k, g * k, b * k), gloss=self.uniform(0, 0.12))

    def cloth(self) -> Material:
        """Return what seats, beds and rugs are covered with."""
        pattern = self.choices((carpet, plain, stripes, plaid, blotches), (5, 4, 1, 1, 2))[0]
        first, step = self.hue(), self.uniform(0.04, 0.25)
        second = self.hue() if pattern is not carpet else (first[0] * 0.7, first[1] * 0.7, first[2] * 0.7)
        return Material(pattern, first, second, (step, step * (3 if pattern is stripes else 1)))

    def plastic(self) -> Material:
        """Return something smooth of any color."""
        return Material(plain, self.hue(), gloss=self.uniform(0, 0.2))


def colors(text: str) -> list[Color]:
    """Return the sRGB colors of hexadecimal words, such as "e8e3d9 b3a691"."""
    return [(c[0] / 255, c[1] / 255, c[2] / 255) for c in map(bytes.fromhex, text.split())]


def linear(colors: Sequence[Color]) -> Float:
    """Return sRGB colors as linear light, shape ``(len(colors), 3)``."""
    return np.array(colors, np.float32) ** np.float32(2.2)


def paint(hits: Hits, materials: Sequence[Material], seed: int) -> tuple[Float, Float, Float]:
    """Color surfaces.

    Args:
        hits: Points on them.
        materials: One for each solid and wall.
        seed: Of all that is random in the patterns.

    Returns:
        Albedo, linear RGB, ``(3, N)``, gloss and glow, ``(N,)``.
    """
    first, second = linear([m.first for m in materials]).T, linear([m.second for m in materials]).T
    steps = np.array([m.step for m in materials], np.float32).T
    gloss, glow = np.array([(m.gloss, m.glow) for m in materials], np.float32).T
    patterns = list(dict.fromkeys(material.pattern for material in materials))
    pattern_of = np.array([patterns.index(material.pattern) for material in materials])[hits.part]
    albedo = np.empty((3, hits.part.size), np.float32)
    for number, pattern in enumerate(patterns):
        some = np.flatnonzero(pattern_of == number)
        which = hits.part[some]
        (u, v), extent = hits.place.take(some, 1), hits.extent.take(some, 1)
        look = first.take(which, 1), second.take(which, 1), steps.take(which, 1)
        own = ((which * 37 + seed % 1021) % 1021).astype(np.float32)
        albedo[:, some] = pattern(Texels(u, v, extent, hits.footprint[some], hits.face[some] == 1, *look, own))
    return albedo, gloss[hits.part], glow[hits.part]


def plain(t: Texels) -> Array:
    """Paint, plastic, leather: one color with faint spots."""
    return t.first * (1 + 0.08 * noise(t.u * 3 + t.seed, t.v * 3))


def grain(t: Texels) -> Array:
    """Wood, with its grain along u."""
    return _blend(t, 0.5 + (_wood(t.u + t.seed * 0.37, t.v) - 0.5) * _fade(t, 0.03))


def planks(t: Texels) -> Array:
    """A wooden floor: boards ``step`` long and wide, each of its own shade."""
    row = np.floor(t.v / t.step[1])
    along = t.u + _cell(row, t.seed, 3) * t.step[0]
    board = np.floor(along / t.step[0])
    shade = 1 + 0.45 * (_cell(board, row, 1) - 0.5) * _fade(t, t.step[1])
    seam = np.maximum(_seam(t.v, t.step[1], 0.004, t.blur), _seam(along, t.step[0], 0.004, t.blur))
    return _blend(t, 0.5 + (_wood(along + board * 7.3, t.v) - 0.5) * _fade(t, 0.03)) * (shade * (1 - 0.7 * seam))


def tiles(t: Texels) -> Array:
    """Tiles or bricks with joints of the second color; bricks, wider than high, lie in a running bond."""
    row = np.floor(t.v / t.step[1])
    along = t.u + np.where(t.step[0] > 1.5 * t.step[1], row * 0.5, 0) * t.step[0]
    shade = 1 + 0.22 * (_cell(np.floor(along / t.step[0]), row, t.seed) - 0.5) * _fade(t, t.step[1])
    shade += 0.06 * noise(along * 9, t.v * 9)
    joint = np.maximum(_seam(t.v, t.step[1], 0.008, t.blur), _seam(along, t.step[0], 0.008, t.blur))
    return t.first * (shade * (1 - joint)) + t.second * joint


def checks(t: Texels) -> Array:
    """A checkered floor or cloth."""
    odd = (np.floor(t.u / t.step[0]) + np.floor(t.v / t.step[1])) % 2
    return _blend(t, 0.5 + (odd - 0.5) * _fade(t, t.step[0]))


def carpet(t: Texels) -> Array:
    """Carpet, wool, stone: fine grains over slow shades."""
    fine = noise(t.u / 0.012, t.v / 0.012) * _fade(t, 0.02) + 0.6 * noise(t.u / 0.05, t.v / 0.05) * _fade(t, 0.06)
    return _blend(t, 0.4 + 0.35 * fine + 0.2 * noise(t.u / t.step[0], t.v / t.step[1]))


def stripes(t: Texels) -> Array:
    """Upright stripes: wallpaper, cloth; ``step`` along v makes them lie."""
    wave = np.where(t.step[0] < t.step[1], t.u / t.step[0], t.v / t.step[1])
    band = np.clip((np.abs(wave % 1 - 0.5) - 0.25) * np.minimum(t.step.min(0) / t.blur, 20) + 0.5, 0, 1)
    return _blend(t, 0.5 + (band - 0.5) * _fade(t, t.step.min(0)))


def plaid(t: Texels) -> Array:
    """Woven checks with a thin line."""
    u, v = (np.abs(x / s % 1 - 0.5) < 0.25 for x, s in ((t.u, t.step[0]), (t.v, t.step[1])))
    line = np.maximum(_seam(t.u, t.step[0], 0.012, t.blur), _seam(t.v, t.step[1], 0.012, t.blur))
    return _blend(t, 0.5 + ((u * 0.5 + v * 0.5) - 0.5) * _fade(t, t.step[0])) * (1 - 0.5 * line)


def folds(t: Texels) -> Array:
    """A curtain or blanket that hangs in folds."""
    wave = np.sin((t.u + 0.04 * noise(t.v * 0.7 + t.seed, t.u)) * (6.283 / t.step[0]) + 2 * noise(t.u * 5, t.seed))
    return t.first * (0.72 + 0.28 * wave * _fade(t, t.step[0]) + 0.05 * noise(t.u * 30, t.v * 30) * _fade(t, 0.05))


def blotches(t: Texels) -> Array:
    """Flowered cloth, oriental rug, marble: patches of two colors and a little of a third."""
    u, v = t.u / t.step[0] + t.seed, t.v / t.step[1]
    form = noise(u, v) + 0.5 * noise(u * 2.3, v * 2.3) + 0.3 * noise(u * 5.1, v * 5.1)
    third = np.clip((noise(u * 1.7, v * 1.7 + 9) - 0.5) * 4, 0, 1)
    colors = _blend(t, np.clip(form * 1.5 * _fade(t, t.step[0]) + 0.5, 0, 1))
    return colors + (_hue(t.seed, 5) - colors) * (0.6 * third * _fade(t, t.step[0]))


def books(t: Texels) -> Array:
    """The backs of a row of books; plain where it is not a front."""
    book = np.floor(t.u / t.step[0] + 0.6 * noise(t.u / t.step[0] * 0.31, t.seed))
    tall = t.extent[1] * (0.72 + 0.28 * _cell(book, t.seed, 2))
    color = _hue(book, t.seed) * 0.75 + t.first * 0.25
    band = np.abs(t.v / tall - 0.25 - 0.5 * _cell(book, t.seed, 4)) < 0.06
    shade = np.where(t.v > tall, 0.08, 1 + 0.7 * (band & (_cell(book, t.seed, 6) > 0.4)))
    gap = _seam(t.u, t.step[0], 0.005, t.blur)
    faded = (color * (shade * (1 - 0.6 * gap)) - 0.22) * _fade(t, t.step[0]) + 0.22
    return np.where(t.front, faded, t.second)


def panels(t: Texels) -> Array:
    """Doors and drawers some ``step`` wide and high with handles of the second color, on a front; else its wood."""
    step = t.extent / np.maximum(np.rint(t.extent / t.step), 1)
    wood = t.first * (0.9 + 0.2 * _wood(t.v + t.seed, t.u) * _fade(t, 0.03))
    seam = np.maximum(_seam(t.u, step[0], 0.009, t.blur), _seam(t.v, step[1], 0.009, t.blur))
    x, y = np.abs(t.u / step[0] % 1 - 0.5) * step[0], t.v / step[1] % 1 * step[1]
    inset = (np.abs(x - step[0] / 2 + 0.06) < 0.006) & (np.abs(y - step[1] / 2) < step[1] / 2 - 0.06)
    handle = np.where(
        step[1] > step[0],
        (np.abs(x - step[0] / 2 + 0.04) < 0.01) & (np.abs(y / step[1] - 0.5) < 0.07),
        (x < 0.06) & (np.abs(y - step[1] * 0.55) < 0.013),
    ) * _fade(t, 0.03)
    fronts = (wood * (1 - 0.75 * seam - 0.2 * (inset & (t.seed % 2 > 0)))) * (1 - handle) + t.second * handle
    return np.where(t.front, fronts, wood)


def picture(t: Texels) -> Array:
    """A framed picture or poster: frame, white border, and something painted."""
    edge = np.minimum(np.minimum(t.u, t.extent[0] - t.u), np.minimum(t.v, t.extent[1] - t.v))
    u, v = t.u / t.extent[0], t.v / t.extent[1]
    form = noise(u * 2.5 + t.seed, v * 3) + 0.6 * noise(u * 7, v * 7 + t.seed) + (v - 0.5) * (t.seed % 3)
    inside = np.where(form > 0.25, _hue(t.seed, 1), np.where(form > -0.3, _hue(t.seed, 2), _hue(t.seed, 3)))
    white = (edge < 0.03 + t.step[0]) & (t.seed % 2 > 0)
    return np.where(edge < 0.03, t.first, np.where(white, np.float32(0.75), inside))


def window(t: Texels) -> Array:
    """Panes ``step`` wide and high in frames of the second color, the sky above something green or gray."""
    bar = np.maximum(_seam(t.u, t.step[0], 0.05, t.blur), _seam(t.v, t.step[1], 0.05, t.blur))
    v = t.v / t.extent[1] + 0.15 * noise(t.u * 4 + t.seed, t.seed)
    low = np.clip((0.42 - v) * 8, 0, 1) * (0.5 + 0.3 * noise(t.u * 11, t.v * 11))
    view = t.first * (1 - low) + t.first * (0.25 + 0.3 * _hue(t.seed, 7)) * low
    return view * (1 - bar) + t.second * 0.25 * bar


def blinds(t: Texels) -> Array:
    """A window behind slats ``step`` high."""
    slat = 0.5 + 0.5 * np.sin(t.v * (6.283 / t.step[1])) * _fade(t, t.step[1])
    return t.first * (0.35 + 0.65 * slat) * (1 - 0.8 * _seam(t.u, t.extent[0], 0.08, t.blur))


def _blend(t: Texels, share: Array) -> Array:
    return t.first + (t.second - t.first) * share


def _wood(u: Array, v: Array) -> Array:
    rings = noise(u * 1.3, v * 14) + 0.5 * noise(u * 5, v * 90)
    return np.clip(0.5 + 0.5 * rings, 0, 1)


def _fade(t: Texels, period: Array | float) -> Array:
    return np.clip(1.4 - 1.2 * t.blur / period, 0, 1)


def _seam(x: Array, period: Array, width: float, blur: Array) -> Array:
    away = np.abs(x / period - np.rint(x / period)) * period
    return np.clip((width + blur) / (2 * blur) - away / blur, 0, np.minimum(1, width / blur))


def noise(u: Array, v: Array) -> Array:
    """Smooth noise of unit period, in [-1, 1]."""
    low_u, low_v = np.floor(u), np.floor(v)
    x, y = (u - low_u).astype(np.float32), (v - low_v).astype(np.float32)
    x, y = x * x * (3 - 2 * x), y * y * (3 - 2 * y)
    row, column = low_u.astype(np.int32) & 255, low_v.astype(np.int32) & 255
    next_row, next_column = ((row + 1) & 255) << 8, (column + 1) & 255
    row = row << 8
    left = _TABLE[row | column] * (1 - x) + _TABLE[next_row | column] * x
    right = _TABLE[row | next_column] * (1 - x) + _TABLE[next_row | next_column] * x
    return (left * (1 - y) + right * y) * 2 - 1


def _cell(*numbers: Array | int) -> Array:
    """A random number in [0, 1) for each tuple of whole numbers."""
    return _TABLE[_scramble(*numbers)]


def _hue(*numbers: Array | int) -> Array:
    """A random color, linear RGB, ``(3, N)``, for each tuple of whole numbers."""
    return _HUES[:, _scramble(*numbers)]


def _scramble(*numbers: Array | int) -> npt.NDArray[np.int64]:
    key = np.zeros(1, np.int64)
    for number in numbers:
        key = (key * 7919 + np.asarray(number).astype(np.int64)) * 104729 & 0xFFFFFF
    return (key ^ key >> 8) & 0xFFFF


def develop(light: Float, lamps: Array, draw: Random, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Turn light into a picture with a camera's automatic gain, lens, tone curve and noise.

    Args:
        light: Linear RGB, ``(3, H, W)``.
        lamps: The color of all lamps together, ``(3,)``; white balance leaves a part of it, as the Kinect's does.
        draw: Draws the exposure and the faults of lens and sensor.
        rng: Draws the grains of the noise.

    Returns:
        RGB, ``uint8``, ``(H, W, 3)``.
    """
    _, height, width = light.shape
    drift = [math.exp(draw.gauss(mean, 0.07)) for mean in (0.02, -0.08, 0.1)]
    balance = (lamps.mean() / lamps) ** draw.uniform(0.4, 1.0) * drift
    focus, shake = draw.uniform(0.0003, 0.0016), draw.choice((0, 0, 0, 0.003))
    exposure = min(0.28 * math.exp(draw.gauss(0, 0.45)), 0.4)
    contrast, saturation, vignette = draw.uniform(0.25, 1.0), draw.uniform(0.45, 0.9), draw.uniform(0, 0.5)
    blur = [focus + shake * draw.random() for _ in range(2)]  # along columns and rows, by the picture's width
    noise_level = draw.uniform(0.002, 0.01)

    light = light * balance.astype(np.float32)[:, None, None]
    coarse = light[:, ::4, ::4].mean(0)
    light = light * np.float32(exposure / np.minimum(coarse, np.percentile(coarse, 90)).mean())
    for axis, deviation in zip((1, 2), blur, strict=True):
        light = _blur(light, axis, deviation * width)
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    light = light * (1 - vignette * (x * x + y * y) / 2).astype(np.float32)
    tone = np.sqrt(light * (1 + light / 2) / (1 + light)).clip(0, 1)
    tone += contrast * tone * (1 - tone) * (tone - 0.45) * 4
    gray = tone.mean(0)
    tone = gray + (tone - gray) * np.float32(saturation)
    grains = rng.standard_normal((3, height, width), np.float32)
    tone += (grains + grains[1]) * (np.float32(noise_level) * (1.6 - tone))  # stronger in the dark
    return np.ascontiguousarray((tone * 255).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def _blur(light: Float, axis: int, deviation: float) -> Float:
    """Blur along an axis by a standard deviation [px], with taps that are ever farther apart."""
    variance, step, at = deviation**2, 1, np.arange(light.shape[axis])
    while variance > 0:
        share = min(variance / step**2, 2 / 3)
        around = sum(np.take(light, (at + way).clip(0, at[-1]), axis) for way in (-step, step))
        light = light * np.float32(1 - share) + around * np.float32(share / 2)
        variance, step = variance - share * step**2, step * 2
    return light
