"""From a feature pyramid to one feature at its finest size, by gated skips."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthnet.core.types import InputError
from depthnet.models.attention import AttentionGate
from depthnet.models.decoders.decoder import Decoder


class UNetDecoder(Decoder):
    """A U-Net decoder: from the coarsest feature up, each level is resized to its skip and merged with it.

    It takes features of any size and stride: every resize goes to the skip's measured size. Two things keep it cheap.
    A 1x1 convolution takes a skip to half the level's width before the gate, which commutes with it, being one weight
    for a pixel. And only the coarser levels have a second convolution; at the finest one costs as much as all the rest.

    Args:
        encoder_channels: Channels of the features, fine to coarse.
        widths: Channels of the decoder's levels, coarse to fine. Where there are more widths than features, the first
            ones are used, so that a width stays with its stride.
        attention: Whether a gate weighs the pixels of each skip.
        context: Whether the coarsest feature is seen together with its means over the whole image and over 2x2, 3x3
            and 6x6 parts of it (pyramid pooling).

    Attributes:
        channels: Channels of the result.

    Raises:
        InputError: If there are fewer widths than features, or a width is not positive.

    Example:
        >>> decoder = UNetDecoder((8, 16, 32), widths=(24, 16, 8))
        >>> decoder([torch.zeros(1, 8, 31, 41), torch.zeros(1, 16, 15, 20), torch.zeros(1, 32, 7, 10)]).shape
        torch.Size([1, 8, 31, 41])
    """

    takes = frozenset({"attention", "context"})

    def __init__(
        self, encoder_channels: Sequence[int], widths: Sequence[int], attention: bool = True, context: bool = False
    ) -> None:
        super().__init__()
        if len(widths) < len(encoder_channels) or min(widths) < 1:
            levels = f"the encoder has {len(encoder_channels)} levels"
            raise InputError(f"model.decoder_widths={list(widths)}: {levels}; give a positive width for each")
        widths = list(widths)[: len(encoder_channels)]
        skips = list(encoder_channels)[-2::-1]
        self.channels = widths[-1]
        bottleneck: Callable[[int, int], nn.Module]
        bottleneck = _PyramidPooling if context else functools.partial(_conv_norm_act, kernel_size=1)
        self.bottleneck = bottleneck(encoder_channels[-1], widths[0])
        self.merges = nn.ModuleList(
            _Merge(coarse, skip, width, convolutions=1 if level == len(skips) else 2, attention=attention)
            for level, (coarse, skip, width) in enumerate(zip(widths, skips, widths[1:], strict=False), start=1)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Merge the features; see :meth:`Decoder.forward`."""
        merged: Tensor = self.bottleneck(features[-1])
        for merge, skip in zip(self.merges, features[-2::-1], strict=True):
            merged = merge(merged, skip)
        return merged


class _PartMeans(nn.Module):
    """What ``nn.AdaptiveAvgPool2d`` computes; its gradient on a GPU is refused where ``trainer.deterministic=true``."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, feature: Tensor) -> Tensor:
        identities = (torch.eye(length, device=feature.device) for length in feature.shape[-2:])
        rows, columns = (F.adaptive_avg_pool1d(each, self.parts).to(feature.dtype) for each in identities)
        return torch.einsum("bchw,hp,wq->bcpq", feature, rows, columns)


class _PyramidPooling(nn.Module):
    """Joins a feature with its means over parts of the image: Zhao et al., "Pyramid Scene Parsing Network", 2017."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        share = max(1, out_channels // 4)
        # no normalization: of the mean over the whole image, a batch of one has a single value for each channel
        self.parts = nn.ModuleList(
            nn.Sequential(_PartMeans(parts), nn.Conv2d(in_channels, share, 1), nn.ReLU(inplace=True))
            for parts in (1, 2, 3, 6)
        )
        self.reduce = _conv_norm_act(in_channels, out_channels, kernel_size=1)
        self.fuse = _conv_norm_act(out_channels + 4 * share, out_channels, kernel_size=3)

    def forward(self, feature: Tensor) -> Tensor:
        size = feature.shape[-2:]
        means = (F.interpolate(part(feature), size, mode="bilinear", align_corners=False) for part in self.parts)
        joined: Tensor = self.fuse(torch.cat((self.reduce(feature), *means), dim=1))
        return joined


class _Merge(nn.Module):
    """Resizes the coarser feature to a skip, gates the skip by it, and merges the two."""

    def __init__(
        self, coarse_channels: int, skip_channels: int, width: int, convolutions: int, attention: bool
    ) -> None:
        super().__init__()
        skip_width = min(skip_channels, max(1, width // 2))
        coarse_width = min(coarse_channels, width)
        self.reduce_skip = _reduce(skip_channels, skip_width)
        self.reduce_coarse = _reduce(coarse_channels, coarse_width)
        self.gate = AttentionGate(skip_width, coarse_channels) if attention else None
        self.fuse = nn.Sequential(
            _conv_norm_act(coarse_width + skip_width, width, kernel_size=3),
            *(_conv_norm_act(width, width, kernel_size=3) for _ in range(convolutions - 1)),
        )

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        skip = self.reduce_skip(skip)
        if self.gate is not None:
            skip, _ = self.gate(skip, coarse)
        coarse = F.interpolate(self.reduce_coarse(coarse), skip.shape[-2:], mode="bilinear", align_corners=False)
        merged: Tensor = self.fuse(torch.cat((coarse, skip), dim=1))
        return merged


def _reduce(channels: int, width: int) -> nn.Module:
    return nn.Conv2d(channels, width, kernel_size=1, bias=False) if channels > width else nn.Identity()


def _conv_norm_act(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
