"""depthnet: train, judge and use networks that see depth in one photograph."""

__version__ = "0.1.0"
