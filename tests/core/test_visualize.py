from __future__ import annotations

import numpy as np
import pytest

from depthnet.core.visualize import (
    DEPTH_COLORS,
    ERROR_COLORS,
    MISSING,
    _ticks,
    colorize,
    depth_limits,
    error_map,
    panel,
    with_scale_bar,
)


def lab(colors: np.ndarray) -> np.ndarray:
    """CIELAB of sRGB colors, from the definition."""
    c = colors / 255.0
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    t = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def find(picture: np.ndarray, tile: np.ndarray) -> tuple[int, int]:
    """The place of a tile in a picture."""
    height, width = tile.shape[:2]
    for y in range(picture.shape[0] - height + 1):
        for x in range(picture.shape[1] - width + 1):
            if (picture[y, x : x + width] == tile[0]).all() and (picture[y : y + height, x : x + width] == tile).all():
                return y, x
    raise AssertionError("the tile is not in the picture")


def bar_levels(picture: np.ndarray) -> np.ndarray:
    """The levels of a depth bar from top to bottom, without its outline, read back from its colors."""
    colored = np.ptp(picture.astype(int), axis=2).max(axis=0)
    column = picture[:, int(np.flatnonzero(colored > 100)[3])].astype(int)
    distance = np.abs(column[:, None] - DEPTH_COLORS.astype(int)).sum(axis=2)
    inside = np.flatnonzero(distance.min(axis=1) == 0)[1:-1]
    return distance[inside].argmin(axis=1)


@pytest.mark.parametrize(("colors", "rises"), [(DEPTH_COLORS, False), (ERROR_COLORS, True)])
def test_the_color_maps_are_perceptually_uniform_and_hold_no_gray(colors: np.ndarray, rises: bool) -> None:
    lightness = lab(colors)[:, 0]
    assert (np.diff(lightness if rises else -lightness) > -0.05).all()
    assert abs(lightness[-1] - lightness[0]) > 70
    step = np.abs(np.diff(lightness[::32]))
    assert step.max() / step.min() < 1.6, step
    assert np.abs(colors.astype(int) - MISSING).max(axis=1).min() > 30


def test_colorize_is_linear_and_clamps() -> None:
    depth = np.array([[0.5, 1.0, 2.0, 3.0, 9.0]], np.float32)
    picture = colorize(depth, 1.0, 3.0)
    assert picture.dtype == np.uint8
    assert picture.shape == (1, 5, 3)
    assert (picture[0] == DEPTH_COLORS[[0, 0, 128, 255, 255]]).all()


def test_what_is_missing_is_gray_and_only_that() -> None:
    depth = np.array([[0.0, np.nan, np.inf, -1.0, 2.0, 1.5]], np.float32)
    gray = (colorize(depth, 1.0, 3.0) == MISSING).all(axis=2)[0]
    assert gray.tolist() == [True, True, True, True, False, False]
    mask = np.array([[True, True, True, True, False, True]])
    gray = (colorize(depth, 1.0, 3.0, mask) == MISSING).all(axis=2)[0]
    assert gray.tolist() == [False, True, True, False, True, False]


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (0.0, np.inf), (np.nan, 1.0)])
def test_an_impossible_scale_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="low < high"):
        colorize(np.ones((2, 2)), *ends)


@pytest.mark.parametrize("seed", range(20))
def test_depth_limits_hold_nearly_all_and_are_round(seed: int) -> None:
    rng = np.random.default_rng(seed)
    near, far = sorted(rng.uniform(0.1, 80, 2))
    depth = rng.uniform(near, far, (60, 80)).astype(np.float32)
    depth[:5] = 0
    depth[5] = np.nan
    low, high = depth_limits(depth)
    first, last = np.percentile(depth[6:], (1, 99))
    assert 0 <= low <= first * 1.0001
    assert last <= high * 1.0001
    assert high - low <= 1.6 * max(last - first, 0.2 * last)
    assert len(f"{low:g}") <= 5
    assert len(f"{high:g}") <= 5


def test_depth_limits_of_nothing_and_of_a_wall() -> None:
    assert depth_limits(np.zeros((4, 4))) == (0.0, 1.0)
    assert depth_limits(np.full((4, 4), 2.0), np.zeros((4, 4), bool)) == (0.0, 1.0)
    low, high = depth_limits(np.full((4, 4), 2.7, np.float32))
    assert low < 2.6 < 2.8 < high
    noisy = 2.7 + np.random.default_rng(0).uniform(0, 0.001, (40, 40))
    assert np.ptp(colorize(noisy, *depth_limits(noisy)).astype(int), axis=(0, 1)).max() < 10


def test_depth_limits_of_a_large_photograph_need_no_copy_of_it() -> None:
    depth = np.broadcast_to(np.linspace(1, 5, 20_000, dtype=np.float32), (10_000, 20_000))  # 800 MB, were it copied
    assert depth_limits(depth) == (1.0, 5.0)


