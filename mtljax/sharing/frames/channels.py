"""Checks of the features between the blocks of a network, and their concatenation."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from mtljax.types import Array


def channels_last(where: str, what: str, features: Any) -> Array:
    """The features, after checking that they are one floating array `[B, ..., C]`.

    Args:
        where: the public function that calls this one; the message starts with its name.
        what: what the features are, for the message.
        features: what a network returned.

    Raises:
        TypeError: the features are not an array, or not of a floating-point type.
        ValueError: the features have fewer than two axes.

    Example:
        >>> channels_last("film", "the output of stage 0", jnp.ones(3))
        Traceback (most recent call last):
        ...
        ValueError: film: the output of stage 0 must be [B, ..., C], found shape (3,)
    """
    dtype, shape = getattr(features, "dtype", None), getattr(features, "shape", None)
    if dtype is None or shape is None:
        raise TypeError(f"{where}: {what} must be one array, found {type(features).__name__}")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{where}: {what} must be of a floating-point type, found {dtype.name}")
    if len(shape) < 2:
        raise ValueError(f"{where}: {what} must be [B, ..., C], found shape {shape}")
    return features


def concatenated(where: str, parts: dict[str, Any]) -> Array:
    """Features joined along their last axis, `[B, ..., C_1 + C_2 + ...]`; a single one is returned unchanged.

    Args:
        where: the public function that calls this one; the message starts with its name.
        parts: arrays `[B, ..., C_i]` in order; the keys say what they are, for the message.

    Raises:
        TypeError: as `channels_last`.
        ValueError: as `channels_last`, or arrays differ in an axis other than the last.

    Example:
        >>> concatenated("mtan", {"u": jnp.ones((2, 3)), "f": jnp.ones((2, 1))}).shape
        (2, 4)
    """
    arrays = [channels_last(where, what, part) for what, part in parts.items()]
    names = list(parts)
    for name, array in zip(names[1:], arrays[1:], strict=True):
        if array.shape[:-1] != arrays[0].shape[:-1]:
            raise ValueError(
                f"{where}: {name} must have the axes of {names[0]}, {arrays[0].shape}, all but the last, found shape "
                f"{array.shape}"
            )
    return jnp.concatenate(arrays, axis=-1) if len(arrays) > 1 else arrays[0]
