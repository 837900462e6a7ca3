"""Checks of numeric arguments: numbers, counts, masks and preferences."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from mtljax.checks.messages import expect, found
from mtljax.types import Array


def check_number(
    where: str,
    what: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    shape: tuple[int | str, ...] | None = (),
    finite: bool = True,
) -> Any:
    """The number or array of numbers, after checking that it is real, has the shape and is in the range.

    Args:
        where: the public function's name, which opens the message.
        what: the argument's name.
        value: a Python, NumPy or JAX number or array, or a sequence of numbers; may be traced.
        least: the smallest value allowed.
        above: a bound that the value must exceed.
        most: the largest value allowed.
        below: a bound that the value must stay under.
        shape: the required shape; a string stands for any length (`("T",)` is a vector); None for any shape.
        finite: whether infinity is refused. NaN is always refused.

    Returns:
        `value`; a sequence as an array of the default floating type.

    Raises:
        TypeError: not a real number: a string, None, a bool, complex, a function.
        ValueError: another shape, or a concrete value out of range.

    Example:
        >>> check_number("cagrad", "c", 0.5, least=0, below=1)
        0.5
        >>> check_number("cagrad", "c", 1.0, least=0, below=1)
        Traceback (most recent call last):
        ...
        ValueError: cagrad: c must be at least 0 and below 1, found 1.0
    """
    kind = "a number" if shape == () else "numbers"
    array = _as_array(value)
    if array is None or not (jnp.issubdtype(array.dtype, np.floating) or jnp.issubdtype(array.dtype, np.integer)):
        raise TypeError(f"{where}: {what} must be {kind}, found {found(value)}")
    if shape is not None and not _matches(array.shape, shape):
        wanted = "a scalar" if shape == () else f"of shape [{', '.join(map(str, shape))}]"
        raise ValueError(f"{where}: {what} must be {wanted}, found an array of shape {array.shape}")
    value = array if isinstance(value, list | tuple) else value
    if isinstance(array, Tracer):
        return value
    numbers = np.asarray(array)
    bounds = {
        "at least": (least, np.greater_equal),
        "above": (above, np.greater),
        "at most": (most, np.less_equal),
        "below": (below, np.less),
    }
    sound = np.isfinite(numbers) if finite else ~np.isnan(numbers)
    bounds = {words: (bound, compare) for words, (bound, compare) in bounds.items() if bound is not None}
    if not np.all([np.all(sound)] + [np.all(compare(numbers, bound)) for bound, compare in bounds.values()]):
        wanted = [f"{words} {bound:g}" for words, (bound, _) in bounds.items()]
        if (np.isinf(numbers).any() and finite) or not wanted:
            wanted.insert(0, "finite" if finite else "not NaN")
        raise ValueError(f"{where}: {what} must be {' and '.join(wanted)}, found {found(value)}")
    return value


def check_nonnegative(where: str, what: str, value: Any) -> Any:
    """The number, after checking that it is a scalar of at least 0; a traced one passes.

    Example:
        >>> check_nonnegative("l2_to_mean", "strength", -1.0)
        Traceback (most recent call last):
        ...
        ValueError: l2_to_mean: strength must be at least 0, found -1.0
    """
    return check_number(where, what, value, least=0)


def check_count(
    where: str, what: str, value: Any, *, least: int = 1, most: int | None = None, traced: bool = False
) -> Any:
    """The number, after checking that it is an integer from `least` to `most`.

    A count that determines shapes or lengths of loops must be a Python or NumPy integer. With `traced`, an array `[]`
    is accepted too.

    Example:
        >>> check_count("mmoe", "num_experts", 0)
        Traceback (most recent call last):
        ...
        ValueError: mmoe: num_experts must be at least 1, found 0
    """
    array = isinstance(value, jax.Array | np.ndarray) and value.shape == () and jnp.issubdtype(value.dtype, np.integer)
    if traced and array:
        if isinstance(value, Tracer):
            return value
        value = int(value)
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    expect(whole, where, what, "an integer", value, TypeError)
    if value < least or (most is not None and value > most):
        expected = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{where}: {what} must be {expected}, found {value}")
    return int(value)


def check_mask(where: str, what: str, value: Any, shape: tuple[int, ...]) -> Array:
    """The mask, after checking that it is bool and of that shape.

    Example:
        >>> check_mask("mgda", "active", np.ones(2, bool), (3,))
        Traceback (most recent call last):
        ...
        ValueError: mgda: active must be of shape (3,), found an array of shape (2,)
    """
    is_array = isinstance(value, jax.Array | np.ndarray | np.bool_)
    expect(is_array, where, what, "an array of bool", value, TypeError)
    if value.dtype != np.bool_:
        raise TypeError(f"{where}: {what} must be of dtype bool, found {value.dtype.name}")
    if value.shape != tuple(shape):
        raise ValueError(f"{where}: {what} must be of shape {tuple(shape)}, found an array of shape {value.shape}")
    return value


def check_weights(where: str, what: str, value: Any, size: int | None = None) -> Array:
    """The weights of elements, after checking that they are bool, or floating, and finite and at least 0 if concrete.

    Args:
        where: the public function's name, which opens the message.
        what: the argument's name.
        value: the weights; may be traced.
        size: the length of the first axis; None where it is not checked.

    Example:
        >>> check_weights("masked_mean", "mask", np.array([1.0, -1.0]))
        Traceback (most recent call last):
        ...
        ValueError: masked_mean: mask must be at least 0, found [ 1. -1.]
    """
    is_array = isinstance(value, jax.Array | np.ndarray | np.bool_)
    expect(is_array, where, what, "an array of bool, or of weights", value, TypeError)
    if value.dtype != np.bool_:
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(f"{where}: {what} must be of dtype bool, or floating weights, found {value.dtype.name}")
        check_number(where, what, value, least=0, shape=None)
    if size is not None and value.shape[:1] != (size,):
        raise ValueError(f"{where}: {what} must be [B, ...] with B = {size}, found {list(value.shape)}")
    return value


def check_indices(where: str, what: str, value: Any, size: int, num_tasks: int) -> Array:
    """The indices of tasks `[B]`, after checking their type and shape, and that concrete ones are below n.

    Args:
        where: the public function's name, which opens the message.
        what: the argument's name.
        value: the indices; may be traced.
        size: B.
        num_tasks: n. An index below 0 is of no task.

    Example:
        >>> check_indices("apply", "task['assays']", np.array([0, 3]), 2, 3)
        Traceback (most recent call last):
        ...
        ValueError: apply: task['assays'] must be below the number of tasks 3, found 3
    """
    is_array = isinstance(value, jax.Array | np.ndarray) and jnp.issubdtype(value.dtype, jnp.integer)
    expect(is_array, where, what, "an array of integers", value, TypeError)
    if value.shape != (size,):
        raise ValueError(f"{where}: {what} must be [B] with B = {size}, found {list(value.shape)}")
    if not isinstance(value, Tracer) and size and int(np.max(np.asarray(value))) >= num_tasks:
        raise ValueError(f"{where}: {what} must be below the number of tasks {num_tasks}, found {np.max(value)}")
    return jnp.asarray(value)


def check_losses(where: str, losses: Array | None, num_tasks: int | str) -> Array:
    """The losses, after checking that they are given; T is for the message.

    Example:
        >>> check_losses("epo", None, 3)
        Traceback (most recent call last):
        ...
        ValueError: epo: losses must be of shape (3,), found None
    """
    if losses is None:
        raise ValueError(f"{where}: losses must be of shape ({num_tasks},), found None")
    return losses


def check_preference(where: str, value: Any, *, what: str = "preference") -> Any:
    """A preference over tasks as float32 `[T]`: non-negative and not all zero. May be traced. None stays None.

    Args:
        where: the public function's name, which opens the message.
        value: numbers `[T]`, or None.
        what: the argument's name.

    Example:
        >>> check_preference("upgrad", [1, 3]).tolist()
        [1.0, 3.0]
        >>> check_preference("upgrad", [1, -3])
        Traceback (most recent call last):
        ...
        ValueError: upgrad: preference must be at least 0, found [ 1. -3.]
    """
    if value is None:
        return None
    value = check_number(where, what, value, least=0, shape=("T",))
    if isinstance(value, Tracer):
        return value.astype(jnp.float32)
    shares = np.asarray(value, np.float32)
    expect(bool(shares.any()), where, what, "not all zero", shares, ValueError)
    return shares


def is_zero(value: Any) -> bool:
    """Whether a number is known to be 0; False for a traced number.

    Example:
        >>> is_zero(0.0), is_zero(jnp.float32(0.5))
        (True, False)
    """
    return not isinstance(value, Tracer) and bool(value == 0)


def _matches(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(shape) == len(wanted) and all(isinstance(w, str) or n == w for n, w in zip(shape, wanted, strict=True))


def _as_array(value: Any) -> Any:
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return value
    if isinstance(value, list | tuple):
        try:
            traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))
            array = jnp.asarray(value) if traced else np.asarray(value)
        except (TypeError, ValueError):
            return None
        return array.astype(jnp.result_type(float)) if array.dtype.kind in "iuf" else array
    return np.asarray(value) if isinstance(value, int | float) else None
