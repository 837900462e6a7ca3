"""Algebra along the task axis of stacked gradients, leaves `[T, *p]`."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.solvers.scaling import power_of_two
from mtljax.types import Array, PyTree

UNROLL_LIMIT = 32
"""Up to how many tasks a sum or a sort over them is written out, row by row."""


def widened(tree: PyTree) -> PyTree:
    """Every leaf in float32 at least."""
    return jax.tree.map(lambda leaf: leaf.astype(trees.accumulator(leaf.dtype)), tree)


def sum_over_tasks(function: Callable[..., PyTree], *stacked: Array) -> PyTree:
    """`sum_k function(*(array[k] for array in stacked))`, task by task and elementwise in between.

    XLA:CPU sums over a leading axis entry by entry, 40 times slower than it adds whole rows; so rows are added, written
    out for up to `UNROLL_LIMIT` tasks and in a loop beyond.

    Args:
        function: of one row of each array, to a pytree of arrays.
        stacked: arrays `[T, ...]`, T at least 1.

    Example:
        >>> sum_over_tasks(jnp.square, jnp.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
        [10.0, 20.0]
    """
    total = function(*(array[0] for array in stacked))
    if stacked[0].shape[0] <= UNROLL_LIMIT:
        for k in range(1, stacked[0].shape[0]):
            total = jax.tree.map(jnp.add, total, function(*(array[k] for array in stacked)))
        return total

    def add(total: PyTree, rows: tuple[Array, ...]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, function(*rows)), None

    return lax.scan(add, total, tuple(array[1:] for array in stacked))[0]


def row_sums(function: Callable[..., Array], *stacked: PyTree) -> Array:
    """`function` entry by entry, summed over each row: float32 `[T]`.

    Example:
        >>> row_sums(jnp.abs, {"a": jnp.array([[1.0, -2.0]]), "b": jnp.array([3.0])}).tolist()
        [6.0]
    """
    total = jnp.zeros((), jnp.float32)
    for leaves in zip(*map(jax.tree.leaves, stacked), strict=True):
        values = function(*leaves)
        total = total + jnp.sum(values, axis=tuple(range(1, values.ndim))).astype(jnp.float32)
    return total


def row_norms(stacked: PyTree, num_tasks: int) -> Array:
    """Euclidean norm of every row, float32 `[T]`, whatever its scale; NaN in one row stays in it.

    Example:
        >>> print(row_norms({"a": jnp.array([[3.0, 4.0], [3e30, 4e30]])}, 2))
        [5.e+00 5.e+30]
    """
    stacked = widened(stacked)
    plain = jnp.sqrt(jnp.broadcast_to(row_sums(jnp.square, stacked), (num_tasks,)))

    def again() -> Array:
        """In units of each row's largest entry, a power of two: the same bits, where squares are in float32's range."""
        largest = jnp.zeros((num_tasks,), jnp.float32)
        for leaf in jax.tree.leaves(stacked):
            entries = jnp.max(jnp.abs(leaf.reshape(num_tasks, -1)), axis=1, initial=0.0)
            largest = jnp.maximum(largest, entries.astype(jnp.float32))
        unit = power_of_two(jnp.where(jnp.isfinite(largest), largest, 1.0))
        rows = jax.tree.map(lambda leaf: leaf / trees.along(unit, leaf).astype(leaf.dtype), stacked)
        return unit * jnp.sqrt(jnp.broadcast_to(row_sums(jnp.square, rows), (num_tasks,)))

    return lax.cond(jnp.all((plain > 2.0**-50) & (plain < 2.0**60)), lambda: plain, again)
