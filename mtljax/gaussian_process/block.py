"""Multi-task Gaussian-process regression if every task is observed at every input: two small eigenproblems."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax.gaussian_process.data import (
    Hyperparameters,
    Observations,
    Prediction,
    as_dtype,
    check_hyperparameters,
    working_dtype,
)
from mtljax.gaussian_process.kernels import Kernel, diagonal, rbf
from mtljax.solvers.scaling import multiply
from mtljax.types import Array


class Block(NamedTuple):
    """Targets of all tasks at the same inputs, none missing.

    Attributes:
        inputs: `[N, p]`, floating.
        targets: `[N, T]`, floating.
    """

    inputs: Array
    targets: Array

    @property
    def observed(self) -> Array:
        """Number of observed targets, `[]`."""
        return jnp.asarray(jnp.size(self.targets))


class _Whitened(NamedTuple):
    """Targets and covariances in units of each task's noise; the determinant of this scaling is added separately.

    Attributes:
        inputs: `[N, N]`, K.
        tasks: `[T, T]`, `B_st / (sigma_s sigma_t)`.
        residual: `[N, T]`, `(Y - mean) / sigma`.
    """

    inputs: Array
    tasks: Array
    residual: Array


def block_observations(data: Block) -> Observations:
    """The same data as `N T` rows, input by input, for `init`.

    Example:
        >>> block_observations(Block(jnp.ones((2, 1)), jnp.array([[1.0, 2.0], [3.0, 4.0]]))).tasks.tolist()
        [0, 1, 0, 1]
    """
    rows, num_tasks = jnp.shape(data.targets)
    return Observations(
        inputs=jnp.repeat(data.inputs, num_tasks, axis=0),
        tasks=jnp.tile(jnp.arange(num_tasks), rows),
        targets=jnp.ravel(data.targets),
    )


def block_log_likelihood(params: Hyperparameters, data: Block, *, kernel: Kernel | None = None) -> Array:
    r"""`log_marginal_likelihood` of a complete block, in `O(N^3 + T^3 + N T (N + T))` in place of `O(N^3 T^3)` time.

    With `D = diag(sigma^2)`, `K = V diag(l) V^T` and `D^-1/2 B D^-1/2 = U diag(s) U^T` the covariance of all targets is

        B (x) K + D (x) I = (D^1/2 U (x) V) (diag(s) (x) diag(l) + I) (D^1/2 U (x) V)^T

    So noise may differ between tasks. The derivative is written out. The derivatives of eigenvectors divide by
    differences of eigenvalues, which are 0 if tasks are alike; the derivative of the likelihood does not.

    Args:
        params: `Hyperparameters` of T tasks.
        data: `Block`.
        kernel: the kernel of `params.kernel`; default `rbf()`.

    Returns:
        `[]`, float32, or float64 if parameters or data are. It equals the dense form without jitter. Jitter is not
        needed here, since in units of noise no eigenvalue is below 1. There are first derivatives only.

    Raises:
        ValueError: shapes do not match.
        TypeError: inputs or targets are not floating.

    References:
        Bonilla, Chai and Williams, "Multi-Task Gaussian Process Prediction", NeurIPS 2007.
        Stegle, Lippert, Mooij, Lawrence and Borgwardt, "Efficient Inference in Matrix-Variate Gaussian Models with iid
        Observation Noise", NeurIPS 2011.

    Example:
        >>> data = Block(jnp.zeros((1, 1)), jnp.array([[2.0]]))
        >>> zero, one = jnp.zeros(1), jnp.ones((1, 1))
        >>> params = Hyperparameters(jnp.zeros(()), one, zero, jnp.log(jnp.full(1, 2.0)), zero)
        >>> f"{jax.jit(block_log_likelihood)(params, data):.4f}"  # -1/2 (2^2 / 4 + log 4 + log 2 pi)
        '-2.1121'
    """
    params, whitened = _whitened("block_log_likelihood", params, data, rbf() if kernel is None else kernel)
    rows, num_tasks = jnp.shape(data.targets)
    scales = rows * (0.5 * jnp.sum(params.log_noise) + 0.5 * num_tasks * math.log(2.0 * math.pi))
    return _log_density(whitened) - scales


def block_predict(params: Hyperparameters, data: Block, inputs: Array, *, kernel: Kernel | None = None) -> Prediction:
    """`predict` for all tasks at new inputs, from a complete block.

    Args:
        params: `Hyperparameters` of T tasks.
        data: `Block`.
        inputs: `[M, p]`, floating.
        kernel: the kernel of `params.kernel`; default `rbf()`.

    Returns:
        `Prediction` with leaves `[M, T]`, float32, or float64 if parameters or data are.

    Raises:
        ValueError: shapes do not match.
        TypeError: inputs or targets are not floating.

    Example:
        >>> data = Block(jnp.zeros((1, 1)), jnp.array([[2.0]]))
        >>> zero, one = jnp.zeros(1), jnp.ones((1, 1))
        >>> params = Hyperparameters(jnp.zeros(()), one, zero, jnp.log(jnp.full(1, 2.0)), zero)
        >>> mean, variance = jax.jit(block_predict)(params, data, jnp.zeros((1, 1)))
        >>> f"{mean[0, 0]:.3f} {variance[0, 0]:.3f}"
        '1.000 1.000'
    """
    kernel = rbf() if kernel is None else kernel
    params, whitened = _whitened("block_predict", params, data, kernel)
    features = jnp.shape(data.inputs)[1]
    _check_floating("block_predict", "inputs", inputs)
    if jnp.ndim(inputs) != 2 or jnp.shape(inputs)[1] != features:
        raise ValueError(f"block_predict: inputs must have shape [M, {features}], found {jnp.shape(inputs)}")
    deviation = jnp.exp(0.5 * params.log_noise)[None, :]
    inputs = jnp.asarray(inputs, deviation.dtype)
    left, _, right, between_tasks, spectrum = _spectrum(whitened)
    cross = multiply(kernel(params.kernel, inputs, jnp.asarray(data.inputs, deviation.dtype)), left)
    weights = multiply(multiply(left.T, whitened.residual), right) / spectrum * between_tasks[None, :]
    # Var f_t(x) = sigma_t^2 sum_s U_ts^2 s_s (k(x, x) - sum_i (k_x . v_i)^2 s_s / (l_i s_s + 1))
    prior = diagonal(kernel, params.kernel, inputs)[:, None]
    left_over = prior - multiply(jnp.square(cross), between_tasks[None, :] / spectrum)
    variance = multiply(jnp.maximum(left_over, 0.0) * between_tasks[None, :], jnp.square(right).T)
    return Prediction(
        mean=params.mean[None, :] + multiply(multiply(cross, weights), right.T) * deviation,
        variance=variance * jnp.square(deviation),
    )


def _whitened(name: str, params: Hyperparameters, data: Block, kernel: Kernel) -> tuple[Hyperparameters, _Whitened]:
    num_tasks = check_hyperparameters(name, params)
    for argument, array in data._asdict().items():
        _check_floating(name, argument, array)
    if jnp.ndim(data.inputs) != 2 or jnp.shape(data.targets) != (jnp.shape(data.inputs)[0], num_tasks):
        raise ValueError(
            f"{name}: expected inputs [N, p] and targets [N, {num_tasks}], "
            f"found {jnp.shape(data.inputs)} and {jnp.shape(data.targets)}"
        )
    dtype = working_dtype(params, data)
    params = as_dtype(params, dtype)
    inputs, targets = jnp.asarray(data.inputs, dtype), jnp.asarray(data.targets, dtype)
    deviation = jnp.exp(0.5 * params.log_noise)
    return params, _Whitened(
        inputs=kernel(params.kernel, inputs, inputs),
        tasks=params.task_covariance / deviation[:, None] / deviation[None, :],
        residual=(targets - params.mean[None, :]) / deviation[None, :],
    )


def _check_floating(name: str, argument: str, array: Array) -> None:
    if not jnp.issubdtype(jnp.result_type(array), jnp.floating):
        raise TypeError(f"{name}: {argument} must be of type floating, found {jnp.result_type(array).name}")


def _spectrum(whitened: _Whitened) -> tuple[Array, Array, Array, Array, Array]:
    """V `[N, N]`, l `[N]`, U `[T, T]`, s `[T]`, `l_i s_t + 1` `[N, T]`; eigenvalues below 0, from rounding, are 0."""
    between_inputs, left = jnp.linalg.eigh(whitened.inputs)
    between_tasks, right = jnp.linalg.eigh(whitened.tasks)
    between_inputs, between_tasks = jnp.maximum(between_inputs, 0.0), jnp.maximum(between_tasks, 0.0)
    return left, between_inputs, right, between_tasks, between_inputs[:, None] * between_tasks[None, :] + 1.0


@jax.custom_jvp
def _log_density(whitened: _Whitened) -> Array:
    """`-1/2 r^T (B (x) K + I)^-1 r - 1/2 log det (B (x) K + I)` of whitened B, K and r."""
    left, _, right, _, spectrum = _spectrum(whitened)
    rotated = multiply(multiply(left.T, whitened.residual), right)
    return -0.5 * jnp.sum(jnp.square(rotated) / spectrum + jnp.log(spectrum))


@_log_density.defjvp
def _log_density_jvp(primals: tuple[_Whitened], tangents: tuple[_Whitened]) -> tuple[Array, Array]:
    whitened, change = primals[0], tangents[0]
    left, between_inputs, right, between_tasks, spectrum = _spectrum(whitened)
    rotated = multiply(multiply(left.T, whitened.residual), right) / spectrum
    weights = multiply(multiply(left, rotated), right.T)
    # The derivatives of the log determinant and of the quadratic form, both in the basis of the eigenvectors.
    inputs = multiply(rotated * between_tasks[None, :], rotated.T)
    inputs -= jnp.diag(jnp.sum(between_tasks[None, :] / spectrum, axis=1))
    tasks = multiply(rotated.T, rotated * between_inputs[:, None])
    tasks -= jnp.diag(jnp.sum(between_inputs[:, None] / spectrum, axis=0))
    slope = -jnp.sum(weights * change.residual)
    slope += 0.5 * jnp.sum(multiply(multiply(left, inputs), left.T) * change.inputs)
    slope += 0.5 * jnp.sum(multiply(multiply(right, tasks), right.T) * change.tasks)
    return _log_density(whitened), slope
