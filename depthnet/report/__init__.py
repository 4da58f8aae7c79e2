"""The error atlas of a run: ``python -m depthnet.report RUN``."""
