"""Data types of multi-task Gaussian processes: observations, hyper-parameters, predictions."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from mtljax import trees
from mtljax.checks import check_count, check_flag, check_mask, expect
from mtljax.gaussian_process.kernels import Kernel, rbf
from mtljax.types import Array, PyTree


class Observations(NamedTuple):
    """Observed targets, each of one task at one input: `targets_i = f_{tasks_i}(inputs_i) + noise`.

    Attributes:
        inputs: `[N, p]`, floating.
        tasks: integers `[N]`, from 0 to T - 1.
        targets: `[N]`, floating.
        mask: bool `[N]`, False for rows to ignore; None if there are none. Masked rows are never read and may be NaN.
            So the number of observations may vary with constant shapes.
    """

    inputs: Array
    tasks: Array
    targets: Array
    mask: Array | None = None

    @property
    def observed(self) -> Array:
        """Number of observed targets, `[]`."""
        return jnp.sum(present(self))


class Rows(NamedTuple):
    """`Observations` without masked values, see `cleaned`."""

    inputs: Array
    tasks: Array
    targets: Array
    mask: Array


class Hyperparameters(NamedTuple):
    """The hyper-parameters of a multi-task Gaussian process. Any finite value is valid.

    Attributes:
        mean: `[]` for one constant mean, `[T]` for one per task.
        factor: `[T, r]`, W of the task covariance `B = W W^T + diag(kappa)`; r = 0 makes tasks independent.
        log_kappa: `[T]`, logarithm of kappa, each task's own variance in B.
        log_noise: `[T]`, logarithm of each task's noise variance `sigma_t^2`.
        kernel: the kernel's parameters.
    """

    mean: Array
    factor: Array
    log_kappa: Array
    log_noise: Array
    kernel: PyTree

    @property
    def task_covariance(self) -> Array:
        """`B = W W^T + diag(kappa)`, `[T, T]`."""
        factor = self.factor.astype(trees.accumulator(self.factor.dtype))
        return jnp.matmul(factor, factor.T, precision=lax.Precision.HIGHEST) + jnp.diag(jnp.exp(self.log_kappa))


class Prediction(NamedTuple):
    """The posterior of the functions. The variance of a new observation also includes its task's noise variance.

    Attributes:
        mean: `E f_t(x)`.
        variance: `Var f_t(x)`, never negative.
    """

    mean: Array
    variance: Array


def init(
    data: Observations, num_tasks: int, *, rank: int = 1, kernel: Kernel | None = None, mean_per_task: bool = False
) -> Hyperparameters:
    """Initial hyper-parameters, in the units of the data.

    Half of each task's variance `v_t` about its mean is noise, and half is signal. Half of the signal is `kappa_t`, and
    half is shared: `W_tj` is `sqrt(v_t / 4)` times column j of a cosine basis over tasks, and later columns are
    smaller. The first column is constant, so tasks start positively related; the others break the symmetry without a
    random key. A task may have few observations, so two observations with the pooled variance are added to each task.

    Args:
        data: `Observations`.
        num_tasks: T.
        rank: r, from 0 (independent tasks) to T; default 1.
        kernel: the kernel, which initialises its own parameters; default `rbf()`.
        mean_per_task: whether each task has its own mean. Default False: one mean for all tasks suits tasks with few
            observations, since separate means are not shrunk towards each other.

    Returns:
        `Hyperparameters` in float32, or float64 if the data are. If all targets are equal, their variance counts as 1.
        Task numbers that are traced and out of range give NaN.

    Raises:
        ValueError: shapes do not match; the rank, or a known task number, is out of range.
        TypeError: inputs or targets are not floating, tasks are not integers, or the mask is not bool.

    Example:
        >>> data = Observations(jnp.ones((4, 1)), jnp.array([0, 0, 1, 1]), jnp.array([1.0, 3.0, 2.0, 6.0]))
        >>> start = jax.jit(init, static_argnums=1)(data, 2)
        >>> float(start.mean), [f"{noise:.3f}" for noise in jnp.exp(start.log_noise)]
        (3.0, ['1.375', '2.125'])
    """
    check_count("init", "num_tasks", num_tasks)
    check_observations("init", data, num_tasks)
    check_count("init", "rank", rank, least=0, most=num_tasks)
    check_flag("init", "mean_per_task", mean_per_task)
    dtype = working_dtype(data.inputs, data.targets)
    rows = cleaned(data, num_tasks, dtype)

    def total(values: Array) -> Array:
        return jax.ops.segment_sum(jnp.where(rows.mask, values, 0.0), rows.tasks, num_tasks)

    count = total(jnp.ones_like(rows.targets))
    overall = jnp.sum(rows.targets) / jnp.maximum(jnp.sum(count), 1.0) + out_of_range(rows, num_tasks)
    means = jnp.broadcast_to(overall, count.shape)
    if mean_per_task:
        means = overall + total(rows.targets - overall) / jnp.maximum(count, 1.0)
    squares = total(jnp.square(rows.targets - pick(means, rows.tasks)))
    pooled = jnp.sum(squares) / jnp.maximum(jnp.sum(count), 1.0)
    # The variance of equal targets is not 0, because of rounding.
    pooled = jnp.where(pooled > jnp.square(8.0 * jnp.finfo(dtype).eps * overall), pooled, 1.0)
    variances = (squares + 2.0 * pooled) / (count + 2.0)
    column = jnp.arange(rank, dtype=dtype)[None, :]
    angle = math.pi / num_tasks * (jnp.arange(num_tasks, dtype=dtype)[:, None] + 0.5) * column
    kernel = rbf() if kernel is None else kernel
    return Hyperparameters(
        mean=means if mean_per_task else overall,
        factor=jnp.sqrt(0.25 * variances)[:, None] * jnp.cos(angle) * 0.5**column,
        log_kappa=jnp.log(0.25 * variances),
        log_noise=jnp.log(0.5 * variances),
        kernel=kernel.init(rows.inputs, rows.mask),
    )


def check_observations(name: str, data: Observations, num_tasks: int, features: int | None = None) -> None:
    """Check, at trace time, that the arrays of `Observations` match; task numbers are checked if they are known.

    Args:
        name: the function's name; the message starts with it.
        data: the argument to check.
        num_tasks: T.
        features: p, if it is known.

    Raises:
        ValueError: shapes do not match, or the task number of an unmasked row is not from 0 to T - 1.
        TypeError: inputs or targets are not floating, tasks are not integers, or the mask is not bool.

    Example:
        >>> check_observations("predict", Observations(jnp.ones((2, 3)), jnp.array([0, 5]), jnp.ones(2)), 4)
        Traceback (most recent call last):
        ...
        ValueError: predict: tasks must be from 0 to 3, found 5
    """
    expect(isinstance(data, Observations), name, "data", "Observations", data, TypeError)
    for argument in ("inputs", "tasks", "targets"):
        array = getattr(data, argument)
        expect(hasattr(array, "dtype"), name, argument, "an array", array, TypeError)
    if data.mask is not None:
        check_mask(name, "mask", data.mask, jnp.shape(data.tasks))
    shape = jnp.shape(data.inputs)
    if len(shape) != 2 or (features is not None and shape[1] != features):
        raise ValueError(f"{name}: inputs must have shape [N, {'p' if features is None else features}], found {shape}")
    arrays = [
        ("inputs", data.inputs, jnp.floating),
        ("targets", data.targets, jnp.floating),
        ("tasks", data.tasks, jnp.integer),
        ("mask", present(data), jnp.bool_),
    ]
    for argument, array, kind in arrays:
        if argument != "inputs" and jnp.shape(array) != shape[:1]:
            raise ValueError(f"{name}: {argument} must have shape {shape[:1]}, found {jnp.shape(array)}")
        if not jnp.issubdtype(jnp.result_type(array), kind):
            raise TypeError(f"{name}: {argument} must be of type {kind.__name__}, found {jnp.result_type(array).name}")
    if isinstance(data.tasks, Tracer) or isinstance(data.mask, Tracer):
        return
    tasks = np.asarray(data.tasks)
    if data.mask is not None:
        tasks = tasks[np.asarray(data.mask)]
    wrong = tasks[(tasks < 0) | (tasks >= num_tasks)]
    if wrong.size:
        raise ValueError(f"{name}: tasks must be from 0 to {num_tasks - 1}, found {wrong[0]}")


def check_hyperparameters(name: str, params: Hyperparameters) -> int:
    """The number of tasks, after checking at trace time that the shapes of hyper-parameters match.

    Args:
        name: the function's name; the message starts with it.
        params: the argument to check.

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> check_hyperparameters("f", Hyperparameters(jnp.zeros(3), jnp.ones((2, 1)), jnp.zeros(2), jnp.zeros(2), ()))
        Traceback (most recent call last):
        ...
        ValueError: f: params.mean must have shape () or (2,), found (3,)
    """
    expect(isinstance(params, Hyperparameters), name, "params", "Hyperparameters", params, TypeError)
    if jnp.ndim(params.factor) != 2:
        raise ValueError(f"{name}: params.factor must have shape [T, r], found {jnp.shape(params.factor)}")
    num_tasks = jnp.shape(params.factor)[0]
    for argument in ("log_kappa", "log_noise"):
        shape = jnp.shape(getattr(params, argument))
        if shape != (num_tasks,):
            raise ValueError(f"{name}: params.{argument} must have shape ({num_tasks},), found {shape}")
    if jnp.shape(params.mean) not in ((), (num_tasks,)):
        raise ValueError(f"{name}: params.mean must have shape () or ({num_tasks},), found {jnp.shape(params.mean)}")
    return num_tasks


def present(data: Observations) -> Array:
    """The mask, bool `[N]`; all True if none is given.

    Example:
        >>> present(Observations(jnp.ones((2, 1)), jnp.array([0, 0]), jnp.ones(2))).tolist()
        [True, True]
    """
    return jnp.ones(jnp.shape(data.tasks), bool) if data.mask is None else jnp.asarray(data.mask)


def cleaned(data: Observations, num_tasks: int, dtype: jnp.dtype) -> Rows:
    """Observations of one dtype with zeros in masked rows; task numbers that are out of range become T.

    Example:
        >>> mask = jnp.array([False, True])
        >>> data = Observations(jnp.array([[jnp.nan], [1.0]]), jnp.array([9, -1]), jnp.ones(2), mask)
        >>> cleaned(data, 2, jnp.float32).tasks.tolist()
        [0, 2]
    """
    mask = present(data)
    tasks = jnp.where(mask, data.tasks, 0)
    return Rows(
        inputs=jnp.where(mask[:, None], data.inputs, 0.0).astype(dtype),
        tasks=jnp.where((tasks >= 0) & (tasks < num_tasks), tasks, num_tasks),
        targets=jnp.where(mask, data.targets, 0.0).astype(dtype),
        mask=mask,
    )


def pick(values: Array, tasks: Array) -> Array:
    """`values[tasks]`, `[T, ...] -> [N, ...]`; NaN for a task number that is T or more.

    Example:
        >>> pick(jnp.array([1.0, 2.0]), jnp.array([1, 2])).tolist()
        [2.0, nan]
    """
    return values.at[tasks].get(mode="fill", fill_value=jnp.nan)


def out_of_range(rows: Rows, num_tasks: int) -> Array:
    """0, or NaN if a row's task number is out of range, since sums over tasks would leave out such a row.

    Example:
        >>> one = jnp.ones(1)
        >>> float(out_of_range(Rows(one[:, None], jnp.array([2]), one, one > 0), 2))
        nan
    """
    return jnp.where(jnp.any(rows.tasks == num_tasks), jnp.nan, 0.0).astype(rows.targets.dtype)


def as_dtype(params: Hyperparameters, dtype: jnp.dtype) -> Hyperparameters:
    """Hyper-parameters of one dtype, with one mean per task.

    Example:
        >>> ones = Hyperparameters(jnp.zeros(()), jnp.ones((2, 1)), jnp.zeros(2), jnp.zeros(2), ())
        >>> as_dtype(ones, jnp.float32).mean.shape
        (2,)
    """
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    return params._replace(mean=jnp.broadcast_to(params.mean, params.log_noise.shape))


def working_dtype(*arrays: PyTree) -> jnp.dtype:
    """The dtype of the computation: the widest of all leaves, float32 at least.

    Example:
        >>> working_dtype(jnp.ones(2, jnp.bfloat16), {"w": jnp.ones(2)}).name
        'float32'
    """
    return trees.accumulator(jnp.result_type(*jax.tree.leaves(arrays), jnp.bfloat16))
