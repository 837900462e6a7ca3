"""Projection onto the simplex over active tasks, and weights that stay on it when the set of active tasks changes."""

from __future__ import annotations

import jax.numpy as jnp
from optax.projections import projection_simplex

from mtljax.types import Array


def project_simplex(values: Array, *, active: Array | None = None) -> Array:
    """The nearest point of the simplex `w >= 0, sum(w) = 1`.

    Args:
        values: float32 `[T]`.
        active: bool `[T]`, the tasks that take part; None for all. The others get 0 and are not read.

    Returns:
        float32 `[T]`; all 0 where no task is active.

    Example:
        >>> project_simplex(jnp.array([1.0, 0.5, -3.0])).tolist()
        [0.75, 0.25, 0.0]
    """
    active = jnp.ones_like(values, dtype=bool) if active is None else active
    # A common shift does not change the projection. Without the shift, rounding of large values would hide the sum 1.
    shifted = jnp.where(active, values - jnp.max(jnp.where(active, values, -jnp.inf)), -jnp.inf)
    # With float64 enabled, integers inside optax's function turn the result into float64.
    return jnp.where(active, projection_simplex(shifted).astype(values.dtype), 0.0)


def among_active(weights: Array, active: Array) -> Array:
    """Weights on the simplex over active tasks, in proportion to the weights given; even weights where all are 0.

    Args:
        weights: float32 `[T]`, non-negative.
        active: bool `[T]`.

    Example:
        >>> among_active(jnp.array([0.5, 0.25, 0.25]), jnp.array([False, True, True])).tolist()
        [0.0, 0.5, 0.5]
    """
    kept = jnp.where(active, weights, 0.0)
    total = jnp.sum(kept)
    even = jnp.where(active, jnp.ones_like(kept), 0.0) / jnp.maximum(jnp.sum(active), 1)
    return jnp.where(total > 0, kept / jnp.where(total > 0, total, 1.0), even)


def back_among_all(moved: Array, weights: Array, active: Array) -> Array:
    """The reverse of `among_active`: active tasks divide the sum of their old weights, all others keep their weights.

    Args:
        moved: float32 `[T]`, on the simplex over the active tasks.
        weights: float32 `[T]`, the weights that `among_active` was given.
        active: bool `[T]`.

    Example:
        >>> back_among_all(jnp.array([0.0, 1.0, 0.0]), jnp.array([0.5, 0.25, 0.25]), jnp.array([False, True, True]))
        Array([0.5, 0.5, 0. ], dtype=float32)
    """
    total = jnp.sum(jnp.where(active, weights, 0.0))
    # Tasks with weight 0 get an even share, as in `among_active`.
    total = jnp.where(total > 0, total, jnp.mean(jnp.where(active, jnp.ones_like(moved), 0.0)))
    return jnp.where(active, total * moved, weights)
