"""The shortest vector in the convex hull of the task gradients."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax.solvers.nonnegative import certificate, nonnegative
from mtljax.solvers.scaling import Solution, scale, solution
from mtljax.types import Array


def min_norm(gramian: Array, *, active: Array | None = None, sizes: Array | None = None) -> Solution:
    """Weights of the shortest convex combination of task gradients.

    Solves `min_w w'Gw` over the simplex `w >= 0, sum(w) = 1`; the direction is `d = sum_k w_k g_k`.

    Args:
        gramian: floating point `[T, T]`, `G_ij = <g_i, g_j>`, of any scale that float32 holds; in float64 it is solved
            in float64.
        active: bool `[T]`, the tasks that take part; None for all. The others get weight 0 and are not read.
        sizes: float32 `[T]`, the lengths that the Gramian's rounding is relative to, where its entries are differences
            of larger numbers; None for the lengths `|g_i|`.

    Returns:
        `Solution` with weights `[T]` on the simplex (all 0 where no task is active). Where some gradients are zero, the
        shortest vector is zero, and these tasks share the weight evenly. Weights are constants under differentiation.
        `residual` estimates the relative error `|d - d*| / |d|` against the exact minimiser d* for the gradients
        themselves. It is 1 where |d| is below 2^-9 of `sum_i w_i |g_i|`, which is Pareto-stationary to the precision of
        a Gramian.

        Promises, for a Gramian that is right to float32's rounding: d is not longer than the shortest gradient, and
        `|d - d*|` is at most the larger of `1e-3 |d*|` and `2^-11 sum_i w*_i |g_i|`. In float64 the last term is
        `2^-20 sum_i w*_i |g_i|`. Where several weights are equally good, those with the smallest `w_i |g_i|` are
        returned. The bound holds even where no digit of the direction is certain, so the answer is safe.

    Raises:
        ValueError: the Gramian is not square, or `active` does not match it.

    References:
        J.-A. Desideri (2012), "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", Comptes
        Rendus Mathematique 350.
        O. Sener, V. Koltun (2018), "Multi-task learning as multi-objective optimization", NeurIPS, arXiv
        1810.04650.
        Departures: The active set is found exactly, instead of Frank-Wolfe steps.

    Example:
        >>> min_norm(jnp.array([[3.0, 0.0], [0.0, 1.0]])).weights.round(4).tolist()
        [0.25, 0.75]
    """
    matrix, norm, active, nonzero = scale(gramian, active)
    # In units of the shortest gradient, so that no entry of shift exceeds 1.
    shortest = jnp.min(jnp.where(nonzero, norm, jnp.inf))
    shift = jnp.where(nonzero, shortest / norm, 0.0)
    rounding = 1.0 if sizes is None else jnp.where(nonzero, jnp.maximum(sizes / norm, 1.0), 1.0)
    # w'Gw is homogeneous, so the constraint sum(w) = 1 may be met by a division at the end.
    found = nonnegative(matrix, shift, nonzero, free=nonzero, sizes=rounding)
    parts = shift * found.y
    total = jnp.sum(parts)
    alone = jnp.where(jnp.arange(shift.shape[0]) == jnp.argmax(shift), 1.0, 0.0)
    weights = jnp.where(total > 0, parts / jnp.where(total > 0, total, 1.0), alone)
    residual = certificate(matrix, found.y * rounding, found.error)

    zero = active & ~nonzero
    spread = jnp.where(zero, 1.0, 0.0) / jnp.maximum(jnp.sum(zero), 1)
    settled = jnp.any(zero) | ~jnp.any(active)
    return solution(jnp.where(settled, spread, weights), jnp.where(settled, 0.0, residual))
