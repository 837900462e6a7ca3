"""What the sharing schemes made of several blocks ask of their blocks and of the features between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from mtljax.sharing.network import Network
from mtljax.types import Array


def networks(where: str, argument: str, given: Sequence[Network], *, count: int | None = None) -> tuple[Network, ...]:
    """The networks given, as a tuple.

    Args:
        where: the public function asking, which opens the message.
        argument: the argument's name.
        given: a sequence of `Network`.
        count: how many there must be; None for at least one.

    Raises:
        TypeError: one network in place of a sequence, or an entry that is not a `Network`.
        ValueError: not as many as expected.

    Example:
        >>> networks("film", "stages", ())
        Traceback (most recent call last):
        ...
        ValueError: film: stages must hold at least one Network, found 0
    """
    if isinstance(given, Network):
        raise TypeError(f"{where}: {argument} must be a sequence of Network, found one Network; write (network,)")
    given = tuple(given)
    for position, network in enumerate(given):
        if not isinstance(network, Network):
            raise TypeError(f"{where}: {argument}[{position}] must be a Network, found {type(network).__name__}")
    if count is None and not given:
        raise ValueError(f"{where}: {argument} must hold at least one Network, found 0")
    if count is not None and len(given) != count:
        raise ValueError(f"{where}: {argument} must hold {count} Network, found {len(given)}")
    return given


def channels_last(where: str, what: str, features: Any) -> Array:
    """Features that are one floating array `[B, ..., C]`.

    Args:
        where: the public function asking, which opens the message.
        what: what the features are, for the message.
        features: what a network returned.

    Raises:
        TypeError: something that is not an array, or not of a floating-point type.
        ValueError: fewer than two axes.

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
    """Features joined along their last axis, `[B, ..., C_1 + C_2 + ...]`; one of them alone is returned as it is.

    Args:
        where: the public function asking, which opens the message.
        parts: arrays `[B, ..., C_i]` in order, by what they are, for the message.

    Raises:
        TypeError: as `channels_last`.
        ValueError: as `channels_last`, or arrays that differ in another axis than the last.

    Example:
        >>> concatenated("mtan", {"u": jnp.ones((2, 3)), "f": jnp.ones((2, 1))}).shape
        (2, 4)
    """
    arrays = [channels_last(where, what, part) for what, part in parts.items()]
    names = list(parts)
    for name, array in zip(names[1:], arrays[1:], strict=True):
        if array.shape[:-1] != arrays[0].shape[:-1]:
            raise ValueError(
                f"{where}: {name} has shape {array.shape}, which does not fit {names[0]} of shape {arrays[0].shape}: "
                "they are joined along the last axis, so all others must agree"
            )
    return jnp.concatenate(arrays, axis=-1) if len(arrays) > 1 else arrays[0]
