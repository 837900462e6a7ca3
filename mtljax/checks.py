"""Checks of arguments that sharing schemes, penalties and convex models have in common."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from mtljax.types import Array


def check_nonnegative(name: str, argument: str, number: Array | float) -> None:
    """Raises where a number known at trace time is negative or not a number; a traced one passes.

    Args:
        name: the public function's name, which opens the message.
        argument: the argument's name.
        number: the number found, a scalar.

    Raises:
        ValueError: it is not a scalar, negative, or NaN.

    Example:
        >>> check_nonnegative("l2_to_mean", "strength", -1.0)
        Traceback (most recent call last):
        ...
        ValueError: l2_to_mean: strength must be at least 0, found -1.0
    """
    if jnp.shape(number) != ():
        raise ValueError(f"{name}: {argument} must be a scalar, found an array of shape {jnp.shape(number)}")
    if isinstance(number, Tracer):
        return
    if not np.asarray(number) >= 0:
        raise ValueError(f"{name}: {argument} must be at least 0, found {number}")


def check_count(where: str, what: str, number: Any, *, least: int = 1, most: int | None = None) -> int:
    """The number, after checking that it is an integer from `least` to `most`.

    Example:
        >>> check_count("mmoe", "num_experts", 0)
        Traceback (most recent call last):
        ...
        ValueError: mmoe: num_experts must be at least 1, found 0
    """
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{where}: {what} must be an integer, found {number!r}")
    if number < least or (most is not None and number > most):
        expected = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{where}: {what} must be {expected}, found {number}")
    return number
