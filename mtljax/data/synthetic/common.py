"""Names of tasks, draws and keys for the generators of synthetic data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.checks import check_key
from mtljax.types import Array, Key


def task_names(num_tasks: int) -> list[str]:
    """`task_0`, `task_1`, ..., with leading zeros, so that sorted order is the order of numbers.

    Example:
        >>> task_names(11)[:2]
        ['task_00', 'task_01']
    """
    digits = len(str(num_tasks - 1))
    return [f"task_{index:0{digits}d}" for index in range(num_tasks)]


def drawn(draw: Callable[..., Array], key: Key, *shapes: tuple[int, ...]) -> list[Array]:
    """Arrays of these shapes from one draw, which compiles faster than one draw per array.

    Args:
        draw: `(key, shape) -> array`, such as `jax.random.normal`.
        key: typed PRNG key `[]`.
        *shapes: of the arrays.

    Example:
        >>> [part.shape for part in drawn(jax.random.normal, jax.random.key(0), (2, 3), (), (4,))]
        [(2, 3), (), (4,)]
    """
    sizes = [math.prod(shape) for shape in shapes]
    parts = jnp.split(draw(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def task_and_example_keys(name: str, key: Any, example_key: Any) -> tuple[Key, Key]:
    """Two checked keys: the tasks are drawn from the first, the examples from the second.

    Example:
        >>> ours, theirs = jax.random.key(0), jax.random.key(1)
        >>> bool(task_and_example_keys("mmoe_toy", ours, theirs)[1] == theirs)
        True
    """
    check_key(name, "key", key)
    tasks, examples = jax.random.split(key)
    if example_key is None:
        return tasks, examples
    check_key(name, "example_key", example_key)
    return tasks, example_key
