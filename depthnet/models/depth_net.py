"""DepthNet: any encoder, gated skips, depth in meters; and the list of all networks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from depthnet.core.types import ImageSize, InputError, RangeLike, reason_of
from depthnet.models.basic import BasicNet
from depthnet.models.checkpoint import read_checkpoint
from depthnet.models.decoders.registry import build_decoder
from depthnet.models.encoder import Encoder
from depthnet.models.keras import KerasNet
from depthnet.models.network import Camera, DepthHead, DepthNetwork, Geometry


class DepthNet(DepthNetwork):
    """An encoder and a decoder; by default a U-Net decoder whose skips are weighed by additive attention gates.

    Args:
        encoder: timm's name of a network that gives a feature pyramid.
        pretrained: The encoder's weights, as :func:`depthnet.models.encoder_weights.choose_weights`.
        encoder_pad: ``default`` or ``same``, as :class:`depthnet.models.encoder.Encoder`.
        decoder_widths: Channels of the decoder's levels, coarse to fine; an encoder with fewer levels uses the first.
        attention: Whether skips are gated; None: where the decoder has gates.
        context: Whether the decoder begins with pyramid pooling.
        frozen_norm: Whether the encoder's normalization keeps its weights' statistics in training, which small batches
            would ruin; its gains and offsets are trained.
        decoder: A key of :data:`depthnet.models.decoders.registry.DECODERS`.
        depth_range: The depths that it can predict [m]: a DepthRange, (min, max) or {"min": ..., "max": ...}.
        image_size, geometry, camera: As :class:`depthnet.models.network.DepthNetwork`.
        head: ``sigmoid`` (linear in depth) or ``log``, as :class:`depthnet.models.network.DepthHead`.
        mean: Mean of the images in [0, 1] for R, G, B; the encoder's own by default.
        std: Their standard deviation; the encoder's own by default.

    Raises:
        InputError: If a value is impossible, or the encoder's weights are not available.

    Example:
        >>> net = DepthNet("test_resnet", depth_range=(1e-3, 10.0), image_size=(60, 80))
        >>> net(torch.zeros(1, 3, 61, 83, dtype=torch.uint8)).shape
        torch.Size([1, 1, 61, 83])
    """

    encoder: Encoder

    def __init__(
        self,
        encoder: str = "inception_resnet_v2",
        pretrained: bool | str = False,
        encoder_pad: Literal["default", "same"] = "default",
        decoder_widths: Sequence[int] = (256, 192, 128, 64, 32),
        attention: Annotated[bool | None, "true or false"] = None,
        context: bool = False,
        frozen_norm: bool = False,
        decoder: str = "unet",
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
        self.encoder = Encoder(encoder, pretrained, encoder_pad, mean, std)
        self.require_size()
        self.set_normalization(self.encoder.mean, self.encoder.std)
        self.decoder, gated = build_decoder(decoder, self.encoder.channels, decoder_widths, attention, context)
        self.head = DepthHead(self.decoder.channels, self.depth_range, head)
        self.frozen_norm = frozen_norm
        self.own_config = {
            "encoder": encoder,
            "pretrained": False,
            "encoder_pad": self.encoder.pad,
            "decoder_widths": list(decoder_widths),
            "attention": gated,
            "context": context,
            "frozen_norm": frozen_norm,
        } | ({} if decoder == "unet" else {"decoder": decoder})  # older records name none
        self.train()  # Lightning keeps the modes that it finds

    def train(self, mode: bool = True) -> DepthNet:
        """Switch between training and evaluation; frozen normalization stays in evaluation."""
        super().train(mode)
        if self.frozen_norm:
            for module in self.encoder.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def takes(self, size: tuple[int, int]) -> bool:
        """Return whether images of this (height, width) are large enough for the encoder."""
        return self.encoder.takes(size)

    def features(self, image: Tensor) -> Tensor:
        """Return the decoder's result, from a normalized image of shape ``(B, 3, H, W)``."""
        merged: Tensor = self.decoder(self.encoder(image))
        return merged


NETWORKS: dict[str, type[DepthNetwork]] = {"DepthNet": DepthNet, "BasicNet": BasicNet, "KerasNet": KerasNet}
"""The networks that a checkpoint may name."""


def build_network(name: str, config: Mapping[str, Any]) -> DepthNetwork:
    """Build a network from what a checkpoint states about it, its ``config()``.

    Args:
        name: A key of :data:`NETWORKS`.
        config: Constructor arguments.

    Raises:
        InputError: If there is no such network, or it does not take the arguments.
    """
    if name not in NETWORKS:
        raise InputError(f"network {name!r} is none of ours; known: {', '.join(NETWORKS)}")
    if "pretrained" in config:
        config = {**config, "pretrained": False}  # the weights are in the file
    try:
        return NETWORKS[name](**config)
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"network {name} cannot be built from these arguments: {reason_of(error)}") from error


def load_network(
    path: str | os.PathLike[str], device: str | torch.device = "cpu", size: Sequence[int] | None = None
) -> DepthNetwork:
    """Load the network of a checkpoint file, in evaluation mode; no code of the file is run.

    Args:
        path: A file that a run of this project wrote, or the name of a model that ships with the package.
        device: Where the network goes.
        size: (height, width) [px] to resize images to, instead of the training size. Depth stays right if the training
            camera is known.

    Returns:
        The network; ``infer(image)`` takes ``uint8`` RGB ``(H, W, 3)`` and gives meters ``(H, W)``.

    Raises:
        InputError: If the file cannot be read, is not ours, its tensors do not fit its own record, or ``size`` is not
            one that the network takes.
    """
    checkpoint = read_checkpoint(path)
    config = {**checkpoint.config, **({} if size is None else {"image_size": list(size)})}
    with torch.device("meta"):  # first without memory: the record may state any size
        stated = build_network(checkpoint.network, config)
    try:
        stated.load_state_dict(checkpoint.state, assign=True)
    except RuntimeError:
        raise InputError(f"{path}: its tensors do not fit its own record; it is damaged") from None
    network = build_network(checkpoint.network, config)
    network.load_state_dict(checkpoint.state)
    return network.eval().to(device).to(memory_format=torch.channels_last)
