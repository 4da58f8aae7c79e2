"""The base of all networks: normalization first, a head that gives meters, and inference on one photograph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthnet.core.camera import Intrinsics
from depthnet.core.images import resize_image
from depthnet.core.types import DepthRange, ImageSize, InputError, RangeLike, read_size

Geometry = Literal["keep_aspect", "stretch"]
Camera = Mapping[str, Any] | Literal["auto"] | None

_FIRST_GUESS = 0.27  # of the range's length: 2.7 m indoors, where the mean depth of NYU is
_SAME_SHAPE = 1.1
_LONGEST = 2.5
_SAME_FOCAL = 1e-4  # relative: rounding makes no other camera
_STEP = 16  # of sides [px]: what most encoders take without padding


def focal_lengths(intrinsics: Tensor | None) -> Tensor | None:
    """Return sqrt(fx fy) of each camera, shape ``(B,)``, from (fx, fy, cx, cy), shape ``(B, 4)``; None from None."""
    return None if intrinsics is None else (intrinsics[:, 0] * intrinsics[:, 1]).abs().sqrt()


class DepthHead(nn.Module):
    r"""Turns the decoder's feature into meters inside the depth range, at the input's size.

    A convolution gives one number z for each pixel, which is resized bilinearly. Then, with :math:`s = \sigma(z)`,
    depth is :math:`d_{min} + s (d_{max} - d_{min})` for ``sigmoid`` and :math:`d_{min} (d_{max} / d_{min})^s` for
    ``log``. It computes in float32, under autocast too: bfloat16 has steps of 3 cm at 5 m. Untrained, it predicts about
    a quarter of the range everywhere.

    Args:
        in_channels: Channels of the feature.
        depth_range: The depths that it can predict.
        kind: ``sigmoid`` or ``log``.
        kernel_size: Of the convolution, odd.

    Raises:
        InputError: If ``kind`` is neither.

    Example:
        >>> head = DepthHead(4, DepthRange(1e-3, 10.0))
        >>> depth = head(torch.zeros(1, 4, 5, 7), (11, 15))
        >>> depth.shape, round(depth.mean().item(), 2)
        (torch.Size([1, 1, 11, 15]), 2.7)
    """

    def __init__(self, in_channels: int, depth_range: DepthRange, kind: str = "sigmoid", kernel_size: int = 1) -> None:
        super().__init__()
        if kind not in ("sigmoid", "log"):
            raise InputError(f"model.head={kind}: choose sigmoid or log")
        self.kind = kind
        self.depth_range = depth_range
        self.projection = nn.Conv2d(in_channels, 1, kernel_size, padding=kernel_size // 2)
        low, high = depth_range.min, depth_range.max
        share = _FIRST_GUESS
        if kind == "log":
            share = math.log(1 + _FIRST_GUESS * (high / low - 1)) / math.log(high / low)
        nn.init.normal_(self.projection.weight, std=0.01)
        nn.init.constant_(self.projection.bias, math.log(share / (1 - share)))  # type: ignore[arg-type]

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Return depth.

        Args:
            features: Shape ``(B, in_channels, h, w)``.
            size: (height, width) wanted.

        Returns:
            Meters, ``float32``, shape ``(B, 1, *size)``.
        """
        low, high = self.depth_range.min, self.depth_range.max
        with torch.autocast(features.device.type, enabled=False):
            z = self.projection(features.to(self.projection.weight.dtype)).float()
            share = torch.sigmoid(F.interpolate(z, size, mode="bilinear", align_corners=False))
            depth = low + (high - low) * share if self.kind == "sigmoid" else low * (high / low) ** share
            return depth.clamp(low, high)


