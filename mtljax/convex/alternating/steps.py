"""The two half-steps of the alternations: W `[T, p]` from the matrix that its columns or its rows imply.

Both lower `F(W) = sum_t |y_t - X_t w_t|^2 + a |W|_F^2 + g (sum_i d_i)^2`, `d_i = sqrt(s_i^2 + e^2)`, over the
k = min(T, p) singular values s_i of W: `(sum_i d_i)^2 <= sum_i d_i^2 / m_i` for any positive m of sum 1, with equality
at `m = d / sum(d)`, the closed form of both papers. One half-step keeps the rows of W in the space that they span, the
other its columns; whichever side k is as long as is not kept at all.
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
"""Of conjugate gradients in one half-step: most steps, and what is to be left of the residual."""


class Regression(NamedTuple):
    """Least squares of T tasks, made ready: masked rows are 0, and all is centred where there are intercepts.

    Attributes:
        inputs: `[T, N, p]`, rows times `sqrt(c_t)`.
        targets: `[T, N]`, times `sqrt(c_t)`.
        gram: `[T, p, p]`, `X^T X` of those.
        moments: `[T, p]`, `X^T y` of those.
        input_means: `[T, p]`, what was taken off before; 0 without intercepts.
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
    """`d / sum(d)`, `d = sqrt(values^2 + e^2)`, `[k]`; 1 / k each where all is 0.

    Example:
        >>> shares(jnp.array([3.0, 1.0]), jnp.zeros(())).tolist()
        [0.75, 0.25]
    """
    # In units of the largest, so that no square underflows.
    unit = jnp.maximum(values[0], perturbation)
    something = unit > 0
    unit = jnp.where(something, unit, 1.0)
    roots = jnp.sqrt(jnp.square(values / unit) + jnp.square(perturbation / unit))
    return jnp.where(something, roots / jnp.where(something, jnp.sum(roots), 1.0), 1.0 / len(values))


def from_features(data: Regression, weights: Array, perturbation: Array, square: Array, trace: Array) -> Array:
    """W from `D = (W^T W + e^2 I)^1/2 / tr`: a least-squares problem of its own for each task, which all share D.

    `w_t = D^1/2 (D^1/2 X_t^T X_t D^1/2 + a D + g I)^-1 D^1/2 X_t^T y_t`, in the basis of D's eigenvectors: nothing is
    divided by a small eigenvalue.

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
    of Omega's eigenvectors, by conjugate gradients from the V of the W before. Each of their steps lowers that sum.

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
    root = parts.left * jnp.sqrt(share)[None, :]
    ridge = (square * share + trace)[:, None]

    def operator(v: Array) -> Array:
        fitted = product("tpq,tq->tp", data.gram, product("tk,kp->tp", root, v))
        return product("tk,tp->kp", root, fitted) + ridge * v

    def norm(v: Array) -> Array:
        return jnp.sqrt(jnp.sum(jnp.square(v)))

    # 0 where the share is: a singular value is at most its d.
    ratio = jnp.where(share > 0, parts.values / jnp.sqrt(jnp.where(share > 0, share, 1.0)), 0.0)
    start = ratio[:, None] * parts.right
    right = product("tk,tp->kp", root, data.moments)
    enough = jnp.maximum(REDUCTION * norm(right - operator(start)), 4.0 * jnp.finfo(right.dtype).eps * norm(right))
    v, _ = cg(operator, right, start, tol=0.0, atol=cast(float, enough), maxiter=MOST_STEPS)
    return product("tk,kp->tp", root, v)


def solve(gram: Array, moments: Array) -> Array:
    """`G_t^-1 b_t` of each task, `[T, k, k]`, `[T, k] -> [T, k]`, by Cholesky factors.

    Example:
        >>> solve(jnp.full((1, 1, 1), 4.0), jnp.full((1, 1), 2.0)).tolist()
        [[0.5]]
    """
    factor = jnp.linalg.cholesky(gram)
    half = lax.linalg.triangular_solve(factor, moments[:, :, None], left_side=True, lower=True)
    return lax.linalg.triangular_solve(factor, half, left_side=True, lower=True, transpose_a=True)[:, :, 0]