@pytest.mark.parametrize(("low", "high"), [(0.0, 10.0), (1.0, 1.3), (0.9, 7.5), (0.0, 0.5), (2.0, 80.0), (0.001, 0.01)])
def test_ticks_are_round_inside_and_distinct(low: float, high: float) -> None:
    marks, texts = _ticks(low, high)
    assert 3 <= len(marks) <= 7
    assert all(low - 1e-9 <= mark <= high + 1e-9 for mark in marks)
    assert len(set(texts)) == len(texts)
    assert [float(text) for text in texts] == pytest.approx(marks, abs=1e-9)


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (120, 160), (480, 640)])
def test_the_bar_stands_beside_the_untouched_picture(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    barred = with_scale_bar(picture, 1.0, 5.0)
    assert (barred[: size[0], : size[1]] == picture).all()
    assert barred.shape[0] >= 96
    levels = bar_levels(barred[:, size[1] :])
    assert levels[0] > 245, "the high end is above"
    assert levels[-1] < 10
    ideal = np.linspace(levels[0], levels[-1], len(levels))
    assert np.abs(levels - ideal).max() < 4, "linear"
    assert len(levels) > 60


def test_the_bar_has_ticks_where_their_values_are() -> None:
    barred = with_scale_bar(np.full((480, 640, 3), 255, np.uint8), 0.0, 4.0)[:, 640:]
    dark = (barred < 60).all(axis=2)
    right = max(x for x in range(barred.shape[1]) if (barred[:, x] == DEPTH_COLORS[128]).all(axis=1).any())
    ticks = np.flatnonzero(dark[:, right + 3])
    assert len(ticks) == 5, "0, 1, 2, 3 and 4 m"
    for y, meters in zip(ticks[1:-1], (3, 2, 1), strict=True):
        level = int(np.abs(DEPTH_COLORS.astype(int) - barred[y, right]).sum(axis=1).argmin())
        assert level / 255 * 4 == pytest.approx(meters, abs=0.03)


def test_error_map() -> None:
    depth = np.array([[2.0, 2.0, 2.0, 0.0, 2.0]], np.float32)
    pred = np.array([[2.0, 2.5, 1.0, 1.0, np.nan]], np.float32)
    picture = error_map(pred, depth, depth > 0, high=0.5)
    assert (picture[0, [0, 1, 2, 4]] == ERROR_COLORS[[0, 128, 255, 255]]).all()
    assert tuple(picture[0, 3]) == MISSING


def pair(size: tuple[int, int] = (240, 320)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    depth = np.linspace(1, 5, size[0] * size[1], dtype=np.float32).reshape(size)
    mask = np.ones(size, bool)
    mask[20:40, 30:90] = False
    return image, np.where(mask, depth, 0), mask


def test_ground_truth_and_prediction_share_one_scale() -> None:
    image, depth, mask = pair()
    pred = np.where(depth > 0, depth * 1.3, 1.0).astype(np.float32)
    low, high = depth_limits(depth, mask)
    picture = panel(image, depth, mask, pred, "val/0001")
    tiles = [image, colorize(depth, low, high, mask), colorize(pred, low, high), error_map(pred, depth, mask)]
    places = [find(picture, tile) for tile in tiles]
    assert len({y for y, _ in places}) == 1
    assert [x for _, x in places] == sorted(x for _, x in places)
    bar = with_scale_bar(tiles[2], low, high)[:, 320:]
    assert find(picture, bar)[1] == places[2][1] + 320, "its bar stands beside the prediction"
    assert find(picture, with_scale_bar(tiles[3], 0, 0.5, "", ERROR_COLORS)[:, 320:])[1] == places[3][1] + 320


def test_a_perfect_prediction_has_no_error_and_missing_depth_is_gray() -> None:
    image, depth, mask = pair()
    picture = panel(image, depth, mask, np.where(mask, depth, 3.0), "x")
    expected = np.where(mask[..., None], ERROR_COLORS[0], np.array(MISSING)).astype(np.uint8)
    find(picture, expected)


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (60, 80), (1200, 1600)])
def test_any_size_gives_a_readable_panel(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 4, size).astype(np.float32)
    picture = panel(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8), depth, depth > 0, depth[: 1 + size[0] // 2], "t")
    assert picture.dtype == np.uint8
    assert 150 <= picture.shape[0] <= 480
    assert 400 <= picture.shape[1] <= 2400


def test_nothing_valid_and_a_ruined_prediction_are_drawn_too() -> None:
    image, depth, _ = pair((60, 80))
    empty = np.zeros_like(depth, dtype=bool)
    assert panel(image, depth, empty, depth + 1, "empty").shape[2] == 3
    assert panel(image, depth, depth > 0, np.full_like(depth, np.nan), "nan").shape[2] == 3
    assert panel(image, depth, empty, np.full_like(depth, np.nan)).shape[2] == 3


@pytest.mark.parametrize("label", ["", "É日本\n\x00 [bold]x[/]", "x" * 5000])
def test_any_label(label: str) -> None:
    image, depth, mask = pair()
    assert panel(image, depth, mask, depth, label).shape[1] < 3000
