"""The shortest convex combination of task gradients after all of them were moved towards a reference gradient."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax.solvers.scaling import Solution, as_float32, multiply
from mtljax.solvers.simplex_qp import min_norm
from mtljax.types import Array


def min_norm_towards(gramian: Array, reference: Array, share: Array, *, active: Array | None = None) -> Solution:
    """Weights of the shortest `share g_r + (1 - share) g_w` with `g_r = sum_k r_k g_k` given and w on the simplex.

    `share = 0` gives `min_norm`, and `share = 1` gives the reference. `share = p / (1 + p)` gives the direction of
    `max_d min_i <g_i, d> - |d - p g_r|^2 / 2`. With the mean as reference, each solution of CAGrad (for any radius) and
    of ConicGrad (for any angle) has the direction that some share gives.

    Args:
        gramian: floating point `[T, T]`, `G_ij = <g_i, g_j>`.
        reference: float32 `[T]`, r, 0 for inactive tasks; sums to 1.
        share: float32 `[]`, in [0, 1].
        active: bool `[T]`, the tasks that take part; None for all. The others get weight 0 and are not read.

    Returns:
        `Solution` with the weights `[T]` of the direction, `share r + (1 - share) w`. `residual` is that of `min_norm`
        for the moved gradients, and covers the rounding of the move.

    Raises:
        ValueError: the Gramian is not square, or `active` does not match it.

    Example:
        >>> mean = jnp.array([0.5, 0.5])
        >>> min_norm_towards(jnp.diag(jnp.array([3.0, 1.0])), mean, jnp.asarray(0.5)).weights.round(4).tolist()
        [0.25, 0.75]
    """
    gramian = as_float32(gramian)
    if active is not None:
        gramian = jnp.where(active[:, None] & active[None, :], gramian, 0.0)
    rest = 1.0 - share
    pull = multiply(gramian, reference)
    square = jnp.sum(reference * pull)
    moved = rest * rest * gramian + rest * share * (pull[:, None] + pull[None, :]) + share * share * square
    # The rounding of `moved` is relative to the terms of its sums.
    norms = jnp.sqrt(jnp.maximum(jnp.diagonal(gramian), 0.0))
    found = min_norm(moved, active=active, sizes=rest * norms + share * jnp.sum(reference * norms))
    return Solution(share * reference + rest * found.weights, found.residual)
