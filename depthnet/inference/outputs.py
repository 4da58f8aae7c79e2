"""The files of a prediction: depth as an array and as PNG, a picture, and a sidecar that states how they were made."""
# os.path answers False where pathlib raises: a name too long, a link to itself, a closed folder
# ruff: noqa: PTH113, PTH119, PTH202

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import depthnet
from depthnet.core.atomic_io import open_durable, write_json
from depthnet.core.camera import Intrinsics
from depthnet.core.images import write_depth_png, write_image_png
from depthnet.core.visualize import colorize, depth_limits, with_scale_bar

if TYPE_CHECKING:
    from depthnet.models.network import DepthNetwork

ENDINGS = ("_depth.npy", "_depth.png", "_color.png")
"""What follows a photograph's name in the names of its files."""


def describe_network(network: DepthNetwork, size: tuple[int, int], camera: Intrinsics | None) -> dict[str, Any]:
    """Return what a sidecar states about the network, for an image of this (height, width) and camera."""
    ratio = network.focal_ratio(size, camera)
    return {
        "focal_ratio": ratio,
        "depth_range": {"min": network.depth_range.min * ratio, "max": network.depth_range.max * ratio},
        "model": {"network": type(network).__name__, "encoder": network.config().get("encoder")},
        "image_size": list(network.size_for(size)),
    }


def write_outputs(
    base: str, depth: npt.NDArray[np.float32], about: Mapping[str, Any], color_range: Sequence[float] | None = None
) -> list[Path]:
    """Write the files of one photograph.

    Args:
        base: Their path without the endings.
        depth: Depth [m], shape ``(H, W)``.
        about: What the sidecar states, with the ``depth_range`` that depth is within.
        color_range: Ends of the color scale [m]; None: the picture's own.

    Returns:
        The paths of depth as an array and as PNG, of the picture, and of the sidecar.

    Raises:
        InputError: If a file cannot be written.
    """
    # outdoors, millimeters do not fit 16 bits
    scale = 10.0 ** min(3, math.floor(math.log10(65535 / about["depth_range"]["max"])))
    low, high = color_range or depth_limits(depth)
    form = {"size": list(depth.shape), "unit": "meter", "scale": scale, "color_range": [low, high]}
    sidecar = {"depthnet": depthnet.__version__, **about, **form}
    array, levels, picture = (base + ending for ending in ENDINGS)
    write_json(f"{base}.json", sidecar)
    with open_durable(array) as file:
        np.save(file, depth, allow_pickle=False)
    write_depth_png(levels, depth if scale == 1000 else depth * (scale / 1000))
    write_image_png(picture, with_scale_bar(colorize(depth, low, high), low, high))
    write_json(f"{base}.json", {**sidecar, "files": written_sizes(base)})
    return [Path(path) for path in (array, levels, picture, f"{base}.json")]


def written_sizes(base: str) -> dict[str, int | None]:
    """Return the size of each output file [bytes] by its name; None where there is none."""
    paths = [base + ending for ending in ENDINGS]
    return {os.path.basename(path): os.path.getsize(path) if os.path.isfile(path) else None for path in paths}
