"""Checks of inputs and arguments that several views share."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from mtljax.checks import check_count, expect, found
from mtljax.types import Array


def images(name: str, x: Any, *, floating: bool = False) -> Array:
    """The images as an array `[B, H, W, C]`, after a check.

    Args:
        name: the public function's name, which opens the message.
        x: what was given.
        floating: whether the view computes with the values, which would truncate integers.

    Raises:
        TypeError: integers where `floating`.
        ValueError: another rank, or an empty axis.

    Example:
        >>> images("rotation", jnp.zeros((2, 4, 4, 1))).shape
        (2, 4, 4, 1)
    """
    array = hasattr(x, "dtype") and (jnp.issubdtype(x.dtype, jnp.number) or x.dtype == jnp.bool_)
    expect(array, name, "the inputs", "an array of images [B, H, W, C]", x, TypeError)
    x = jnp.asarray(x)
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"{name}: the inputs must be images [B, H, W, C] with no empty axis, found {found(x)}")
    if floating and not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name}: the inputs must be floating images, found {x.dtype}; convert them first")
    return x


def height_and_width(name: str, argument: str, value: Any) -> tuple[int, int]:
    """One positive integer for both sides, or a pair of them.

    Raises:
        TypeError, ValueError: as `whole`, or not a pair.

    Example:
        >>> height_and_width("jigsaw", "grid", 2), height_and_width("jigsaw", "grid", (3, 4))
        ((2, 2), (3, 4))
    """
    sides = value if isinstance(value, tuple) else (value, value)
    expect(len(sides) == 2, name, argument, "an integer or a pair (height, width)", value, ValueError)
    return check_count(name, argument, sides[0]), check_count(name, argument, sides[1])


def divides(name: str, parts: tuple[int, int], what: str, shape: tuple[int, ...]) -> None:
    """Raise unless H and W of `[B, H, W, C]` are multiples of `parts`.

    Raises:
        ValueError: they are not.

    Example:
        >>> divides("jigsaw", (2, 3), "grid", (1, 4, 4, 1))
        Traceback (most recent call last):
        ...
        ValueError: jigsaw: grid (2, 3) does not divide images of 4 by 4
    """
    if shape[1] % parts[0] or shape[2] % parts[1]:
        raise ValueError(f"{name}: {what} {parts} does not divide images of {shape[1]} by {shape[2]}")
