"""Built-in scenes: furnished rooms made by index from a seed, rendered with exact metric depth. No files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from depthnet.core.camera import Intrinsics
from depthnet.core.types import DepthRange
from depthnet.data.layouts.layout import SPLITS, GroundTruth, Layout, Pair
from depthnet.data.rooms import textures as tx
from depthnet.data.rooms.furniture import Room
from depthnet.data.rooms.raycast import Hits, cast, illuminate, intrinsics
from depthnet.data.rooms.room import find_camera, furnish

ROOMS_CAMERA = "the rooms'"
"""Where the camera of their images is known from, in words."""


class RoomsLayout(Layout):
    """Built-in rooms as a data set. Every frame is another room; no two splits share one.

    Args:
        counts: How many frames each split has; a split that is not named has none.
        size: (height, width) of every frame [pixels].
        seed: Of everything; another seed gives other rooms.
        depth_range: Depths that count as valid [m].
        holes: Leave out depth, as 0, where a Kinect finds none; else depth is exact and whole.

    Example:
        >>> rooms = RoomsLayout({"train": 2, "val": 1}, (48, 64))
        >>> rooms.count("train"), rooms.count("test"), rooms.scene("val", 0)
        (2, 0, 'val room 000000')
        >>> image, depth = rooms.read("val", 0)
        >>> image.shape, depth.shape, bool((depth > 0.5).all())
        ((48, 64, 3), (48, 64), True)
    """

    name = "rooms"
    scene_rule = "each frame is a different room"
    camera = ROOMS_CAMERA

    def __init__(
        self,
        counts: Mapping[str, int],
        size: tuple[int, int],
        seed: int = 0,
        depth_range: DepthRange = DepthRange(1e-3, 10.0),  # noqa: B008  frozen
        holes: bool = False,
    ) -> None:
        self.description = f"built-in rooms, scene seed {seed}"
        self.depth_range = depth_range
        self.ground_truth: GroundTruth = "raw" if holes else "filled"
        self._counts, self._size, self._seed = dict(counts), (size[0], size[1]), seed

    def count(self, split: str) -> int:
        """Return the number of frames in a split; 0 for a split that was not named."""
        return self._counts.get(split, 0)

    def read(self, split: str, frame: int) -> Pair:
        """Render one pair: RGB ``uint8`` ``(H, W, 3)`` and depth along the optical axis [m] ``float32`` ``(H, W)``.

        No pixel is nearer than 0.5 m or farther than 9.9 m where the picture is as wide as NYU's or wider.
        """
        return _render((self._seed, SPLITS.index(split), frame), self._size, self.ground_truth == "raw")

    def size(self, split: str, frame: int) -> tuple[int, int]:
        """Return (height, width), the same for all frames."""
        return self._size

    def scene(self, split: str, frame: int) -> str:
        """Return the room's name."""
        return f"{split} room {frame:06d}"

    def label(self, split: str, frame: int) -> str:
        """Return a name that can be a file's."""
        return f"{split}_{frame:06d}"

    def where(self, split: str, frame: int) -> str:
        """Return what to call a frame in a message."""
        return f"rooms, {split}, frame {frame}"

    def identity(self) -> str:
        """Return a digest of seed, size and holes, and of the code that makes the frames, how many there are or not."""
        files = [path for path in sorted(Path(__file__).parent.iterdir()) if path.suffix in (".py", ".toml")]
        sources = [path.read_text(encoding="utf-8") for path in files]
        return hashlib.sha256(repr((self._size, self._seed, self.ground_truth, *sources)).encode()).hexdigest()

    def intrinsics(self, split: str, frame: int) -> Intrinsics:
        """Return the camera of a frame's image."""
        return Intrinsics(*intrinsics(self._size))


def _render(stream: tuple[int, int, int], size: tuple[int, int], holes: bool, attempt: int = 0) -> Pair:
    seeds = np.random.SeedSequence([*stream, attempt]).generate_state(4, np.uint64).tolist()
    room = Room(seeds[0])
    scene, materials = furnish(room)
    camera = find_camera(room, scene)
    if camera is None:  # too full; take another room
        return _render(stream, size, holes, attempt + 1)
    hits = cast(scene, camera, size)
    albedo, gloss, glow = tx.paint(hits, materials, seeds[1])
    falls, mirrored = illuminate(scene, hits)
    lamps = np.sum([lamp.color for lamp in room.lights], 0)
    light = albedo * (falls + glow) + mirrored * gloss
    image = tx.develop(light.reshape(3, *size), lamps, room, np.random.default_rng(seeds[2]))
    if not holes:
        return image, hits.depth
    dull = gloss * 1.5 + (albedo.mean(0) < 0.02) * 0.5 + (glow > 0) * 0.8
    return image, np.where(_holes(hits, dull, seeds[3]), np.float32(0), hits.depth)


def _holes(hits: Hits, dull: npt.NDArray[Any], seed: int) -> npt.NDArray[np.bool_]:
    """Return where a Kinect finds no depth, ``(H, W)``; ``dull``, ``(N,)``, is the chance that a surface shows nothing.

    Its infrared projector stands 7.5 cm to the right of its camera, so what is near throws a shadow to its left.
    """
    height, width = hits.depth.shape
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / width)
    shift = rng.uniform(0, 200, 2)
    ragged = tx.noise(x * 40 + shift[0], y * 40 + shift[1]) + 0.7 * tx.noise(x * 110 + shift[1], y * 110 + shift[0])
    fx = intrinsics((height, width))[0]
    projected = np.arange(width) - 0.075 * fx / hits.depth  # the column that the projector has there
    shadow = projected > np.minimum.accumulate(projected[:, ::-1], 1)[:, ::-1] + 0.5
    chance = rng.random(int(hits.part.max()) + 1)[hits.part]
    silent = (chance < dull).reshape(height, width) & (ragged > -0.4)
    slant = (hits.normal * hits.eye).sum(0).reshape(height, width)
    grazing = slant < 0.07 * (hits.depth - 2.5) * (1 + 0.6 * ragged)
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, height / width - y))
    missing: npt.NDArray[np.bool_] = shadow | silent | grazing | (edge < 0.02 + 0.012 * ragged)
    return missing
