"""Callbacks of the Trainer, one subject a file."""
