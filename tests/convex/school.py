"""The School data: examination scores of 15,362 pupils of 139 schools."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def school(folder: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Inputs `[n_t, 28]`, the last column 1, and scores `[n_t]`, by school."""
    from mtljax.data.sets.school import _read  # imports TFDS, which is slow

    inputs, scores = zip(*_read(folder / "school.mat"), strict=True)
    return [x.astype(np.float64) for x in inputs], [y.astype(np.float64) for y in scores]


def standardized(inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Features with mean 0 and variance 1 over all schools together; the constant column stays."""
    everything = np.concatenate(inputs)
    mean, deviation = everything.mean(0), everything.std(0)
    constant = deviation == 0
    return [(x - np.where(constant, 0.0, mean)) / np.where(constant, 1.0, deviation) for x in inputs]
