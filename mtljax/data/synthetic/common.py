"""What the generators have in common: names of tasks and checks of arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from mtljax.types import Array, Key


def task_names(num_tasks: int) -> list[str]:
    """`task_0`, `task_1`, ..., with zeros in front where that keeps them in order.

    Example:
        >>> task_names(11)[:2]
        ['task_00', 'task_01']
    """
    digits = len(str(num_tasks - 1))
    return [f"task_{index:0{digits}d}" for index in range(num_tasks)]


def drawn(draw: Callable[..., Array], key: Key, *shapes: tuple[int, ...]) -> list[Array]:
    """Arrays of these shapes from one draw, which compiles faster than a draw for each.

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


def check_count(name: str, argument: str, count: int, least: int = 1) -> None:
    """Raises unless a count is an integer of at least `least`.

    Example:
        >>> check_count("mmoe_toy", "num_features", 1, 2)
        Traceback (most recent call last):
        ...
        ValueError: mmoe_toy: num_features must be an integer of at least 2, found 1
    """
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < least:
        raise ValueError(f"{name}: {argument} must be an integer of at least {least}, found {count!r}")


def check_within(name: str, argument: str, number: ArrayLike, low: float, high: float) -> None:
    """Raises unless a number is a finite scalar from `low` to `high`; a traced one passes, its value is not known.

    Example:
        >>> check_within("mmoe_toy", "p", 2.0, -1, 1)
        Traceback (most recent call last):
        ...
        ValueError: mmoe_toy: p must be a finite number from -1 to 1, found 2.0
    """
    if jnp.shape(number) != ():
        raise ValueError(f"{name}: {argument} must be a scalar, found an array of shape {jnp.shape(number)}")
    value = known(number)
    if value is not None and not (low <= value <= high and np.isfinite(value)):
        raise ValueError(f"{name}: {argument} must be a finite number from {low} to {high}, found {number}")


def known(numbers: ArrayLike | Sequence[ArrayLike]) -> np.ndarray | None:
    """The numbers as they are now, within jit too; None where one of them is traced, since there are none yet.

    Example:
        >>> known([1.0, 2.0]), jax.eval_shape(lambda x: known([x, 1.0]), 1.0)
        (array([1., 2.]), None)
    """
    return None if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(numbers)) else np.asarray(numbers)


def task_and_example_keys(name: str, key: Any, example_key: Any) -> tuple[Key, Key]:
    """The key from which tasks are drawn and the one from which examples are, after checking both.

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


def check_key(name: str, argument: str, key: Any, rank: int = 0) -> None:
    """Raises unless `key` is a typed PRNG key, one (rank 0) or a row of them (rank 1).

    Example:
        >>> check_key("mmoe_toy", "key", 0)
        Traceback (most recent call last):
        ...
        TypeError: mmoe_toy: key must be typed, as jax.random.key makes it, found int
    """
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"{name}: {argument} must be typed, as jax.random.key makes it, found {type(key).__name__}")
    if key.ndim != rank:
        raise ValueError(f"{name}: {argument} must have shape {('[]', '[B]')[rank]}, found {key.shape}")
