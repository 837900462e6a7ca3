"""Projection of combinations of task gradients onto the cone of directions that conflict with no task."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtljax.solvers.nonnegative import certificate, nonnegative
from mtljax.solvers.scaling import (
    Scaled,
    Solution,
    accurate_product,
    as_floating,
    multiply,
    power_of_two,
    scale,
    solution,
)
from mtljax.types import Array


def project(scaled: Scaled, lower: Array) -> tuple[Solution, Array]:
    """One projection in the precision of the Gramian, and the error `|d - d*|` of its direction.

    Args:
        scaled: the Gramian.
        lower: `[T]` in its precision.
    """
    matrix, norm, active, nonzero = scaled
    lower = jnp.where(active, lower, 0.0)
    bound = jnp.where(nonzero, lower * norm, 0.0)
    unit = power_of_two(jnp.max(jnp.abs(bound)))
    bound = bound / unit
    force = jnp.where(nonzero, -accurate_product(matrix, bound), 0.0)
    found = nonnegative(matrix, force, nonzero, free=force > 0)
    z = bound + found.y
    residual = certificate(matrix, z, found.error)
    return Solution(jnp.where(nonzero, z * unit / norm, lower), residual), unit * found.error


def cone_projection(gramian: Array, lower: Array, *, active: Array | None = None) -> Solution:
    """Weights of the direction nearest to a combination of task gradients that conflicts with no task.

    Solves `min_v v'Gv subject to v >= lower`. With `u = sum_k lower_k g_k`, the direction `d = sum_k v_k g_k` is the
    projection of u onto the dual cone `{d : <g_i, d> >= 0 for all i}`, and `v - lower` are the multipliers.

    Args:
        gramian: floating point `[T, T]`, `G_ij = <g_i, g_j>`, of any scale that float32 holds; in float64 it is solved
            in float64.
        lower: floating point `[T]`, or `[K, T]` for K projections at once. The identity projects each task gradient
            (UPGrad). The mean's weights project the mean (DualProj, GEM).
        active: bool `[T]`, the tasks that take part; None for all. The others get weight 0 and are not read.

    Returns:
        `Solution` with weights in the shape of `lower`, none of them below `lower`, and one residual per projection: an
        estimate of the relative error `|d - d*| / |d|` against the exact projection d* of the gradients themselves.
        The residual is 1 where |d| is below 2^-9 of `sum_i |v_i| |g_i|`, which is Pareto-stationary to the precision of
        a Gramian. Weights are constants under differentiation.

        Promises, for a Gramian that is right to float32's rounding: |d| exceeds |u| by at most
        `2^-11 sum_i |lower_i| |g_i|`, and `|d - d*|` is at most the larger of `1e-3 |d*|` and
        `2^-11 sum_i |v*_i| |g_i|`. In float64 the last term is `2^-20 sum_i |v*_i| |g_i|`. Where several multipliers
        are equally good, the smallest are returned. Where no digit of the direction is certain, the answer is still
        safe: a ridge of the size of the Gramian's rounding makes the projection shorter and bounds the weights.

    Raises:
        ValueError: shapes do not match.

    References:
        D. Lopez-Paz, M. Ranzato (2017), "Gradient episodic memory for continual learning", NeurIPS, arXiv
        1706.08840.
        P. Quinton, V. Rey (2024), "Jacobian descent for multi-objective optimization", arXiv 2406.16232.
        Departures: The ridge on the Gramian is as large as the Gramian's rounding, and has no parameter.

    Example:
        >>> gramian = jnp.array([[1.0, -0.5], [-0.5, 1.0]])
        >>> cone_projection(gramian, jnp.array([1.0, 0.0])).weights.tolist()
        [1.0, 0.5]
    """
    lower = as_floating(lower)
    shape = jnp.shape(gramian)
    if lower.ndim not in (1, 2) or lower.shape[-1:] != shape[-1:]:
        raise ValueError(f"lower must have shape [T] or [K, T] with T as in gramian {shape}, found {lower.shape}")
    scaled = scale(gramian, active)
    lower = lower.astype(scaled.matrix.dtype)
    if lower.ndim == 1:
        return solution(*project(scaled, lower)[0])
    return solution(*jax.vmap(lambda row: project(scaled, row)[0])(lower))


def projected_rows(gramian: Array, shares: Array, *, active: Array | None = None) -> Solution:
    """Weights of `sum_k shares_k P(g_k)`, with P the projection of `cone_projection`.

    Args:
        gramian: floating point `[T, T]`, as in `cone_projection`.
        shares: float32 `[T]`, 0 for inactive tasks.
        active: bool `[T]`, the tasks that take part; None for all. The others get weight 0 and are not read.

    Returns:
        `Solution` with weights `[T]`. Each projection keeps the promises of `cone_projection`. `residual` belongs to
        the sum of the projections: the sum of their errors over the length of the sum.

    Example:
        >>> projected_rows(jnp.array([[1.0, -0.5], [-0.5, 1.0]]), jnp.array([1.0, 1.0])).weights.tolist()
        [1.5, 1.5]
    """
    scaled = scale(gramian, active)
    rows = jnp.diag(jnp.ones_like(scaled.norm))
    found, errors = jax.vmap(lambda row: project(scaled, row))(rows)
    weights = multiply(shares.astype(scaled.matrix.dtype), found.weights)
    z = jnp.where(scaled.nonzero, weights * scaled.norm, 0.0)
    unit = power_of_two(jnp.max(jnp.abs(z)))
    return solution(weights, certificate(scaled.matrix, z / unit, jnp.sum(shares * errors) / unit))
