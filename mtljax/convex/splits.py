"""Random splits and folds of each task's rows, as masks of the same arrays, so that they can be vmapped over."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtljax.checks import check_count, check_key, check_number
from mtljax.convex.problem import TaskRows, check_rows
from mtljax.types import Array, Key


def split_rows(key: Key, rows: TaskRows, fraction: Array | float) -> tuple[TaskRows, TaskRows]:
    """Split each task's rows at random into two parts.

    Args:
        key: PRNG key that draws the rows.
        rows: the data; if the mask is `[1, N]`, the split is the same for all tasks.
        fraction: share of each task's rows in the first part, from 0 to 1; their number is rounded to the nearest
            integer, halves up. May be traced.

    Returns:
        Two `TaskRows` of the same arrays with other masks, for training and for testing.

    Raises:
        ValueError: rows whose shapes do not match, or a fraction that is not between 0 and 1.

    Example:
        >>> rows = TaskRows(jnp.ones((2, 4, 1)), jnp.ones((2, 4)), jnp.ones((2, 4), bool))
        >>> train, test = split_rows(jax.random.key(0), rows, 0.75)
        >>> train.mask.sum(1).tolist(), bool(jnp.all(train.mask ^ test.mask))
        ([3, 3], True)
    """
    check_rows("split_rows", rows)
    check_key("split_rows", "key", key)
    check_number("split_rows", "fraction", fraction, least=0, most=1)
    mask = jnp.asarray(rows.mask)
    number = jnp.floor(fraction * jnp.sum(mask, 1, keepdims=True) + 0.5)
    first = _ranks(key, mask) < number
    return rows._replace(mask=mask & first), rows._replace(mask=mask & ~first)


def fold_numbers(key: Key, rows: TaskRows, folds: int) -> Array:
    """The fold of each row, drawn at random; each task's rows are spread evenly over the folds.

    Args:
        key: PRNG key that draws the folds.
        rows: the data; if the mask is `[1, N]`, the folds are the same for all tasks.
        folds: K, at least 2.

    Returns:
        int32 of the mask's shape, from 0 to K - 1, and -1 where masked. Within a task, the sizes of two folds differ by
        at most one row; the larger folds are drawn per task.

    Raises:
        ValueError: rows whose shapes do not match, or fewer than two folds.

    Example:
        >>> rows = TaskRows(jnp.ones((2, 4, 1)), jnp.ones((2, 4)), jnp.ones((2, 4), bool))
        >>> jax.jit(lambda key: jnp.sort(fold_numbers(key, rows, 2), 1))(jax.random.key(0)).tolist()
        [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    check_rows("fold_numbers", rows)
    check_key("fold_numbers", "key", key)
    check_count("fold_numbers", "folds", folds, least=2)
    mask = jnp.asarray(rows.mask)
    order, first = jax.random.split(key)
    offset = jax.random.randint(first, (mask.shape[0], 1), 0, folds)
    return jnp.where(mask, (_ranks(order, mask) + offset) % folds, -1).astype(jnp.int32)


def _ranks(key: Key, mask: Array) -> Array:
    """The position of each row in a random order of its task's rows; masked rows are last."""
    order = jnp.argsort(jnp.where(mask, jax.random.uniform(key, mask.shape), 2.0), axis=1)
    return jnp.argsort(order, axis=1)
