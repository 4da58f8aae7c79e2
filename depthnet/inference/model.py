"""Depth in Python: ``depthnet.load("nyu_small").infer("photo.jpg")``."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from depthnet.core.atomic_io import require_writable
from depthnet.core.camera import Intrinsics, find_camera, stated_camera
from depthnet.core.images import read_image
from depthnet.core.types import InputError
from depthnet.core.visualize import colorize, depth_limits, with_scale_bar
from depthnet.inference.outputs import describe_network, write_outputs
from depthnet.inference.predict import find_device
from depthnet.models.depth_net import load_network
from depthnet.models.network import DepthNetwork

Photograph = str | os.PathLike[str] | Image.Image | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """The depth of one photograph; in a notebook it shows as a picture.

    Attributes:
        image: The photograph, RGB ``uint8``, shape ``(H, W, 3)``.
        depth: Meters, ``float32``, shape ``(H, W)``.
        intrinsics: Its camera [px]; None if unknown, and then the training camera's field of view is assumed.
        source: Where the camera is known from, such as "K.txt"; empty where it is not known.
        name: The photograph's name without its suffix; "image" for an array.
        about: What the sidecar of :meth:`save` states besides.
    """

    image: npt.NDArray[np.uint8] = field(repr=False)
    depth: npt.NDArray[np.float32] = field(repr=False)
    intrinsics: Intrinsics | None
    source: str
    name: str
    about: dict[str, Any] = field(repr=False)

    def picture(self) -> npt.NDArray[np.uint8]:
        """Return depth in colors with a scale bar, RGB ``uint8``, shape ``(H, W + bar, 3)``."""
        low, high = depth_limits(self.depth)
        return with_scale_bar(colorize(self.depth, low, high), low, high)

    def save(self, directory: str | os.PathLike[str], name: str | None = None) -> list[Path]:
        """Write ``<name>_depth.npy``, ``_depth.png``, ``_color.png`` and ``<name>.json`` as ``depthnet predict`` does.

        Args:
            directory: Made if it is missing.
            name: Instead of :attr:`name`.

        Returns:
            The paths.

        Raises:
            InputError: If a file cannot be written.
        """
        return write_outputs(str(require_writable(directory) / (name or self.name)), self.depth, self.about)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        Image.fromarray(self.picture()).save(file, "PNG")
        return file.getvalue()


class Model:
    """A network that predicts the depth of photographs.

    Args:
        network: A trained network, in evaluation mode.

    Attributes:
        network: The same, a torch module.
    """

    def __init__(self, network: DepthNetwork) -> None:
        self.network = network

    def infer(
        self, image: Photograph, *, focal: float | None = None, fov_x: float | None = None
    ) -> npt.NDArray[np.float32]:
        """Return depth in meters, ``float32``, shape ``(H, W)``; arguments as for :meth:`predict`."""
        return self.predict(image, focal=focal, fov_x=fov_x).depth

    def predict(self, image: Photograph, *, focal: float | None = None, fov_x: float | None = None) -> Prediction:
        """Predict the depth of one photograph.

        Args:
            image: A path, a PIL image, or an RGB array, ``uint8``, shape ``(H, W, 3)``.
            focal: Its focal length [px of the photograph].
            fov_x: Its horizontal field of view [degrees]; instead of ``focal``. With neither, a path's intrinsics file
                or EXIF is used, as in ``depthnet predict``.

        Raises:
            InputError: If the photograph cannot be read, or the camera cannot be that of it.

        Example:
            >>> load("rooms_small").predict(np.zeros((48, 64, 3), np.uint8), focal=50.0)
            Prediction(intrinsics=Intrinsics(fx=50.0, fy=50.0, cx=31.5, cy=23.5), source='stated', name='image')
        """
        if focal is not None and fov_x is not None:
            raise InputError("focal and fov_x both state the camera; give one of them")
        if isinstance(image, str | os.PathLike):
            path = Path(image)
            pixels, name = read_image(path), path.stem
            camera, source = find_camera(path, pixels.shape[:2], focal, fov_x)
        else:
            upright = ImageOps.exif_transpose(image).convert("RGB") if isinstance(image, Image.Image) else image
            pixels, name = np.asarray(upright), "image"
            camera = stated_camera(pixels.shape[:2], focal, fov_x)
            source = "stated" if camera else ""
        depth = self.network.infer(pixels, camera)
        stated = {"source": source, "intrinsics": None if camera is None else camera._asdict()}
        about = {"source": name, "camera": stated, **describe_network(self.network, depth.shape, camera)}
        return Prediction(pixels, depth, camera, source, name, about)


def load(checkpoint: str | os.PathLike[str] = "nyu_small", device: str = "auto") -> Model:
    """Load a model for prediction.

    Args:
        checkpoint: A checkpoint file, a run's directory (for its best checkpoint), or the name of a shipped model.
        device: "auto" (a GPU if torch can use one, else the CPU), "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        InputError: If there is no such checkpoint or device.
    """
    return Model(load_network(checkpoint, find_device(device)))
