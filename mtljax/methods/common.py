"""Parts of every method: its first state, and the checks of its inputs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from mtljax.checks import check_mask, check_number, found
from mtljax.types import Array, MethodState, PyTree

PULL = 64.0
"""How strongly one step may pull at what a method learns, in units of the pull of a loss that is as large as expected.

A loss of 1e30 would otherwise throw a logarithm so far away that it never comes back, and its square would stay in
Adam's second moment as inf. Within 64 times what is expected nothing changes.
"""


def initial_state(num_tasks: int, inner: PyTree = ()) -> MethodState:
    """The state of a method that has not seen a step: equal weights `1/T`, residual 0.

    Args:
        num_tasks: number of tasks T, at least 1.
        inner: pytree of arrays, the method's own state.

    Returns:
        `MethodState` with float32 weights `[T]` and residual `[]`.

    Example:
        >>> initial_state(4).weights.tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    return MethodState(
        weights=jnp.full((num_tasks,), 1.0 / num_tasks, jnp.float32),
        residual=jnp.zeros((), jnp.float32),
        inner=inner,
    )


def check_evidence(name: str, what: str, array: Array, expected_shape: tuple[int, ...]) -> None:
    """Raises where the shape of an array does not match the method's state. Static: costs nothing.

    Args:
        name: the method's name, which opens the message.
        what: what the array is, for example `"gramian"` or `"losses"`.
        array: the array found.
        expected_shape: the shape it must have; its first entry is the number of tasks.

    Raises:
        TypeError: the array is not of a floating-point type.
        ValueError: the shape is another one.

    Example:
        >>> check_evidence("pcgrad", "gramian", jnp.zeros((3, 3)), (2, 2))
        Traceback (most recent call last):
        ...
        ValueError: pcgrad: gramian must be of shape (2, 2), for the method was initialised for 2 tasks, found shape
        (3, 3)
    """
    if not isinstance(array, jax.Array | np.ndarray):
        raise TypeError(f"{name}: {what} must be an array, found {found(array)}")
    shape = jnp.shape(array)
    if shape != tuple(expected_shape):
        raise ValueError(
            f"{name}: {what} must be of shape {tuple(expected_shape)}, for the method was initialised for "
            f"{expected_shape[0]} task{'s' if expected_shape[0] != 1 else ''}, found shape {shape}"
        )
    dtype = jnp.result_type(array)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name}: {what} must be of a floating-point type, found {dtype.name}")


def check_active(name: str, active: Array | None, num_tasks: int) -> None:
    """Raises where `active` is neither None nor bool `[T]`.

    Args:
        name: the method's name, which opens the message.
        active: the mask of tasks that take part, or None for all.
        num_tasks: number of tasks T.

    Raises:
        TypeError: the mask is not boolean.
        ValueError: the mask is not `[T]`.

    Example:
        >>> check_active("mgda", None, 3)
        >>> check_active("mgda", jnp.ones(2, bool), 3)
        Traceback (most recent call last):
        ...
        ValueError: mgda: active must be of shape (3,), found an array of shape (2,)
    """
    if active is not None:
        check_mask(name, "active", active, (num_tasks,))


def largest_bound(*bounds: Any) -> Any:
    """The largest of numbers or vectors `[T]`, entry by entry: a float or a tuple, which can be hashed as methods are.

    Example:
        >>> largest_bound(0.0, np.array([1.0, -1.0]))
        (1.0, 0.0)
    """
    if any(isinstance(bound, Tracer) for bound in bounds):
        return functools.reduce(jnp.maximum, map(jnp.asarray, bounds))
    found = functools.reduce(np.maximum, map(np.asarray, bounds))
    return tuple(found.tolist()) if found.ndim else float(found)


def mask_of(state: MethodState, active: Array | None) -> Array:
    """Bool `[T]`, the tasks that take part: all of them where `active` is None."""
    return jnp.ones_like(state.weights, dtype=bool) if active is None else active


def weights_of(values: Array, active: Array | None) -> Array:
    """`values [T]` for active tasks, 0 for the others; what is dropped may be NaN.

    Args:
        values: `[T]`.
        active: bool `[T]`, or None for all.

    Example:
        >>> weights_of(jnp.array([1.0, 2.0]), jnp.array([True, False]))
        Array([1., 0.], dtype=float32)
    """
    return values if active is None else jnp.where(active, values, jnp.zeros_like(values))


def vector_argument(name: str, what: str, value: Any, **bounds: Any) -> Any:
    """A number or one number for each task, float32 `[]` or `[T]`; `bounds` are those of `mtljax.checks.check_number`.

    Raises:
        TypeError: no real numbers.
        ValueError: of more dimensions, not finite, or out of bounds.
    """
    value = check_number(name, what, value, shape=None, **bounds)
    if jnp.ndim(value) > 1:
        raise ValueError(f"{name}: {what} must be a number or of shape [T], found an array of shape {jnp.shape(value)}")
    return value.astype(jnp.float32) if isinstance(value, Tracer) else np.asarray(value, np.float32)


def check_lengths(name: str, arguments: Mapping[str, Any] | None, num_tasks: int) -> None:
    """Raises where an argument with an entry for each task has not T of them; single numbers and None pass.

    Args:
        name: the method's name, which opens the message.
        arguments: their values by name, or None.
        num_tasks: number of tasks T.

    Raises:
        ValueError: another number of entries.

    Example:
        >>> check_lengths("stch", {"preference": np.ones(2), "reference": None}, 3)
        Traceback (most recent call last):
        ...
        ValueError: stch: preference must have an entry for each of 3 tasks, found 2 entries
    """
    for what, table in (arguments or {}).items():
        if table is None or isinstance(table, int | float) or getattr(table, "ndim", 1) == 0:
            continue
        if len(table) != num_tasks:
            raise ValueError(
                f"{name}: {what} must have an entry for each of {num_tasks} tasks, found {len(table)} entries"
            )
