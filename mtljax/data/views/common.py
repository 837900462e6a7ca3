"""Checks that the views have in common."""

from __future__ import annotations

from numbers import Real
from typing import Any

import jax.numpy as jnp

from mtljax.types import Array


def images(name: str, x: Any, *, floating: bool = False) -> Array:
    """The images as an array `[B, H, W, C]`, after a check.

    Args:
        name: the public function's name, which opens the message.
        x: what was given.
        floating: whether the view computes with the values, so that integers would be cut off.

    Raises:
        TypeError: integers where values are computed with.
        ValueError: another rank, or an empty axis.

    Example:
        >>> images("rotation", jnp.zeros((2, 4, 4, 1))).shape
        (2, 4, 4, 1)
    """
    x = jnp.asarray(x)
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"{name}: expected images [B, H, W, C] with no empty axis, got {list(x.shape)}")
    if floating and not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name}: expected floating images, got {x.dtype}; convert them first")
    return x


def whole(name: str, argument: str, value: Any, *, least: int = 1) -> int:
    """The argument as a Python integer.

    Raises:
        TypeError: it is none.
        ValueError: it is below `least`.

    Example:
        >>> whole("crop", "pixels", 0)
        Traceback (most recent call last):
        ...
        ValueError: crop: pixels must be at least 1, got 0
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: {argument} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: {argument} must be at least {least}, got {value}")
    return value


def height_and_width(name: str, argument: str, value: Any) -> tuple[int, int]:
    """One positive integer for both sides, or a pair of them.

    Raises:
        TypeError, ValueError: as `whole`, or not a pair.

    Example:
        >>> height_and_width("jigsaw", "grid", 2), height_and_width("jigsaw", "grid", (3, 4))
        ((2, 2), (3, 4))
    """
    sides = value if isinstance(value, tuple) else (value, value)
    if len(sides) != 2:
        raise ValueError(f"{name}: {argument} must be an integer or a pair (height, width), got {value!r}")
    return whole(name, argument, sides[0]), whole(name, argument, sides[1])


def fraction(name: str, argument: str, value: Any, *, closed: bool = False) -> float:
    """The argument as a float strictly between 0 and 1, or from 0 to 1 where `closed`.

    Raises:
        TypeError: it is no real number.
        ValueError: it is outside, or NaN.

    Example:
        >>> fraction("masked_cells", "ratio", 1)
        Traceback (most recent call last):
        ...
        ValueError: masked_cells: ratio must be between 0 and 1, got 1
    """
    _real(name, argument, value)
    if not (0 <= value <= 1 if closed else 0 < value < 1):
        raise ValueError(
            f"{name}: {argument} must be {'from' if closed else 'between'} 0 {'to' if closed else 'and'} 1, got {value}"
        )
    return float(value)


def positive(name: str, argument: str, value: Any) -> float:
    """The argument as a positive finite float.

    Raises:
        TypeError: it is no real number.
        ValueError: it is not positive and finite.

    Example:
        >>> positive("denoising", "std", float("nan"))
        Traceback (most recent call last):
        ...
        ValueError: denoising: std must be positive and finite, got nan
    """
    _real(name, argument, value)
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}: {argument} must be positive and finite, got {value}")
    return float(value)


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


def _real(name: str, argument: str, value: Any) -> None:
    if not isinstance(value, Real):
        raise TypeError(f"{name}: {argument} must be a real number, got {value!r}")
