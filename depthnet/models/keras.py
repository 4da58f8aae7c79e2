"""The final network of the published Keras project, layer for layer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthnet.core.types import ImageSize, InputError, RangeLike
from depthnet.models.encoder import Encoder
from depthnet.models.network import Camera, DepthHead, DepthNetwork, Geometry

_ENCODER = "inception_resnet_v2"
_TAPS = ("conv2d_1a", "conv2d_3b", "mixed_7a")  # beside the one inside mixed_6a
_CHANNELS = (3, 32, 80, 256, 288)  # of the taps, fine to coarse
_WIDTHS = (256, 128, 64, 32)  # of the decoder, coarse to fine
_SIZE = (240, 320)  # what it was published for
_SMALLEST = 43  # leaves one pixel at the coarsest tap


class KerasNet(DepthNetwork):
    """Inception-ResNet-v2, cut inside ``mixed_7a``, with a U-Net decoder and without attention.

    The taps are the image (3 channels), ``conv2d_1a`` (32), ``conv2d_3b`` (80), ``mixed_6a.branch1[1]`` (256) and, as
    the bottleneck, ``mixed_7a.branch2[1]`` (288, stride 16), all after their ReLU, so that the published LeakyReLU on
    the bottleneck changes nothing. The encoder pads nothing; at 240x320 the taps are padded with zeros to the image's
    halves, as published, and at any other size the decoder resizes to the measured size of each skip.

    Keras' defaults hold in the decoder: Glorot's uniform weights, zero biases, normalization with epsilon 1e-3 and
    momentum 0.99 (torch's 0.01). What differs: timm's normalization in the encoder has gains, 18,592 in all, where
    Keras' has none, and momentum 0.1; images are normalized as the ImageNet weights expect, where the project left them
    in [0, 1]; and the sigmoid spans the depth range, where theirs spanned each map's own minimum and maximum.

    Args:
        encoder: ``inception_resnet_v2``, with or without the tag of timm's weights.
        pretrained: Its weights, as :func:`depthnet.models.encoder_weights.choose_weights`.
        depth_range: The depths that it can predict [m]: a DepthRange, (min, max) or {"min": ..., "max": ...}.
        image_size, geometry, camera: As :class:`depthnet.models.network.DepthNetwork`.
        head: ``sigmoid`` (linear in depth, as published) or ``log``, as :class:`depthnet.models.network.DepthHead`.
        mean: Mean of the images in [0, 1] for R, G, B; the weights' own by default, which is 0.5.
        std: Their standard deviation; the weights' own by default, which is 0.5.

    Raises:
        InputError: If a value is impossible, the weights are not available, or ``image_size`` is too small.

    Source:
        Das, Das and Sadaf, "Enhanced Encoder-Decoder Architecture for Accurate Monocular Depth Estimation", 2024,
        and its notebook, which prints 31,120,161 trainable parameters.

    Example:
        >>> net = KerasNet(depth_range=(1e-3, 10.0), image_size=(48, 64)).eval()
        >>> net(torch.zeros(1, 3, 49, 65, dtype=torch.uint8)).shape
        torch.Size([1, 1, 49, 65])
    """

    encoder: _CutEncoder

    def __init__(
        self,
        encoder: str = _ENCODER,
        pretrained: bool | str = False,
        *,
        depth_range: RangeLike,
        image_size: ImageSize,
        head: Literal["sigmoid", "log"] = "sigmoid",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        geometry: Geometry = "keep_aspect",
        camera: Camera = None,
    ) -> None:
        super().__init__(depth_range, image_size, geometry, camera)
        if encoder.partition(".")[0] != _ENCODER:
            raise InputError(f"model.encoder={encoder}: the published network has {_ENCODER}; for others: unet_attn")
        self.require_size()
        whole = Encoder(encoder, pretrained, mean=mean, std=std)
        if whole.pad != "default":
            raise InputError(f"model.pretrained={pretrained} is for padded convolutions; the published ones are not")
        self.set_normalization(whole.mean, whole.std)
        self.own_config = {"encoder": encoder, "pretrained": False}
        self.encoder = _CutEncoder(whole.net)
        coarse = (_CHANNELS[-1], *_WIDTHS)
        self.decoder = nn.ModuleList(map(_UpBlock, coarse, _CHANNELS[-2::-1], _WIDTHS))
        self.head = DepthHead(_WIDTHS[-1], self.depth_range, head, kernel_size=3)

    def features(self, image: Tensor) -> Tensor:
        """Return the decoder's result at the image's size, from a normalized image of shape ``(B, 3, H, W)``."""
        taps = self.encoder(image)
        if image.shape[-2:] == _SIZE:
            taps = [_pad(tap, _SIZE[0] >> level, _SIZE[1] >> level) for level, tap in enumerate(taps)]
        merged = F.leaky_relu(taps[-1], 0.2)
        for block, skip in zip(self.decoder, taps[-2::-1], strict=True):
            merged = block(merged, skip)
        return merged

    def takes(self, size: tuple[int, int]) -> bool:
        """Return whether images of this (height, width) are large enough for the network."""
        return min(size) >= _SMALLEST


class _CutEncoder(nn.Module):
    """The part of timm's network that leads to the taps, under the names that :class:`Encoder` gives its tensors."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        names = list(dict(whole.named_children()))
        self.net: Any = nn.ModuleDict({name: whole[name] for name in names[: names.index("mixed_7a")]})
        self.net["mixed_7a"] = nn.Sequential(OrderedDict(branch2=whole["mixed_7a"].branch2[:2]))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the taps, fine to coarse: the image, and four features of 32, 80, 256 and 288 channels."""
        taps = [image]
        for name, module in self.net.items():
            if name == "mixed_6a":  # its tap is what the second branch has before its stride
                first, second, strided = module.branch1
                taps.append(second(first(image)))
                image = torch.cat((module.branch0(image), strided(taps[-1]), module.branch2(image)), dim=1)
            else:
                image = module(image)
                if name in _TAPS:
                    taps.append(image)
        return taps


class _UpBlock(nn.Module):
    """Upsamples the coarser feature to a skip, and merges the two by convolutions."""

    def __init__(self, coarse_channels: int, skip_channels: int, width: int) -> None:
        super().__init__()
        self.up = nn.Sequential(*_conv(coarse_channels, width))
        self.merge = nn.Sequential(
            *_conv(width + skip_channels, width),
            nn.BatchNorm2d(width, eps=1e-3, momentum=0.01),
            *_conv(width, width),
            nn.BatchNorm2d(width, eps=1e-3, momentum=0.01),
        )

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        coarse = F.interpolate(coarse, skip.shape[-2:], mode="bilinear", align_corners=False)
        merged: Tensor = self.merge(torch.cat((self.up(coarse), skip), dim=1))
        return merged


def _conv(in_channels: int, out_channels: int) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
    nn.init.xavier_uniform_(convolution.weight)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return convolution, nn.LeakyReLU(0.2, inplace=True)


def _pad(tap: Tensor, height: int, width: int) -> Tensor:
    """Pad with zeros on all sides; an odd row goes to the top, an odd column to the left."""
    rows, columns = height - tap.shape[-2], width - tap.shape[-1]
    return F.pad(tap, (columns - columns // 2, columns // 2, rows - rows // 2, rows // 2))
