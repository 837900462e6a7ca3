"""The direction near the mean gradient that helps the worst-off task most."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax.solvers.level_path import Point, mean_of, search
from mtljax.solvers.nonnegative import certificate
from mtljax.solvers.scaling import Solution, accurate_product, as_float32, scale, solution
from mtljax.types import Array

# A direction that ends within this share of the radius from the surface of the ball is moved onto the surface. The
# share is the relative error that `conflict_averse` promises.
CLOSE = 1e-3


def conflict_averse(gramian: Array, c: Array | float, *, active: Array | None = None) -> Solution:
    """Weights of the conflict-averse direction (CAGrad).

    With `g_0` the mean of the active task gradients, the direction solves
    `max_d min_i <g_i, d>  subject to  |d - g_0| <= c |g_0|`. By duality `d = g_0 + c |g_0| g_w / |g_w|` with
    `g_w = sum_k w_k g_k`, where w minimises `<g_w, g_0> + c |g_0| |g_w|` over the simplex. The function returns the
    weights of the task gradients, `d = sum_k weights_k g_k`, before any rescaling.

    Args:
        gramian: floating point `[T, T]`, `G_ij = <g_i, g_j>`, of any scale that float32 holds.
        c: number or `[]`, at least 0: the radius as a share of `|g_0|`. 0 gives the mean; the paper asks for c < 1.
        active: bool `[T]`, the tasks that take part; None for all. The others get weight 0 and are not read.

    Returns:
        `Solution` with weights `[T]`. `residual` estimates the relative error `|d - d*| / |d|` at the level found, for
        the gradients themselves; it is 1 where |d| is below 2^-9 of `sum_i |weights_i| |g_i|`. Weights are constants
        under differentiation.
        The maximum may lie inside the ball: where a task has no gradient, or where the gradients are Pareto-stationary
        to the precision of a float32 Gramian (a convex combination is shorter than 2^-11 of the lengths of its parts).
        Then many directions attain the maximum, and d is the one nearest to `g_0`. This is the safe direction.

        Promises, for a Gramian that is right to float32's rounding: `|d - g_0|` exceeds `c |g_0|` by at most
        `2^-11 sum_i |g_i| / T`, and `|d - d*|` is at most the larger of `1e-3 |d*|` and
        `2^-11 sum_i |weights*_i| |g_i|`.

    Raises:
        ValueError: the Gramian is not square, `active` does not match it, or c is a negative number.

    References:
        B. Liu, X. Liu, X. Jin, P. Stone, Q. Liu (2021), "Conflict-averse gradient descent for multi-task learning",
        NeurIPS, arXiv 2110.14048.
        Departures: The problem is solved exactly: by the largest level t for which the ball around `g_0` meets `{d :
        <g_i, d> >= t for all i}`. Where many directions attain the maximum, the choice among them is the one above.

    Example:
        >>> conflict_averse(jnp.eye(2), 0.5).weights.round(4).tolist()
        [0.75, 0.75]
    """
    if isinstance(c, (int, float)) and not c >= 0:
        raise ValueError(f"c must be at least 0, found {c}")
    scaled = scale(gramian, active)
    matrix, _, _, nonzero = scaled
    c = as_float32(c).astype(matrix.dtype)
    mean, bound, unit = mean_of(scaled)

    def length(z: Array) -> Array:
        return jnp.sqrt(jnp.maximum(jnp.sum(z * accurate_product(matrix, z)), 0.0))

    radius = c * length(bound)

    def excess(point: Point) -> Array:
        away, allowed = length(point.y), point.share * radius
        total = away + allowed
        return (away - allowed) / jnp.where(total > 0, total, 1.0)

    # A task without gradient cannot gain, which caps the level at 0.
    found = search(scaled, bound, excess, ceiling=jnp.any(scaled.active & ~nonzero))
    share = jnp.where(found.share > 0, found.share, 1.0)
    away = length(found.y) / share
    stretch = radius / jnp.where(away > 0, away, 1.0)
    z = bound + jnp.where(jnp.abs(stretch - 1.0) < CLOSE, stretch, 1.0) * found.y / share
    weights = jnp.where(nonzero, z * unit, mean)
    residual = certificate(matrix, z, found.error / share)
    return solution(weights, residual)
