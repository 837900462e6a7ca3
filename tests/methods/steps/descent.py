"""What SDMGrad descends to, by hand and by the solver."""

from __future__ import annotations

import functools

import jax
import numpy as np

from mtljax.solvers.towards import min_norm_towards

# --- SDMGrad and MoDo ---


def onto_simplex(y):
    """By the threshold at which the positive parts sum to 1, found by bisection."""
    low, high = y.min() - 1.0, y.max()
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.maximum(y - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(y - low, 0)


@functools.cache
def towards():
    return jax.jit(lambda gramian, reference, share: min_norm_towards(gramian, reference, share).weights)
