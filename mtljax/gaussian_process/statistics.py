"""Sufficient statistics of the observations for linear functions: sums over each task's rows."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax.gaussian_process.data import (
    Observations,
    check_observations,
    cleaned,
    out_of_range,
    pick,
    working_dtype,
)
from mtljax.types import Array


class LinearStatistics(NamedTuple):
    """Sufficient statistics of the observations for linear functions; their size does not depend on the rows.

    Attributes:
        gram: `[T, p, p]`, `sum_i x_i x_i^T` over each task's rows.
        sums: `[T, p]`, `sum_i x_i`.
        moments: `[T, p]`, `sum_i x_i (y_i - center_t)`.
        squares: `[T]`, `sum_i (y_i - center_t)^2`.
        center: `[T]`, each task's mean target, subtracted so that sums keep their digits; 0 for a task without rows.
        count: `[T]`, number of rows.
    """

    gram: Array
    sums: Array
    moments: Array
    squares: Array
    center: Array
    count: Array

    @property
    def observed(self) -> Array:
        """Number of observed targets, `[]`."""
        return jnp.sum(self.count)


def linear_statistics(data: Observations, num_tasks: int) -> LinearStatistics:
    """Compress observations to sufficient statistics for linear functions, once, before fitting.

    Args:
        data: `Observations`. In float32, use features of similar size, such as standardised ones.
        num_tasks: T.

    Returns:
        `LinearStatistics` in float32, or float64 if the data are. `O(N p^2)` time, `O(N p + T p^2)` memory.

    Raises:
        ValueError: shapes do not match, or a known task number is out of range; traced ones give NaN.
        TypeError: an array has the wrong dtype.

    Example:
        >>> data = Observations(jnp.array([[1.0], [3.0]]), jnp.array([0, 0]), jnp.array([1.0, 2.0]))
        >>> found = jax.jit(linear_statistics, static_argnums=1)(data, 1)
        >>> float(found.gram[0, 0, 0]), float(found.moments[0, 0]), float(found.squares[0])
        (10.0, 1.0, 0.5)
    """
    check_observations("linear_statistics", data, num_tasks)
    dtype = working_dtype(data.inputs, data.targets)
    rows = cleaned(data, num_tasks, dtype)
    shown = rows.mask.astype(dtype)

    def total(values: Array) -> Array:
        return jax.ops.segment_sum(values, rows.tasks, num_tasks)

    count = total(shown)
    some = jnp.maximum(count, 1.0)
    center = total(rows.targets) / some + out_of_range(rows, num_tasks)
    # Once more, to remove the rounding error in the sum of large numbers.
    center = center + total(shown * (rows.targets - pick(center, rows.tasks))) / some
    apart = shown * (rows.targets - pick(center, rows.tasks))
    # One column at a time: [N, p, p] is not formed.
    gram = lax.map(lambda column: total(rows.inputs * column[:, None]), rows.inputs.T)
    return LinearStatistics(
        gram=jnp.moveaxis(gram, 0, 2),
        sums=total(rows.inputs),
        moments=total(rows.inputs * apart[:, None]),
        squares=total(jnp.square(apart)),
        center=center,
        count=count,
    )
