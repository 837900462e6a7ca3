"""Multi-task Gaussian processes of linear functions, in weight space: exact, at a cost independent of the rows."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax.convex.products import product
from mtljax.gaussian_process.data import (
    Hyperparameters,
    Observations,
    Prediction,
    as_dtype,
    check_hyperparameters,
    check_observations,
    cleaned,
    pick,
    working_dtype,
)
from mtljax.gaussian_process.statistics import LinearStatistics
from mtljax.types import Array


class LinearWeights(NamedTuple):
    """The Gaussian posterior of linear functions, `f_t(x) = w_t . x`.

    Attributes:
        intercept: `[T]`, the constant of the mean function, which is added to `w_t . x`.
        mean: `[T, p]`, `E w_t`.
        covariance: `[T, p, p]`, of each task's weights.
    """

    intercept: Array
    mean: Array
    covariance: Array


class _Solved(NamedTuple):
    """The solved system. Scaled weights are `l * w_t = G f_t + sqrt(kappa_t) e_t`, G and e_t with iid N(0, 1) entries.

    Attributes:
        inverse_scales: `[p]`, 1 / l.
        own: `[T, p, p]`, `N_t^-1` with `N_t = I + kappa_t / sigma_t^2 S_t`, S_t the scaled Gram matrix.
        fitted: `[T, p]`, `N_t^-1 b_t / sigma_t^2`, b_t the scaled moments of targets minus means.
        factor: `[r p, r p]`, Cholesky factor of the precision of G given the data.
        white: `[r p]`, that factor's inverse times `sum_t f_t (x) fitted_t`.
        log_likelihood: `[]`.
    """

    inverse_scales: Array
    own: Array
    fitted: Array
    factor: Array
    white: Array
    log_likelihood: Array


def linear_log_likelihood(params: Hyperparameters, data: LinearStatistics) -> Array:
    r"""`log_marginal_likelihood` with the kernel `linear()`, at a cost that does not depend on the number of rows.

    The process is a prior on weights, `f_t(x) = w_t . x`, `vec(W) ~ N(0, B (x) Sigma)`, `Sigma = diag(1 / l^2)`. With
    `B = F F^T + diag(kappa)`, each task's own part is integrated out, and a system of `r p` unknowns is left:

        log p(y) = sum_t log N(y_t; mean_t, C_t) - 1/2 log det A + 1/2 h^T A^-1 h
        A = I + sum_t f_t f_t^T (x) Z_t^T C_t^-1 Z_t,   h = sum_t f_t (x) Z_t^T C_t^-1 (y_t - mean_t)

    with `Z_t = X_t Sigma^1/2`, `C_t = kappa_t Z_t Z_t^T + sigma_t^2 I` and f_t row t of F, which is W of
    `Hyperparameters`. It takes `O(T p^3 + (r p)^3 + T r^2 p^2)` time.

    Args:
        params: `Hyperparameters` of T tasks, with the parameters `log l` `[p]` of `linear()` as `kernel`.
        data: `linear_statistics(observations, T)`.

    Returns:
        `[]`, float32, or float64 if parameters or data are. It equals the dense form without jitter. Jitter is not
        needed here, since no system has an eigenvalue below 1. The sum of squared residuals is a difference of larger
        numbers: it loses as many digits as the ratio of signal to noise has.

    Raises:
        ValueError: shapes do not match.

    References:
        Rasmussen and Williams, "Gaussian Processes for Machine Learning", section 2.1, MIT Press 2006, for one task.
        Bonilla, Chai and Williams, "Multi-Task Gaussian Process Prediction", NeurIPS 2007.

    Example:
        >>> zero, one = jnp.zeros(1), jnp.ones((1, 1))
        >>> data = LinearStatistics(one[None], one, 2.0 * one, jnp.full(1, 4.0), zero, one[0])  # x = 1, y = 2
        >>> params = Hyperparameters(zero, one, zero, jnp.log(jnp.full(1, 2.0)), zero)
        >>> f"{jax.jit(linear_log_likelihood)(params, data):.4f}"  # -1/2 (2^2 / 4 + log 4 + log 2 pi)
        '-2.1121'
    """
    params, data = _checked("linear_log_likelihood", params, data)
    return _solve(params, data).log_likelihood


def linear_weights(params: Hyperparameters, data: LinearStatistics) -> LinearWeights:
    """The posterior of the weights of linear functions.

    Args:
        params: as in `linear_log_likelihood`.
        data: as in `linear_log_likelihood`.

    Returns:
        `LinearWeights`, in the units of the given inputs. It takes `O((r p)^3 + T r^2 p^2)` time more than the
        likelihood, and `O(T r p^2)` memory.

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> zero, one = jnp.zeros(1), jnp.ones((1, 1))
        >>> data = LinearStatistics(one[None], one, 2.0 * one, jnp.full(1, 4.0), zero, one[0])  # x = 1, y = 2
        >>> params = Hyperparameters(zero, one, zero, jnp.log(jnp.full(1, 2.0)), zero)
        >>> found = jax.jit(linear_weights)(params, data)
        >>> f"{found.mean[0, 0]:.3f} {found.covariance[0, 0, 0]:.3f}"
        '1.000 1.000'
    """
    params, data = _checked("linear_weights", params, data)
    solved = _solve(params, data)
    kappa, scales = jnp.exp(params.log_kappa), solved.inverse_scales
    features, rank = data.sums.shape[1], params.factor.shape[1]
    inverse_factor = lax.linalg.triangular_solve(
        solved.factor, jnp.eye(rank * features, dtype=scales.dtype), left_side=True, lower=True
    ).reshape(rank * features, rank, features)
    # The inverse factor, contracted with f_t, is a square root of the covariance of G f_t.
    root = product("kap,ta->tkp", inverse_factor, params.factor)
    shared = product("tkp,k->tp", root, solved.white)
    mean = product("tpq,tq->tp", solved.own, shared) + kappa[:, None] * solved.fitted
    root = product("tkp,tpq->tkq", root, solved.own)
    covariance = product("tkp,tkq->tpq", root, root) + kappa[:, None, None] * solved.own
    return LinearWeights(
        intercept=params.mean,
        mean=mean * scales[None, :],
        covariance=covariance * scales[None, :, None] * scales[None, None, :],
    )


def linear_predict(params: Hyperparameters, data: LinearStatistics, inputs: Array, tasks: Array) -> Prediction:
    """`predict` with the kernel `linear()`, from `LinearStatistics`.

    Args:
        params: as in `linear_log_likelihood`.
        data: as in `linear_log_likelihood`.
        inputs: `[M, p]`, floating.
        tasks: integers `[M]`, the task of each input.

    Returns:
        `Prediction` with leaves `[M]`. It takes `O(M p^2)` time and `O(M p)` memory more than `linear_weights`. NaN for
        a task number that is out of range.

    Raises:
        ValueError: shapes do not match, or a known task number is out of range.
        TypeError: inputs are not floating, or tasks are not integers.

    Example:
        >>> zero, one = jnp.zeros(1), jnp.ones((1, 1))
        >>> data = LinearStatistics(one[None], one, 2.0 * one, jnp.full(1, 4.0), zero, one[0])  # x = 1, y = 2
        >>> params = Hyperparameters(zero, one, zero, jnp.log(jnp.full(1, 2.0)), zero)
        >>> mean, variance = jax.jit(linear_predict)(params, data, jnp.full((1, 1), 3.0), jnp.array([0]))
        >>> f"{mean[0]:.3f} {variance[0]:.3f}"
        '3.000 9.000'
    """
    asked = Observations(inputs, tasks, jnp.zeros(jnp.shape(tasks), jnp.float32))
    num_tasks, features = jnp.shape(data.sums)
    check_observations("linear_predict", asked, num_tasks, features)
    found = linear_weights(params, data)
    asked = cleaned(asked, num_tasks, found.mean.dtype)

    def add_column(variance: Array, column: tuple[Array, Array]) -> tuple[Array, None]:
        values, covariances = column
        return variance + values * jnp.sum(pick(covariances, asked.tasks) * asked.inputs, axis=1), None

    # One column of the covariances at a time: [M, p, p] is not formed.
    variance, _ = lax.scan(
        add_column, jnp.zeros_like(asked.inputs[:, 0]), (asked.inputs.T, jnp.moveaxis(found.covariance, 2, 0))
    )
    return Prediction(
        mean=pick(found.intercept, asked.tasks) + jnp.sum(pick(found.mean, asked.tasks) * asked.inputs, axis=1),
        variance=jnp.maximum(variance, 0.0),
    )


def _checked(name: str, params: Hyperparameters, data: LinearStatistics) -> tuple[Hyperparameters, LinearStatistics]:
    """Both arguments in one dtype, with one mean per task."""
    num_tasks = check_hyperparameters(name, params)
    tasks, features = jnp.shape(data.sums)
    if tasks != num_tasks:
        raise ValueError(f"{name}: params and data must have the same tasks, found {num_tasks} and {tasks} tasks")
    found = getattr(params.kernel, "shape", type(params.kernel).__name__)
    if found != (features,):
        raise ValueError(f"{name}: params.kernel must have shape ({features},), found {found}")
    dtype = working_dtype(params, data)
    return as_dtype(params, dtype), jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), data)


def _solve(params: Hyperparameters, data: LinearStatistics) -> _Solved:
    (num_tasks, features), rank = data.sums.shape, params.factor.shape[1]
    scales = jnp.exp(-params.kernel)
    noise, kappa = jnp.exp(params.log_noise), jnp.exp(params.log_kappa)
    off = params.mean - data.center
    gram = data.gram * scales[None, :, None] * scales[None, None, :]
    moments = (data.moments - off[:, None] * data.sums) * scales[None, :]
    squares = data.squares + data.count * jnp.square(off)
    ratio = (kappa / noise)[:, None, None]
    own_factor = jnp.linalg.cholesky(jnp.eye(features, dtype=gram.dtype)[None] + ratio * gram)
    identity = jnp.broadcast_to(jnp.eye(features, dtype=gram.dtype), gram.shape)
    inverse_root = lax.linalg.triangular_solve(own_factor, identity, left_side=True, lower=True)
    own = product("tkp,tkq->tpq", inverse_root, inverse_root)
    white = product("tkp,tp->tk", inverse_root, moments)
    fitted = product("tkp,tk->tp", inverse_root, white) / noise[:, None]
    precision = product("tpk,tkq->tpq", own, gram) / noise[:, None, None]
    pairs = (params.factor[:, :, None] * params.factor[:, None, :]).reshape(num_tasks, rank * rank)
    system = product("tc,tpq->cpq", pairs, 0.5 * (precision + jnp.swapaxes(precision, 1, 2)))
    system = jnp.swapaxes(system.reshape(rank, rank, features, features), 1, 2)
    size = rank * features
    factor = jnp.linalg.cholesky(jnp.eye(size, dtype=gram.dtype) + system.reshape(size, size))
    right = product("ta,tp->ap", params.factor, fitted).reshape(size)
    shared = lax.linalg.triangular_solve(factor, right[:, None], left_side=True, lower=True)[:, 0]
    squared = jnp.sum((squares - ratio[:, 0, 0] * jnp.sum(jnp.square(white), axis=1)) / noise) - jnp.sum(shared**2)
    log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(own_factor, axis1=1, axis2=2)))
    log_det += 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor))) + jnp.sum(data.count * params.log_noise)
    return _Solved(
        inverse_scales=scales,
        own=own,
        fitted=fitted,
        factor=factor,
        white=shared,
        log_likelihood=-0.5 * (squared + log_det + math.log(2.0 * math.pi) * jnp.sum(data.count)),
    )
