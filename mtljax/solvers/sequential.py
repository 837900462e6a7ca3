"""Projects each task gradient off the others in turn (PCGrad), computed from the Gramian alone."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from mtljax.solvers.scaling import as_float32, scale
from mtljax.types import Array


def sequential(gramian: Array, order: Array, *, active: Array | None = None) -> Array:
    """Coefficients of each task gradient after its projections (PCGrad's inner loop).

    Row i starts as `a_i = g_i`. For each j of `order[i]`, a row that conflicts with `g_j` loses its component along
    `g_j`: `a_i <- a_i - min(<a_i, g_j>, 0) / |g_j|^2 g_j`. All rows advance together, in S steps on a `[T, T]` array.

    Args:
        gramian: floating point `[T, T]`, `G_ij = <g_i, g_j>`, of any scale that float32 holds.
        order: integers `[T, S]`. Row i lists the tasks that row i meets, first to last. Task i itself, inactive tasks
            and tasks without gradient are skipped.
        active: bool `[T]`, the tasks that take part; None for all. Rows and columns of the others are 0 and not read.

    Returns:
        float32 `[T, T]`: row i holds the coefficients of the task gradients in the projected `g_i`. Constants under
        differentiation.

    Raises:
        ValueError: shapes do not match.
        TypeError: `order` does not hold integers.

    References:
        T. Yu, S. Kumar, A. Gupta, S. Levine, K. Hausman, C. Finn (2020), "Gradient surgery for multi-task
        learning", NeurIPS, arXiv 2001.06782.

    Example:
        >>> gramian = jnp.array([[1.0, -0.5], [-0.5, 1.0]])
        >>> sequential(gramian, jnp.array([[1], [0]])).tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """
    matrix, norm, active, nonzero = scale(gramian, active)
    num_tasks = norm.shape[0]
    if jnp.ndim(order) != 2 or jnp.shape(order)[0] != num_tasks:
        raise ValueError(f"order must have shape [T, S] with T = {num_tasks}, found {jnp.shape(order)}")
    if not jnp.issubdtype(jnp.result_type(order), jnp.integer):
        raise TypeError(f"order must hold integers, found {jnp.result_type(order).name}")
    diagonal = jnp.where(nonzero, jnp.diagonal(matrix), 1.0)
    rows = jnp.arange(num_tasks)

    def meet(s, z):
        other = order[:, s]
        meets = nonzero[other] & (other != rows)
        overlap = jnp.sum(z * matrix[other], axis=1)
        loss = jnp.where(meets, jnp.minimum(overlap, 0.0) / diagonal[other], 0.0)
        return z.at[rows, other].add(-loss, unique_indices=True)

    # In units of each row's own norm, all numbers are about 1, however different the norms are.
    start = jnp.diag(jnp.where(active, jnp.ones_like(norm + matrix[0]), 0.0))
    z = lax.fori_loop(0, jnp.shape(order)[1], meet, start)
    return z * as_float32(norm)[:, None] / norm[None, :]
