"""Small multi-task problems, and what other solvers make of them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from mtljax.convex import TaskRows, pad
from mtljax.penalties.common import Penalty

LENGTHS = (7, 12, 3, 0, 9)
FEATURES = 4


def ragged(lengths=LENGTHS, features=FEATURES, seed=0):
    """Inputs and targets by task, float64: related tasks, one feature of no use, means far from 0."""
    draw = np.random.default_rng(seed)
    truth = draw.normal(size=(1, features)) + 0.5 * draw.normal(size=(len(lengths), features))
    truth[:, -1] = 0.0
    inputs = [draw.normal(size=(n, features)) + 2.0 for n in lengths]
    targets = [x @ w + 5.0 + 0.3 * draw.normal(size=len(x)) for x, w in zip(inputs, truth, strict=True)]
    return inputs, targets


def rows_of(inputs, targets, length=None):
    """`TaskRows`, padded with NaN, which nothing may read, to `length`."""
    inputs, targets, mask = map(np.asarray, pad(inputs, targets))
    more = 0 if length is None else length - targets.shape[1]
    inputs = np.pad(np.where(mask[:, :, None], inputs, np.nan), ((0, 0), (0, more), (0, 0)), constant_values=np.nan)
    targets = np.pad(np.where(mask, targets, np.nan), ((0, 0), (0, more)), constant_values=np.nan)
    return TaskRows(jnp.asarray(inputs), jnp.asarray(targets), jnp.asarray(np.pad(mask, ((0, 0), (0, more)))))


def ridge(strength):
    """`strength/2 |w|^2`, a penalty that needs no other file."""
    return Penalty(
        value=lambda w: 0.5 * strength * jnp.sum(w**2), prox=lambda w, step_size: w / (1.0 + step_size * strength)
    )


def squared_errors(inputs, targets, weights, intercepts):
    """`1/2 sum of squared errors`, in NumPy or cvxpy's own terms."""
    return sum(
        0.5 * ((y - x @ w - b) ** 2).sum() for x, y, w, b in zip(inputs, targets, weights, intercepts, strict=True)
    )
