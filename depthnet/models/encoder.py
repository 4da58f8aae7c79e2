"""Any timm network that gives a feature pyramid, behind one interface.

timm takes seconds to import, so it is imported where it is needed and not with this module.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthnet.core.types import InputError, reason_of
from depthnet.models.encoder_weights import cached_weights, choose_weights, read_header

Size = tuple[int, int]
Pad = Literal["default", "same"]

_ODD = (235, 311)  # halved with rounding up or down, it differs at every level: what takes it takes any larger size


class Encoder(nn.Module):
    """A timm network without its classifier; gives features from fine to coarse.

    Inputs whose size the network cannot take are padded at the right and the bottom (by repeating the border), and the
    features are cropped again. A feature at the input's own size, which VGG and a few others give, is left out.

    Args:
        name: timm's name of the network, with or without the tag of its weights.
        pretrained: As :func:`depthnet.models.encoder_weights.choose_weights`.
        pad: ``default``: the network's own padding. ``same``: each level is exactly half the one before, rounded up. A
            weights file that states its padding overrides this.
        mean: Mean of the images that the weights expect, in [0, 1]; that of timm's configuration by default.
        std: Their standard deviation, likewise.

    Attributes:
        pad, mean, std: Those in use.
        channels: Channels of each feature, fine to coarse.
        reductions: Nominal stride of each feature, fine to coarse.

    Raises:
        InputError: If the network is unknown, gives no pyramid or takes images of one size only, or the weights are not
            available or do not fit.

    Example:
        >>> encoder = Encoder("test_resnet")
        >>> [tuple(feature.shape) for feature in encoder(torch.zeros(1, 3, 61, 97))][-2:]
        [(1, 192, 4, 7), (1, 96, 2, 4)]
    """

    def __init__(
        self,
        name: str,
        pretrained: bool | str = False,
        pad: Pad = "default",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if pad not in ("default", "same"):
            raise InputError(f"model.encoder_pad={pad}: choose default or same")
        weights, _ = choose_weights(name, pretrained)
        stated = read_header(name, weights) if isinstance(weights, str) else {}
        self.name = name
        self.pad: Pad = stated.get("pad", pad)
        self._known: dict[Size, bool] = {}

        self.net = _create(name, weights, self.pad)
        config, reductions = self.net.pretrained_cfg, self.net.feature_info.reduction()
        if len(reductions) < 3 or any(fine >= coarse for fine, coarse in itertools.pairwise(reductions)):
            near = "choose one that does, such as resnet50, convnext_tiny or swinv2_tiny_window8_256"
            raise InputError(f"model.encoder={name} gives no feature pyramid (strides {reductions}); {near}")
        kept = slice(sum(reduction < 2 for reduction in reductions), None)
        self.reductions: tuple[int, ...] = tuple(reductions[kept])
        self.channels: tuple[int, ...] = tuple(self.net.feature_info.channels()[kept])
        self.mean: tuple[float, ...] = tuple(mean or stated.get("mean") or config["mean"])
        self.std: tuple[float, ...] = tuple(std or stated.get("std") or config["std"])

        fine, coarse = self.reductions[0], self.reductions[-1]
        for self._multiple in (1, fine, coarse, 2 * coarse, 4 * coarse, 8 * coarse):
            if self._gives_pyramid(_ODD):
                break
        else:
            raise InputError(f"model.encoder={name} does not take images of any size with encoder_pad={self.pad}")

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features.

        Args:
            image: Already normalized, shape ``(B, 3, H, W)``.

        Returns:
            From fine to coarse, shapes ``(B, channels[i], h, w)``.
        """
        height, width = image.shape[-2:]
        padded = self._padded((height, width))
        if padded == (height, width):
            return self._pyramid(self.net(image))
        image = F.pad(image, (0, padded[1] - width, 0, padded[0] - height), mode="replicate")
        return [
            feature[..., : math.ceil(height / reduction), : math.ceil(width / reduction)]
            for feature, reduction in zip(self._pyramid(self.net(image)), self.reductions, strict=True)
        ]

    def takes(self, size: Size) -> bool:
        """Return whether images of this (height, width) give all features."""
        if size not in self._known:  # finding out takes as long as predicting
            self._known[size] = (size[0] >= _ODD[0] and size[1] >= _ODD[1]) or self._gives_pyramid(size)
        return self._known[size]

    def _padded(self, size: Size) -> Size:
        height, width = (math.ceil(side / self._multiple) * self._multiple for side in size)
        return height, width

    def _pyramid(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the features from the finest level of :attr:`channels` on, channels first."""
        features = outputs[-len(self.channels) :]
        if str(getattr(self.net, "output_fmt", "")).endswith("NHWC"):
            return [feature.permute(0, 3, 1, 2) for feature in features]
        return list(features)

    def _gives_pyramid(self, size: Size) -> bool:
        """Return whether images of this size give the promised features, without computing or allocating any."""
        if min(size) < self.reductions[-1]:
            return False
        size = self._padded(size)
        state = itertools.chain(self.net.named_parameters(), self.net.named_buffers())
        on_meta = {name: tensor.to("meta") for name, tensor in state}
        training = self.net.training
        self.net.eval()
        try:
            with torch.no_grad():
                image = torch.empty((1, 3, *size), device="meta")
                # tie_weights=True would leave modules that the network holds twice on the meta device
                outputs = torch.func.functional_call(self.net, on_meta, (image,), tie_weights=False)
        except (RuntimeError, AssertionError, ValueError):
            return False
        finally:
            self.net.train(training)
        shapes = [tuple(feature.shape[1:]) for feature in self._pyramid(outputs)]
        if tuple(channels for channels, _, _ in shapes) != self.channels or min(shapes[-1]) < 1:
            return False
        if self.pad == "same":
            halved = [tuple(math.ceil(side / reduction) for side in size) for reduction in self.reductions]
            return [shape[1:] for shape in shapes] == halved
        return all(fine[1] > coarse[1] and fine[2] > coarse[2] for fine, coarse in itertools.pairwise(shapes))


def _create(name: str, weights: bool | str, pad: Pad) -> Any:
    """Build timm's network; raise InputError if it cannot be built, or its weights cannot be loaded."""
    import timm

    logging.getLogger("timm").setLevel(logging.ERROR)  # it reports which weights it loads and leaves out
    config = timm.get_pretrained_cfg(name)
    file = weights if isinstance(weights, str) else weights and cached_weights(config.hf_hub_id)
    wanted: dict[str, Any] = {"strict_img_size": False} if config.fixed_input_size else {}
    wanted |= {"pad_type": "same"} if pad == "same" else {}
    while True:
        try:
            net = timm.create_model(
                name,
                pretrained=bool(weights),
                features_only=True,
                pretrained_cfg_overlay={"file": file} if file else None,
                **wanted,
            )
            break
        except Exception as error:  # timm, torch, safetensors and the hub have no common error
            refused = next((key for key in wanted if f"'{key}'" in str(error)), None)
            if not isinstance(error, TypeError) or refused is None:
                raise InputError(f"model.encoder={name}, model.pretrained={weights}: {reason_of(error)}") from error
            del wanted[refused]
    if pad == "same" and "pad_type" not in wanted:
        _pad_windows(net)
    return net


def _pad_windows(net: nn.Module) -> None:
    """Give every convolution and pooling whose windows overlap and that pads nothing the padding of half its kernel."""
    for module in net.modules():
        if type(module) not in (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d):  # subclasses pad by themselves
            continue
        kernel, stride, padding = (_pair(getattr(module, key)) for key in ("kernel_size", "stride", "padding"))
        if padding == (0, 0) and (kernel[0] > stride[0] or kernel[1] > stride[1]):
            module.padding = (kernel[0] // 2, kernel[1] // 2)  # type: ignore[assignment]
            module.count_include_pad = False  # type: ignore[assignment]  # read by average pooling only


def _pair(value: Any) -> Size:
    return (value, value) if isinstance(value, int) else tuple(value)
