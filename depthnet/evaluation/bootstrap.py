"""Intervals by bootstrap over scenes: frames of a scene are not independent, so whole scenes are drawn.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile interval); Davison and
Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8 (drawing whole clusters).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
DRAWS = 5000


class Interval(NamedTuple):
    """The ends of an interval."""

    low: float
    high: float


def bootstrap(
    values: npt.ArrayLike, scenes: Sequence[str], level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> list[Interval]:
    """Return an interval for the mean of each column of values, over the images that have a value there.

    Args:
        values: One row per image, float64, shape ``(N, C)``: metrics, or differences of two networks' metrics; NaN
            where an image has none.
        scenes: The scene of each image.
        level: The share of draws inside, two-sided.
        draws: How often scenes are drawn with replacement, each time as many as there are.
        seed: Of the draws; the same for all columns, so that they may be compared.

    Returns:
        An interval for each column; its ends are NaN where there is no image or only one scene, and where a value of
        the column is infinite.

    Raises:
        ValueError: If there is not one scene per image.

    Example:
        >>> bootstrap([[0.0], [0.0], [1.0], [1.0]], ["a", "a", "b", "b"])
        [Interval(low=0.0, high=1.0)]
        >>> bootstrap([[0.5], [0.7]], ["a", "a"])
        [Interval(low=nan, high=nan)]
    """
    table = np.asarray(values, np.float64)
    if len(scenes) != len(table):
        raise ValueError(f"{len(scenes)} scenes for {len(table)} images; each image needs its own")
    held, usable = ~np.isnan(table), ~np.isinf(table).any(axis=0)
    ends = np.full((table.shape[1], 2), np.nan)
    for images in np.unique(held.T[usable], axis=0):  # columns of the same images are drawn together
        columns = np.flatnonzero(usable & (images == held.T).all(axis=1))
        names, place = np.unique(np.asarray(scenes, np.str_)[images], return_inverse=True)
        if len(names) > 1:
            sums = np.zeros((len(names), len(columns)))
            np.add.at(sums, place, table[np.ix_(images, columns)])
            weights = _weights(len(names), draws, seed)
            means = (weights @ sums) / (weights @ np.bincount(place))[:, None]
            ends[columns] = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0).T
    return [Interval(*row) for row in ends.tolist()]


@lru_cache(maxsize=1)  # protocols and networks that are compared have the same scenes
def _weights(count: int, draws: int, seed: int) -> npt.NDArray[np.float64]:
    """How often each of ``count`` scenes is in each draw."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)
