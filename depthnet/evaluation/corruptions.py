"""What can be wrong with a photograph: darkness, glare, haze, blur, noise and compression, at one stated strength each.

A corruption changes the photograph alone, at its full size; the ground truth stays. Light is changed in linear light,
as an exposure would. Source: the kinds are those of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness
to Common Corruptions and Perturbations", ICLR 2019; the strengths are ours and stated here.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from depthnet.core.types import InputError

UInt8Array = npt.NDArray[np.uint8]

STRENGTHS = {
    "dark": "a quarter of the light (two stops)",
    "bright": "two and a half times the light, clipped",
    "contrast": "contrast of 40 % about the mean",
    "blur": "Gaussian, sigma 0.6 % of the height",
    "noise": "Gaussian, sigma 8 % of white",
    "jpeg": "JPEG of quality 10",
}
"""How strong each corruption is, in words."""


def _rounded(levels: npt.NDArray[np.float64]) -> UInt8Array:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _exposed(image: UInt8Array, _: int, factor: float) -> UInt8Array:
    levels = np.arange(256) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)  # sRGB, IEC 61966-2-1
    lit = np.clip(linear * factor, 0, 1)
    return _rounded(np.where(lit <= 0.0031308, lit * 12.92, 1.055 * lit ** (1 / 2.4) - 0.055) * 255)[image]


def _contrast(image: UInt8Array, _: int) -> UInt8Array:
    mean = image.mean(dtype=np.float64)
    return _rounded(mean + 0.4 * (np.arange(256) - mean))[image]


def _blur(image: UInt8Array, _: int) -> UInt8Array:
    return np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.006 * image.shape[0])))


def _noise(image: UInt8Array, seed: int) -> UInt8Array:
    return _rounded(image + np.random.default_rng(seed).normal(0, 0.08 * 255, image.shape))


def _jpeg(image: UInt8Array, _: int) -> UInt8Array:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=10)
    return np.array(Image.open(buffer))


CORRUPTIONS: dict[str, Callable[[UInt8Array, int], UInt8Array]] = {
    "dark": partial(_exposed, factor=0.25),
    "bright": partial(_exposed, factor=2.5),
    "contrast": _contrast,
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
}
"""Every corruption by name: makes another photograph of one, RGB, ``uint8``, ``(H, W, 3)``, and the seed of noise."""


def find_corruption(name: str) -> Callable[[UInt8Array, int], UInt8Array]:
    """Return a corruption by its name.

    Raises:
        InputError: If there is no such corruption.
    """
    if name not in CORRUPTIONS:
        raise InputError(f"--corrupt {name}: it is one of {', '.join(CORRUPTIONS)}")
    return CORRUPTIONS[name]
