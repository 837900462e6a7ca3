"""The two half-steps of the alternations: each computes W `[T, p]` from a matrix, D or Omega, that comes from W.

Both lower `F(W) = sum_t |y_t - X_t w_t|^2 + a |W|_F^2 + g (sum_i d_i)^2`, where `d_i = sqrt(s_i^2 + e^2)` and s_i are
the k = min(T, p) singular values of W. They use `(sum_i d_i)^2 <= sum_i d_i^2 / m_i` for any positive m of sum 1, with
equality at `m = d / sum(d)`, the closed form of both papers. `from_features` keeps the rows of W in the space that they
span, `from_relations` its columns. The span of a side of length k is the whole space, so that side is free.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import jax.numpy as jnp
from jax import lax
from jax.scipy.sparse.linalg import cg

from mtljax.convex.products import product
from mtljax.types import Array

MOST_STEPS = 100
REDUCTION = 1e-2
"""For conjugate gradients in one half-step: the largest number of steps, and the factor by which the residual falls."""


class Regression(NamedTuple):
    """Prepared least-squares problems of T tasks: masked rows are 0, and data are centered if there are intercepts.

    Attributes:
        inputs: `[T, N, p]`, rows times `sqrt(c_t)`.
        targets: `[T, N]`, times `sqrt(c_t)`.
        gram: `[T, p, p]`, `X^T X` of these.
        moments: `[T, p]`, `X^T y` of these.
        input_means: `[T, p]`, the means that centering subtracted; 0 without intercepts.
        target_means: `[T]`, likewise.
    """

    inputs: Array
    targets: Array
    gram: Array
    moments: Array
    input_means: Array
    target_means: Array


class Decomposed(NamedTuple):
    """W `[T, p]` as `left [T, k] diag(values) right [k, p]`, k = min(T, p), values in descending order."""

    left: Array
    values: Array
    right: Array


def decomposed(weights: Array) -> Decomposed:
    """The singular value decomposition.

    Example:
        >>> decomposed(jnp.diag(jnp.array([1.0, -3.0]))).values.tolist()
        [3.0, 1.0]
    """
    return Decomposed(*jnp.linalg.svd(weights, full_matrices=False))


def shares(values: Array, perturbation: Array) -> Array:
    """`d / sum(d)`, `d = sqrt(values^2 + e^2)`, `[k]`; 1 / k each if all are 0.

    Example:
        >>> shares(jnp.array([3.0, 1.0]), jnp.zeros(())).tolist()
        [0.75, 0.25]
    """
    # In units of the largest value, so that not all squares underflow.
    unit = jnp.maximum(values[0], perturbation)
    something = unit > 0
    unit = jnp.where(something, unit, 1.0)
    roots = jnp.sqrt(jnp.square(values / unit) + jnp.square(perturbation / unit))
    return jnp.where(something, roots / jnp.where(something, jnp.sum(roots), 1.0), 1.0 / len(values))


def from_features(data: Regression, weights: Array, perturbation: Array, square: Array, trace: Array) -> Array:
    """W from `D = (W^T W + e^2 I)^1/2 / tr`, by one least-squares problem per task; all tasks share D.

    `w_t = D^1/2 (D^1/2 X_t^T X_t D^1/2 + a D + g I)^-1 D^1/2 X_t^T y_t`, in the basis of D's eigenvectors, without
    divisions by small eigenvalues.

    Args:
        data: `Regression`.
        weights: W `[T, p]`.
        perturbation: e.
        square: a.
        trace: g.

    Returns:
        The new W.
    """
    parts = decomposed(weights)
    share = shares(parts.values, perturbation)
    root = jnp.sqrt(share)[:, None] * parts.right
    gram = product("tkp,lp->tkl", product("kp,tpq->tkq", root, data.gram), root)
    ridge = jnp.diag(square * share + trace)
    return product("tk,kp->tp", solve(gram + ridge[None], product("tp,kp->tk", data.moments, root)), root)


def from_relations(data: Regression, weights: Array, perturbation: Array, square: Array, trace: Array) -> Array:
    """W from `Omega = (W W^T + e^2 I)^1/2 / tr`: one least-squares problem that couples the tasks.

    `W = Omega^1/2 V` with V the minimiser of `sum_t |y_t - X_t w_t|^2 + a |W|_F^2 + g |V|_F^2`, `[k, p]` in the basis
    of Omega's eigenvectors. Conjugate gradients start from the V of the given W; each of their steps lowers that sum.
    Arguments and result are those of `from_features`.
    """
    parts = decomposed(weights)
    share = shares(parts.values, perturbation)
    root = parts.left * jnp.sqrt(share)[None, :]
    ridge = (square * share + trace)[:, None]

    def operator(v: Array) -> Array:
        fitted = product("tpq,tq->tp", data.gram, product("tk,kp->tp", root, v))
        return product("tk,tp->kp", root, fitted) + ridge * v

    def norm(v: Array) -> Array:
        return jnp.sqrt(jnp.sum(jnp.square(v)))

    # 0 where the share is 0, since a singular value is at most its d.
    ratio = jnp.where(share > 0, parts.values / jnp.sqrt(jnp.where(share > 0, share, 1.0)), 0.0)
    start = ratio[:, None] * parts.right
    right = product("tk,tp->kp", root, data.moments)
    enough = jnp.maximum(REDUCTION * norm(right - operator(start)), 4.0 * jnp.finfo(right.dtype).eps * norm(right))
    v, _ = cg(operator, right, start, tol=0.0, atol=cast(float, enough), maxiter=MOST_STEPS)
    return product("tk,kp->tp", root, v)


def solve(gram: Array, moments: Array) -> Array:
    """`G_t^-1 b_t` for each task, `[T, k, k]`, `[T, k] -> [T, k]`, by Cholesky factors.

    Example:
        >>> solve(jnp.full((1, 1, 1), 4.0), jnp.full((1, 1), 2.0)).tolist()
        [[0.5]]
    """
    factor = jnp.linalg.cholesky(gram)
    half = lax.linalg.triangular_solve(factor, moments[:, :, None], left_side=True, lower=True)
    return lax.linalg.triangular_solve(factor, half, left_side=True, lower=True, transpose_a=True)[:, :, 0]
