"""Checks of arguments that sharing schemes, penalties and convex models have in common."""

from __future__ import annotations

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
