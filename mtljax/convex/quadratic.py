"""Quadratic models of the tasks' losses, each in coordinates in which it is diagonal."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax.solvers.scaling import multiply
from mtljax.types import Array

EXPONENTS = 16
"""The number of multipliers that `Quadratic.bound` tries; each is a quarter of the one before."""


class Quadratic(NamedTuple):
    """`f(w) = sum_t 1/2 sum_i c_ti (q_ti' w_t)^2 - s_ti q_ti' w_t + constant`, q_ti the orthonormal columns of `basis`.

    In this form each operation of a proximal solver takes two products with `basis`, `O(T p r)`, for any step size. A
    leading axis of 1 in place of T means that all tasks have the same values.

    Attributes:
        curvature: `[T or 1, r]`, c, non-negative; `r = min(N, p)`.
        basis: `[T or 1, p, r]`; a column may be 0 if its curvature is 0.
        slope: `[T, r]`, s; 0 where the curvature is 0.
        constant: `[]`.
    """

    curvature: Array
    basis: Array
    slope: Array
    constant: Array

    def rotate(self, w: Array) -> Array:
        """`[T, p]` -> `[T, r]`, the coordinates `q_ti' w_t`."""
        return _times(w, self.basis)

    def unrotate(self, coordinates: Array) -> Array:
        """`[T, r]` -> `[T, p]`, from coordinates to weights."""
        return _times(coordinates, jnp.swapaxes(self.basis, 1, 2))

    def value(self, w: Array) -> Array:
        """`f(w)`, `[T, p]` -> `[]`."""
        along = self.rotate(w)
        return jnp.sum((0.5 * self.curvature * along - self.slope) * along) + self.constant

    def prox(self, v: Array, rho: Array) -> Array:
        """`argmin_w f(w) + rho/2 |w - v|^2`, `[T, p]` -> `[T, p]`; rho is positive."""
        residual = self.slope - self.curvature * self.rotate(v)
        return v + self.unrotate(residual / (self.curvature + rho))

    def bound(self, points: Array, duals: Array, radius: Array) -> Array:
        r"""An upper bound of `F(x) - F(x*)`, where `F(x) = f(sum_k x_k) + penalty(x)` and x* is a minimiser.

        With u a subgradient of the penalty at x, `r = grad f + u` and any mu > 0:

            F(x) - F(x*) <= r'd - 1/2 d'Hd <= 1/2 r'(H + mu)^-1 r + mu/2 |d|^2,   d = x - x*

        The result is the smallest bound over several mu. If H is regular and mu is small, the first term is the duality
        gap `f(x) + f*(-u) + u'x`, and the radius does not matter.

        Args:
            points: `[K, T, p]`, the K summands of the parameters; one for most penalties.
            duals: `[K, T, p]`, u.
            radius: `[]`, an assumed bound of `|d|`.

        Returns:
            `[]`.
        """
        num_parts, _, size = points.shape
        mean = self.rotate(jnp.mean(duals, 0))
        ranged = self.curvature * self.rotate(jnp.sum(points, 0)) - self.slope + mean
        flat = jnp.zeros((), ranged.dtype)
        if num_parts > 1 or self.basis.shape[-1] < size:
            # Directions without curvature: outside of the basis, and differences between summands.
            flat = jnp.sum(jnp.square(duals - self.unrotate(mean)[None]))
        # In the coordinate `sum_k x_k / sqrt(K)` of the parts, the curvature is K times as large.
        squares = num_parts * jnp.square(ranged)
        length = jnp.sqrt(jnp.sum(squares) + flat)
        unit = jnp.where(length > 0, length, 1.0) / jnp.where(radius > 0, radius, 1.0)

        def at(factor: Array) -> Array:
            mu = factor * unit
            return 0.5 * (jnp.sum(squares / (num_parts * self.curvature + mu)) + flat / mu + mu * jnp.square(radius))

        factors = 0.25 ** jnp.arange(EXPONENTS, dtype=ranged.dtype)
        return jnp.where(length == 0, 0.0, jnp.min(jax.vmap(at)(factors)))


class Means(NamedTuple):
    """The means that give the best intercepts: `intercept_t = targets_t - inputs_t' w_t`.

    Attributes:
        inputs: `[T or 1, p]`.
        targets: `[T]`.
    """

    inputs: Array
    targets: Array

    def intercepts(self, w: Array) -> Array:
        """The best intercepts `[T]` for weights `[T, p]`."""
        return self.targets - jnp.sum(self.inputs * w, 1)


def least_squares(inputs: Array, weights: Array, weighted: Array, *, intercept: bool) -> tuple[Quadratic, Means]:
    """The quadratic model of `1/2 sum_tn a_tn (y_tn - b_t - x_tn' w_t)^2` in w, with the best intercepts b, or b = 0.

    Eigenvalues of a task's Gramian below the rounding error of the largest one are set to 0, and so is the slope along
    their eigenvectors. So a minimiser never depends on rounding errors.

    Args:
        inputs: `[T or 1, N, p]`, finite.
        weights: `[T or 1, N]`, a, non-negative.
        weighted: `[T, N]`, a times y.
        intercept: whether there are intercepts, which are not penalised. If all weights of a task are 0, its intercept
            is such that the mean input of all tasks gives their mean target.

    Returns:
        The model of w without `1/2 sum a y^2`, so that the constant is 0, and the means that give the intercepts.
    """
    total = jnp.sum(weights, 1)
    if intercept:
        means = Means(_mean(_times(weights, inputs), total[:, None]), _mean(jnp.sum(weighted, 1), total))
    else:
        means = Means(jnp.zeros_like(inputs, shape=(1, inputs.shape[2])), jnp.zeros_like(weighted[:, 0]))
    # The mean target is subtracted too: in exact arithmetic it does not change the products, but it adds rounding.
    weighted = weighted - weights * means.targets[:, None]

    def spectrum(x: Array, mean: Array, a: Array) -> tuple[Array, Array]:
        return _spectrum(jnp.sqrt(a)[:, None] * (x - mean[None, :]))

    def project(x: Array, mean: Array, basis: Array, ay: Array) -> Array:
        return multiply(multiply(ay[None], x - mean[None, :]), basis)[0]

    if inputs.shape[0] > 1 or weights.shape[0] == 1:
        mean = jnp.broadcast_to(means.inputs, (inputs.shape[0], inputs.shape[2]))
        curvature, basis = jax.vmap(spectrum)(inputs, mean, jnp.broadcast_to(weights, inputs.shape[:2]))
        if inputs.shape[0] > 1:
            slope = jax.vmap(project)(inputs, mean, basis, weighted)
        else:
            slope = jax.vmap(project, (None, None, None, 0))(inputs[0], mean[0], basis[0], weighted)
    else:
        # One task at a time, so that there are never T copies of the inputs.
        def task(row: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            curvature, basis = spectrum(inputs[0], row[0], row[1])
            return curvature, basis, project(inputs[0], row[0], basis, row[2])

        mean = jnp.broadcast_to(means.inputs, (weights.shape[0], inputs.shape[2]))
        curvature, basis, slope = lax.map(task, (mean, weights, weighted))
    slope = jnp.where(curvature == 0, 0.0, slope)
    return Quadratic(curvature, basis, slope, jnp.zeros((), slope.dtype)), means


def _mean(sums: Array, total: Array) -> Array:
    """Weighted means per task; the mean over all tasks if a task has no weight, and 0 if no task has any."""
    total = jnp.broadcast_to(total, sums.shape[:1] + total.shape[1:])
    everything = jnp.sum(total)
    overall = jnp.sum(sums, 0, keepdims=True) / jnp.where(everything > 0, everything, 1.0)
    return jnp.where(total > 0, sums / jnp.where(total > 0, total, 1.0), overall)


def _spectrum(rows: Array) -> tuple[Array, Array]:
    """Eigenvalues `[r]` and eigenvectors `[p, r]` of `rows' rows`, from rows `[N, p]`, `r = min(N, p)`."""
    length, size = rows.shape
    rounding = jnp.finfo(rows.dtype).eps * max(length, size)
    # The comparisons below are false for NaN, so NaN does not become 0.
    if rows.dtype == jnp.float64 and length >= size:
        # The Gramian squares the condition number, but float64 then still has more digits than float32 to begin with.
        values, vectors = jnp.linalg.eigh(multiply(rows.T, rows))
        return jnp.where(values <= rounding * values[-1], 0.0, values), vectors
    triangle = jnp.linalg.qr(rows, mode="r") if length > size else rows
    _, lengths, vectors = jnp.linalg.svd(triangle, full_matrices=False)
    return jnp.where(lengths <= rounding * lengths[0], 0.0, jnp.square(lengths)), vectors.T


def _times(v: Array, matrices: Array) -> Array:
    """`[T or 1, m] x [T or 1, m, n] -> [T, n]`; a matrix that all tasks share is not copied."""
    if matrices.shape[0] == 1:
        return multiply(v, matrices[0])
    return multiply(jnp.broadcast_to(v, matrices.shape[:2])[:, None, :], matrices)[:, 0, :]
