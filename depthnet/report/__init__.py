"""The error atlas of a run: ``depthnet report RUN``."""
