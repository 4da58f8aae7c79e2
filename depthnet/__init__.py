"""depthnet: train, fine-tune and evaluate monocular depth networks.

>>> import depthnet
>>> model = depthnet.load("nyu_small")  # a checkpoint, a run's directory, or the name of a shipped model
>>> import numpy as np
>>> model.infer(np.zeros((48, 64, 3), np.uint8)).shape  # meters, float32, the image's size
(48, 64)
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_PLACES = {"load": "depthnet.inference.model", "fit": "depthnet.training.service"}


def __getattr__(name: str) -> Any:
    """Import what is used: ``import depthnet`` alone takes no time."""
    if name not in _PLACES:
        raise AttributeError(f"module 'depthnet' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PLACES[name]), name)
