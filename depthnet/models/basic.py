"""The plain convolutional encoder-decoder that the authors of the published project began with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from depthnet.core.types import ImageSize, InputError, RangeLike
from depthnet.models.network import Camera, DepthHead, DepthNetwork, Geometry


class BasicNet(DepthNetwork):
    """Convolutions down and up again, without skips.

    Each level has two 3x3 convolutions, each with LeakyReLU 0.2 and batch normalization; max pooling between levels on
    the way down, bilinear upsampling on the way up.

    Args:
        depth_range: The depths that it can predict [m]: a DepthRange, (min, max) or {"min": ..., "max": ...}.
        image_size, geometry, camera: As :class:`depthnet.models.network.DepthNetwork`.
        widths: Channels of the levels, fine to coarse.
        head: ``sigmoid`` (linear in depth) or ``log``, as :class:`depthnet.models.network.DepthHead`.
        mean: Mean of the images in [0, 1] for R, G, B; 0 by default, as published.
        std: Their standard deviation; 1 by default, as published.

    Raises:
        InputError: If a value is impossible, or an image would have less than one pixel at the coarsest level.

    Example:
        >>> import torch
        >>> net = BasicNet((1e-3, 10.0), image_size=(24, 32), widths=(4, 8))
        >>> net(torch.zeros(1, 3, 25, 33, dtype=torch.uint8)).shape
        torch.Size([1, 1, 25, 33])
    """

    encoder: nn.ModuleList

    def __init__(
        self,
        depth_range: RangeLike,
        image_size: ImageSize,
        widths: Sequence[int] = (32, 64, 128, 256, 512),
        head: Literal["sigmoid", "log"] = "sigmoid",
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        geometry: Geometry = "keep_aspect",
        camera: Camera = None,
    ) -> None:
        super().__init__(depth_range, image_size, geometry, camera)
        self.set_normalization(mean, std)
        if not widths or min(widths) < 1:
            raise InputError(f"model.widths={list(widths)}: give positive widths, fine to coarse")
        self.own_config = {"widths": list(widths)}
        self.encoder = nn.ModuleList(_block(a, b) for a, b in itertools.pairwise([3, *widths]))
        self.require_size()
        self.decoder = nn.ModuleList(_block(a, b) for a, b in itertools.pairwise(widths[::-1]))
        self.head = DepthHead(widths[0], self.depth_range, head)

    def takes(self, size: tuple[int, int]) -> bool:
        """Return whether images of this (height, width) have a pixel at the coarsest level."""
        return min(size) >> (len(self.encoder) - 1) > 0

    def features(self, image: Tensor) -> Tensor:
        """Return the finest level's result, from a normalized image of shape ``(B, 3, H, W)``."""
        sizes = []
        for level, block in enumerate(self.encoder):
            image = block(F.max_pool2d(image, 2) if level else image)
            sizes.append(image.shape[-2:])
        for block, size in zip(self.decoder, sizes[-2::-1], strict=True):
            image = block(F.interpolate(image, size, mode="bilinear", align_corners=False))
        return image


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [
            nn.Conv2d(channels, out_channels, kernel_size=3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.BatchNorm2d(out_channels),
        ]
    return nn.Sequential(*layers)
