"""Depth from photographs."""