class DepthNetwork(nn.Module):
    """A network from image to depth; a subclass adds ``encoder``, ``head``, :meth:`features` and ``own_config``.

    ``own_config`` holds the subclass's further constructor arguments, fit for JSON; :meth:`config` returns them all.

    Args:
        depth_range: The depths that it can predict of its training camera's images [m]: a DepthRange, (min, max) or
            {"min": ..., "max": ...}.
        image_size: (height, width) [px] that it is trained at; see :meth:`size_for`.
        geometry: How images of another aspect are resized: ``keep_aspect`` or ``stretch``, as :meth:`size_for`.
        camera: The training camera: ``focal``, its sqrt(fx fy) in images of ``size`` (height, width) [px]. None where
            it is not known, and then depth is never scaled; "auto": not known yet, see :attr:`camera`.

    Raises:
        InputError: If a value is impossible.
    """

    encoder: nn.Module
    head: DepthHead
    own_config: dict[str, Any]
    _offset: Tensor
    _scale: Tensor

    def __init__(
        self, depth_range: RangeLike, image_size: ImageSize, geometry: Geometry = "keep_aspect", camera: Camera = None
    ) -> None:
        super().__init__()
        self.depth_range = DepthRange.of(depth_range)
        self.image_size = read_size("data.image_size", image_size)
        if geometry not in get_args(Geometry):
            raise InputError(f"model.geometry={geometry}: it is {' or '.join(get_args(Geometry))}")
        self.geometry = geometry
        self.camera = camera

    @property
    def camera(self) -> dict[str, Any] | None:
        """The training camera as plain data, ``{"focal": px, "size": [height, width]}``; None if it is not known."""
        return self._camera

    @camera.setter
    def camera(self, value: Camera) -> None:
        self._camera: dict[str, Any] | None = None
        if value is None or value == "auto":
            return
        if not (isinstance(value, Mapping) and {"focal", "size"} <= value.keys() and 0 < value["focal"] < math.inf):
            raise InputError(f"model.camera={value}: it is {{focal: PIXELS, size: [height,width]}}, auto or null")
        size = read_size("model.camera.size", value["size"])
        self._camera = {"focal": float(value["focal"]), "size": list(size)}

    def set_normalization(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set mean and standard deviation of the images in [0, 1], for R, G, B.

        Raises:
            InputError: If they are not three each, or ``std`` is not above 0.
        """
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise InputError(f"model: mean={list(mean)}, std={list(std)}; three of each are needed, std above 0")
        self.mean, self.std = [float(value) for value in mean], [float(value) for value in std]
        per_channel = torch.tensor([self.mean, self.std]).view(2, 1, 3, 1, 1)
        self.register_buffer("_offset", 255 * per_channel[0], persistent=False)
        self.register_buffer("_scale", 1 / (255 * per_channel[1]), persistent=False)

    def features(self, image: Tensor) -> Tensor:
        """Return what the head reads, from a normalized image of shape ``(B, 3, H, W)``."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Return constructor arguments, fit for JSON, that build the same network without pretrained weights."""
        return {
            **self.own_config,
            "depth_range": {"min": self.depth_range.min, "max": self.depth_range.max},
            "image_size": list(self.image_size),
            "geometry": self.geometry,
            "camera": self.camera,
            "head": self.head.kind,
            "mean": self.mean,
            "std": self.std,
        }

    def normalize(self, image: Tensor) -> Tensor:
        """Return ``(image / 255 - mean) / std`` in the network's precision."""
        return (image.to(self._offset.dtype) - self._offset) * self._scale

    def forward(self, image: Tensor, focal: Tensor | None = None) -> Tensor:
        r"""Predict depth.

        What a network sees of a distance is a size in pixels, so what it predicts holds for the focal length it was
        trained with. An image taken with focal length f is predicted as if by the training camera (f_0), and its depth
        multiplied by f / f_0 (the canonical camera of Metric3D, Yin et al., ICCV 2023, "scale labels").

        Args:
            image: RGB, ``uint8`` or float in [0, 255], shape ``(B, 3, H, W)`` of any size that the network takes.
            focal: sqrt(fx fy) of each image [px of ``image``], shape ``(B,)``. NaN: not known, and then the field of
                view of the training camera is assumed, on the diagonal. None: all images are the training camera's.

        Returns:
            Meters, ``float32``, shape ``(B, 1, H, W)``: inside the depth range where ``focal`` is the training
            camera's.
        """
        height, width = image.shape[-2:]
        depth: Tensor = self.head(self.features(self.normalize(image)), (height, width))
        if focal is None:
            return depth
        return depth * self._scale_of(focal, (height, width)).to(depth)[:, None, None, None]

    def focal_ratio(self, size: tuple[int, int], intrinsics: Intrinsics | None = None) -> float:
        """Return what :meth:`infer` multiplies depth by, for an image of this (height, width) and camera.

        1.0 for the training camera's images, and where that camera is not known.
        """
        resized = self.size_for(size)
        focal = math.nan if intrinsics is None else intrinsics.resized(size, resized).focal
        return float(self._scale_of(torch.tensor([focal]), resized))

    def _scale_of(self, focal: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the factor of depth, shape ``(B,)``; ``focal`` as :meth:`forward` takes it, of images of ``size``."""
        if self._camera is None:
            return torch.ones_like(focal)
        trained: float = self._camera["focal"]
        assumed = trained * math.hypot(*size) / math.hypot(*self._camera["size"])
        ratio = torch.where(focal.isfinite(), focal, assumed) / trained
        return torch.where((ratio - 1).abs() < _SAME_FOCAL, 1.0, ratio)

    def size_for(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) that an image of this (height, width) is resized to, to train and to predict.

        That is :attr:`image_size` for an image of nearly its aspect (within 10 %), and for ``stretch``. Another keeps
        its aspect, up to 2.5 times longer, at as many pixels, with sides of whole multiples of 16: an upright image
        stays upright. Where that would be too small for the network, it is :attr:`image_size` again.

        Example:
            >>> network = DepthNetwork((1e-3, 10.0), (192, 256))
            >>> network.size_for((480, 640)), network.size_for((4032, 3024)), network.size_for((1080, 1920))
            ((192, 256), (256, 192), (160, 288))
        """
        height, width = self.image_size
        longer = size[0] / size[1] * width / height
        if self.geometry == "stretch" or 1 / _SAME_SHAPE < longer < _SAME_SHAPE:
            return self.image_size
        factor = math.sqrt(min(max(longer, 1 / _LONGEST), _LONGEST))
        rows, columns = (max(_STEP, round(side / _STEP) * _STEP) for side in (height * factor, width / factor))
        return (rows, columns) if self.takes((rows, columns)) else self.image_size

    def takes(self, size: tuple[int, int]) -> bool:
        """Return whether images of this (height, width) are large enough for the network."""
        return True

    def require_size(self) -> None:
        """Raise InputError if :attr:`image_size` is too small for the network."""
        if not self.takes(self.image_size):
            height, width = self.image_size
            raise InputError(f"data.image_size {height}x{width}: too small for the network; take larger images")

    @torch.inference_mode()
    def infer(self, image: npt.NDArray[np.uint8], intrinsics: Intrinsics | None = None) -> npt.NDArray[np.float32]:
        """Predict the depth of one image, as evaluation does.

        The image is resized to :meth:`size_for` it, and the depth back to the image's size, bilinearly with aligned
        corners.

        Args:
            image: RGB, ``uint8``, shape ``(H, W, 3)``.
            intrinsics: Its camera [px of ``image``]; None where it is not known, as in :meth:`forward`.

        Returns:
            Meters, ``float32``, shape ``(H, W)``.

        Raises:
            InputError: If it is no such image.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(f"image: {image.dtype} of shape {image.shape}; needs uint8 RGB of shape (H, W, 3)")
        full = (image.shape[0], image.shape[1])
        size = self.size_for(full)
        scale = self.focal_ratio(full, intrinsics)
        pixels = torch.from_numpy(np.ascontiguousarray(resize_image(image, size))).permute(2, 0, 1)[None]
        training = self.training
        self.eval()
        try:
            depth = scale * self(pixels.to(self._offset.device))
        finally:
            self.train(training)
        depth = F.interpolate(depth, full, mode="bilinear", align_corners=True)
        low, high = self.depth_range.min * scale, self.depth_range.max * scale
        depth = depth.nan_to_num(low, high, low).clamp(low, high)
        meters: npt.NDArray[np.float32] = depth[0, 0].cpu().numpy()
        return meters
