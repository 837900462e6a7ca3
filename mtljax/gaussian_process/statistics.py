"""What linear functions need of the observations: sums over each task's rows."""

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
    """All that the likelihood of linear functions needs of the observations, whatever their number.

    Attributes:
        gram: `[T, p, p]`, `sum_i x_i x_i^T` over each task's rows.
        sums: `[T, p]`, `sum_i x_i`.
        moments: `[T, p]`, `sum_i x_i (y_i - center_t)`.
        squares: `[T]`, `sum_i (y_i - center_t)^2`.
        center: `[T]`, each task's mean target, so that no digits are lost to it; 0 for a task without rows.
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
    """Compresses observations to what linear functions need of them; do it once, before fitting.

    Args:
        data: `Observations`. Features of like size, such as standardised ones, keep float32 accurate.
        num_tasks: T.

    Returns:
        `LinearStatistics` in float32, or float64 if the data are. `O(N p^2)` time, `O(N p + T p^2)` memory.

    Raises:
        ValueError: shapes that do not match, task numbers known to be out of range. NaN where they are not known.
        TypeError: arrays of the wrong kind.

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
    # Once more, for what rounding left in the sum of large numbers.
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
