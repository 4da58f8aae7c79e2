"""A network of one line, for tests of prediction in this process and in others."""

import sys
import time
from types import SimpleNamespace

import numpy as np

from depthnet.core.types import DepthRange


class Fake:
    """Depth by brightness, times ``factor``; each photograph takes ``pause`` seconds."""

    image_size = (24, 32)

    def __init__(self, factor=1.0, far=10.0, pause=0.0):
        self.factor, self.pause = factor, pause
        self.depth_range = DepthRange(1e-3, far)

    def infer(self, image, intrinsics=None):
        time.sleep(self.pause)
        return (0.5 + self.factor * image.mean(axis=2) / 60).astype(np.float32)

    def focal_ratio(self, size, intrinsics=None):
        return 1.0

    def size_for(self, size):
        return self.image_size

    def config(self):
        return {"encoder": "fake"}


def install(pause):
    """Make it what every checkpoint of this process holds, on any device."""
    from depthnet.inference import predict

    network = SimpleNamespace(load_network=lambda path, device, size=None: Fake(pause=pause))
    sys.modules["depthnet.models.depth_net"] = network
    predict.find_device = lambda name: name
