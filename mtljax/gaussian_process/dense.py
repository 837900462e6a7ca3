"""Multi-task Gaussian-process regression for any observations, by one dense system."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from mtljax.gaussian_process.data import (
    Hyperparameters,
    Observations,
    Prediction,
    Rows,
    as_dtype,
    check_hyperparameters,
    check_observations,
    cleaned,
    pick,
    working_dtype,
)
from mtljax.gaussian_process.kernels import Kernel, diagonal, rbf
from mtljax.types import Array

JITTER = 2.0
"""The default jitter, in rounding units times the number of rows."""


def log_marginal_likelihood(
    params: Hyperparameters, data: Observations, *, kernel: Kernel | None = None, jitter: float | None = None
) -> Array:
    r"""The log density of the observed targets under the multi-task Gaussian process, in nats.

        f_s(x), f_t(x')  have covariance  B_st k(x, x'),  B = W W^T + diag(kappa)
        y_i = mean_{t_i} + f_{t_i}(x_i) + noise of variance sigma_{t_i}^2
        log p(y) = -1/2 (y - mean)^T C^-1 (y - mean) - 1/2 log det C - N/2 log 2 pi

    C is the `[N, N]` covariance of the observations. Any input may be observed for any tasks. One Cholesky
    factorisation takes `O(N^3)` time and `O(N^2)` memory.

    Args:
        params: `Hyperparameters` of T tasks.
        data: `Observations`.
        kernel: the kernel of `params.kernel`; default `rbf()`.
        jitter: j >= 0; the noise variance of row i is raised by `j B_tt k(x_i, x_i)`, a share of the row's signal
            variance. Default: `2 N` times the rounding unit of the dtype. With less, covariances of smooth kernels and
            little noise are not positive definite in float32. The jitter is part of the model, both in fitting and in
            prediction.

    Returns:
        `[]`, float32, or float64 if parameters or data are. NaN if C is not positive definite in that precision, which
        the default jitter prevents, or if a task number is out of range.

    Raises:
        ValueError: shapes do not match, a known task number is out of range, or the jitter is negative.
        TypeError: an array has the wrong dtype.

    References:
        Bonilla, Chai and Williams, "Multi-Task Gaussian Process Prediction", NeurIPS 2007. Departures: the paper writes
        B as `L L^T` with L lower trapezoidal `[T, r]`. Here W is free and a diagonal is added, so that B has full rank
        for any r. Means are explicit.

    Example:
        >>> import jax
        >>> data = Observations(jnp.zeros((1, 1)), jnp.array([0]), jnp.array([2.0]))
        >>> zero, one = jnp.zeros(1), jnp.ones((1, 1))
        >>> params = Hyperparameters(jnp.zeros(()), one, zero, jnp.log(jnp.full(1, 2.0)), zero)
        >>> f"{jax.jit(log_marginal_likelihood)(params, data):.4f}"  # -1/2 (2^2 / 4 + log 4 + log 2 pi)
        '-2.1121'
    """
    kernel = rbf() if kernel is None else kernel
    params, rows, covariance = _system("log_marginal_likelihood", params, data, kernel, jitter)
    residual = jnp.where(rows.mask, rows.targets - pick(params.mean, rows.tasks), 0.0)
    factor = _cholesky(covariance)
    white = lax.linalg.triangular_solve(factor, residual[:, None], left_side=True, lower=True)
    log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor)))
    return -0.5 * (jnp.sum(jnp.square(white)) + log_det + math.log(2.0 * math.pi) * data.observed)


def predict(
    params: Hyperparameters,
    data: Observations,
    inputs: Array,
    tasks: Array,
    *,
    kernel: Kernel | None = None,
    jitter: float | None = None,
) -> Prediction:
    """The posterior mean and variance of the tasks' functions at new inputs.

        mean = mean_t + c^T C^-1 (y - mean),   variance = B_tt k(x, x) - c^T C^-1 c,   c_i = B_{t t_i} k(x, x_i)

    Args:
        params: `Hyperparameters` of T tasks.
        data: `Observations`.
        inputs: `[M, p]`, floating.
        tasks: integers `[M]`, the task of each input.
        kernel: the kernel of `params.kernel`; default `rbf()`.
        jitter: as in `log_marginal_likelihood`.

    Returns:
        `Prediction` with leaves `[M]`, float32, or float64 if parameters or data are. `O(N^3 + N^2 M)` time and
        `O(N^2 + N M)` memory. NaN for a task number that is out of range.

    Raises:
        ValueError: shapes do not match, a known task number is out of range, or the jitter is negative.
        TypeError: an array has the wrong dtype.

    Example:
        >>> import jax
        >>> data = Observations(jnp.zeros((1, 1)), jnp.array([0]), jnp.array([2.0]))
        >>> zero, one = jnp.zeros(1), jnp.ones((1, 1))
        >>> params = Hyperparameters(jnp.zeros(()), one, zero, jnp.log(jnp.full(1, 2.0)), zero)
        >>> mean, variance = jax.jit(predict)(params, data, jnp.zeros((1, 1)), jnp.array([0]))
        >>> f"{mean[0]:.3f} {variance[0]:.3f}"
        '1.000 1.000'
    """
    kernel = rbf() if kernel is None else kernel
    params, rows, covariance = _system("predict", params, data, kernel, jitter)
    asked = Observations(inputs, tasks, jnp.zeros(jnp.shape(tasks), jnp.float32))
    check_observations("predict", asked, len(params.mean), rows.inputs.shape[1])
    asked = cleaned(asked, len(params.mean), covariance.dtype)
    residual = jnp.where(rows.mask, rows.targets - pick(params.mean, rows.tasks), 0.0)
    cross = _task_covariance(params, rows.tasks, asked.tasks) * kernel(params.kernel, rows.inputs, asked.inputs)
    cross = jnp.where(rows.mask[:, None], cross, 0.0)
    halves = lax.linalg.triangular_solve(
        _cholesky(covariance), jnp.column_stack([residual, cross]), left_side=True, lower=True
    )
    own = pick(jnp.sum(jnp.square(params.factor), axis=1) + jnp.exp(params.log_kappa), asked.tasks)
    return Prediction(
        mean=pick(params.mean, asked.tasks) + jnp.matmul(halves[:, 0], halves[:, 1:], precision=lax.Precision.HIGHEST),
        # Because of rounding, the difference of equal numbers may be below zero.
        variance=jnp.maximum(own * diagonal(kernel, params.kernel, asked.inputs) - jnp.sum(halves[:, 1:] ** 2, 0), 0.0),
    )


def _system(
    name: str, params: Hyperparameters, data: Observations, kernel: Kernel, jitter: float | None
) -> tuple[Hyperparameters, Rows, Array]:
    """Parameters and rows, checked and of one dtype, and the covariance C; masked rows are those of the identity."""
    num_tasks = check_hyperparameters(name, params)
    check_observations(name, data, num_tasks)
    dtype = working_dtype(params, data.inputs, data.targets)
    if jitter is None:
        jitter = JITTER * len(data.tasks) * float(jnp.finfo(dtype).eps)
    if not isinstance(jitter, Tracer) and not jitter >= 0:
        raise ValueError(f"{name}: jitter must be at least 0, found {jitter}")
    params, rows = as_dtype(params, dtype), cleaned(data, num_tasks, dtype)
    signal = _task_covariance(params, rows.tasks, rows.tasks) * kernel(params.kernel, rows.inputs, rows.inputs)
    own = pick(jnp.exp(params.log_noise), rows.tasks) + jitter * jnp.diagonal(signal)
    both = rows.mask[:, None] & rows.mask[None, :]
    covariance = jnp.where(both, signal, 0.0) + jnp.diag(jnp.where(rows.mask, own, 1.0))
    return params, rows, covariance


def _task_covariance(params: Hyperparameters, a: Array, b: Array) -> Array:
    """`B[a, b]`, `[N, M]`, without forming B."""
    shared = jnp.matmul(pick(params.factor, a), pick(params.factor, b).T, precision=lax.Precision.HIGHEST)
    return shared + jnp.where(a[:, None] == b[None, :], pick(jnp.exp(params.log_kappa), a)[:, None], 0.0)


def _cholesky(covariance: Array) -> Array:
    return lax.linalg.cholesky(covariance, symmetrize_input=False)
