"""Built-in scenes: furnished rooms with exact depth, ray-cast from a seed."""
