"""The direction within an angle of the mean gradient that helps the worst-off task most."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax.solvers.level_path import Point, mean_of, search
from mtljax.solvers.nonnegative import certificate
from mtljax.solvers.scaling import Solution, accurate_product, as_float32, finer, scale, solution
from mtljax.types import Array

# A square |d|^2 is rounded up by this share of (the sum of |z_k g_k|) (the sum of |y_k g_k|), so that it is not too
# small: twice float32's rounding, 2^-24.
SQUARE_ERROR = 2.0**-23
# A direction shorter than this share of the sum of |z_k g_k| has no certain angle. The share is above 2^-11, where
# rounding leaves no digit of the length. It is below 2^-10, so that the path does not end before the promised 2^-11.
SHORTEST = 1.7 * 2.0**-11


def max_min_around_mean(gramian: Array, c: Array | float, *, active: Array | None = None) -> Solution:
    """Weights of the direction within an angle of the mean gradient that helps the worst-off task most (ConicGrad).

    Solves `max_d min_i <g_i, d>  subject to  cos(d, g_0) >= c, |d| = |g_0|`, with `g_0` the mean of the active task
    gradients. The solution is the point of `mtljax.solvers.level_path` at which the direction meets the cone. A task
    without gradient counts in the mean only, never as the worst-off task.

    Args:
        gramian: floating point `[T, T]`, `G_ij = <g_i, g_j>`, of any scale that float32 holds.
        c: number or `[]`, the least cosine, in [0, 1].
        active: bool `[T]`, the tasks that take part; None for all. The others get weight 0 and are not read.

    Returns:
        `Solution` with weights `[T]`, non-negative; 0 where the mean gradient is. `residual` estimates the relative
        error of the direction; it is 1 where |d| is below 2^-9 of `sum_i |weights_i| |g_i|`. Weights are constants
        under differentiation.
        Where no direction in the cone helps all tasks, d is the best direction on the surface of the cone. Where the
        gradients are Pareto-stationary to the precision of a float32 Gramian, d is the safe direction: of the
        directions in the cone that harm no task, the one nearest to the mean.

        Promises, for a Gramian that is right to float32's rounding: |d| exceeds `|g_0|` by at most
        `2^-11 sum_i |g_i| / T`, and `|d - d*|` is at most the larger of `1e-3 |d*|` and
        `2^-11 sum_i |weights*_i| |g_i|`.

    Raises:
        ValueError: the Gramian is not square, or `active` does not match it.

    References:
        N. Hassanpour et al. (2025), "Fantastic multi-task gradient updates and how to find them in a cone", arXiv
        2502.00217.

    Example:
        >>> max_min_around_mean(jnp.diag(jnp.array([4.0, 1.0])), 1.0).weights.tolist()
        [0.5, 0.5]
    """
    scaled = scale(gramian, active)
    matrix, _, _, nonzero = scaled
    angle = jnp.arccos(as_float32(c).astype(matrix.dtype))
    _, bound, unit = mean_of(scaled)
    pull = jnp.where(nonzero, accurate_product(matrix, bound), 0.0)
    reference = jnp.sqrt(jnp.maximum(jnp.sum(bound * pull), 0.0))

    def excess(point: Point) -> Array:
        """How far outside the cone a direction is, in radians; pi where the direction has no certain angle."""
        z = point.share * bound + point.y
        along = jnp.sum(z * pull) / jnp.where(reference > 0, reference, 1.0)
        square = jnp.sum(z * accurate_product(matrix, z))
        across = jnp.sqrt(jnp.maximum(square - along * along, 0.0))
        certain = square > jnp.square(finer(SHORTEST, matrix, square=True) * jnp.sum(z))
        return jnp.where(certain | ~jnp.any(point.y > 0), jnp.arctan2(across, along) - angle, jnp.pi)

    found = search(scaled, bound, excess, ceiling=~jnp.any(nonzero))
    z = found.share * bound + found.y
    squared = finer(SQUARE_ERROR, matrix)
    square = jnp.maximum(jnp.sum(z * accurate_product(matrix, z)), 0.0) + squared * jnp.sum(found.y) * jnp.sum(z)
    length = jnp.sqrt(jnp.where(square > 0, square, 1.0))
    # The error of the angle between d and the mean follows from the errors of their squares.
    sizes = jnp.square(jnp.sum(z) / length) + jnp.square(jnp.sum(bound) / jnp.where(reference > 0, reference, 1.0))
    residual = certificate(matrix, z, found.error + squared * sizes * length)
    weights = jnp.where(nonzero, reference / length * z * unit, 0.0)
    return solution(weights, residual)
