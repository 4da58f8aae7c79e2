"""Decoders: from an encoder's features to depth."""
