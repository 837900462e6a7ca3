"""Data sets: their published files, their TFDS builders, and their loaders by name."""
