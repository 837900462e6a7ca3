"""The School data: examination scores of 15,362 pupils of 139 schools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io


def school(folder: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Inputs `[n_t, 28]`, the last column 1, and scores `[n_t]`, by school."""
    cells = scipy.io.loadmat(folder / "school.mat")
    inputs = [np.asarray(x, np.float64) for x in cells["X"].ravel()]
    return inputs, [np.asarray(y, np.float64).ravel() for y in cells["Y"].ravel()]


def standardised(inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Features with mean 0 and variance 1 over all schools together; the constant column stays."""
    everything = np.concatenate(inputs)
    mean, deviation = everything.mean(0), everything.std(0)
    constant = deviation == 0
    return [(x - np.where(constant, 0.0, mean)) / np.where(constant, 1.0, deviation) for x in inputs]
