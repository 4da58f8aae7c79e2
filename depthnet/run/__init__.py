"""A run: its config, its directory, what it was started with, and the signals it listens to."""
