"""Pictures and depth maps for tests: smooth, random, each number another."""

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Return a smooth random RGB image."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


def millimetres(seed: int, size: tuple[int, int], holes: bool = False) -> np.ndarray:
    """Return a smooth depth map in millimetres, uint16, of planes: 1 / depth is linear between a few points."""
    rng = np.random.default_rng(seed)
    small = rng.uniform(1000, 6000, (4, 5)).astype(np.float32)
    depth = (1 / np.array(Image.fromarray(1 / small).resize(size[::-1], Image.Resampling.BILINEAR))).astype(np.uint16)
    if holes:
        depth[: size[0] // 8] = 0
    return depth
