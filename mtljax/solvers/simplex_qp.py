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
        sizes: float32 `[T]`, what the Gramian's rounding is relative to, where its entries are differences of larger
            numbers; None for the lengths `|g_i|`.

    Returns:
        `Solution` with weights `[T]` on the simplex (all 0 where no task is active). Where gradients are zero the
        shortest vector is zero and the weight is spread evenly over those tasks. Weights are constants under
        differentiation. `residual` estimates the relative error `|d - d*| / |d|` against the exact minimiser d* for the
        gradients themselves; it is 1 where |d| is below 2^-9 of `sum_i w_i |g_i|`, which is Pareto-stationary to the
        precision of a Gramian.

        What is promised, for a Gramian that is right to float32's rounding: d is not longer than the shortest gradient,
        and `|d - d*|` is at most the larger of `1e-3 |d*|` and `2^-11 sum_i w*_i |g_i|`; for one in
        float64, `2^-20 sum_i w*_i |g_i|`. Of weights that are as good
        those are taken whose `w_i |g_i|` are smallest. That bound holds where nothing of the direction is certain too:
        what is returned is safe as it is.

    Raises:
        ValueError: the Gramian is not square, or `active` does not match it.

    References:
        J.-A. Desideri (2012), "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", Comptes
        Rendus Mathematique 350.
        O. Sener, V. Koltun (2018), "Multi-task learning as multi-objective optimization", NeurIPS, arXiv
        1810.04650. Departure: an exact active set in place of Frank-Wolfe steps.

    Example:
        >>> min_norm(jnp.array([[3.0, 0.0], [0.0, 1.0]])).weights.round(4).tolist()
        [0.25, 0.75]
    """
    matrix, norm, active, nonzero = scale(gramian, active)
    # In units of the shortest gradient, so that no entry of shift exceeds 1.
    shortest = jnp.min(jnp.where(nonzero, norm, jnp.inf))
    shift = jnp.where(nonzero, shortest / norm, 0.0)
    rounding = 1.0 if sizes is None else jnp.where(nonzero, jnp.maximum(sizes / norm, 1.0), 1.0)
    # The solution is known up to a factor, since w'Gw is homogeneous; a division makes sum(w) = 1.
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
