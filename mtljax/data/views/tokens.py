"""Token ids with padding, the inputs of all views of text.

Inputs are an array of token ids `[B, L]` in which one id is padding, or `Text`, which holds the length of each row.
Each row is one sentence, or one piece of running text. Only `next_sentence` compares rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from mtljax.checks import expect, found
from mtljax.types import Array

IGNORED = -1
"""The label of a position that is not predicted, as `mtljax.losses.token_cross_entropy` takes it."""


class Text(NamedTuple):
    """Rows of token ids with their lengths.

    Attributes:
        tokens: int `[B, L]`; values beyond a row's length are never read as tokens.
        lengths: int `[B]`, from 0 to L.
    """

    tokens: Array
    lengths: Array


def read(name: str, x: Any, padding: int | None) -> tuple[Array, Array]:
    """Token ids, and a mask of the positions that hold a token.

    Args:
        name: the public function's name, which opens the message.
        x: int `[B, L]`, or `Text`.
        padding: the padding id of an array; in a `Text`, lengths mark the padding, and every id is a token.

    Returns:
        `(tokens int [B, L], present bool [B, L])`.

    Raises:
        TypeError: tokens or lengths that are not integers; an array without a padding id, or of a dtype too small for
            it.
        ValueError: other shapes.

    Example:
        >>> read("next_token", jnp.array([[5, 0]]), 0)[1].tolist()
        [[True, False]]
        >>> read("next_token", Text(jnp.array([[5, 0]]), jnp.array([2])), None)[1].tolist()
        [[True, True]]
    """
    given = x.tokens if isinstance(x, Text) else x
    expect(hasattr(given, "dtype"), name, "the inputs", "token ids, an array of integers", given, TypeError)
    tokens = jnp.asarray(given)
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(f"{name}: the inputs must be token ids, integers, found {tokens.dtype}")
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise ValueError(f"{name}: the inputs must be token ids [B, L] with no empty axis, found {list(tokens.shape)}")
    if not isinstance(x, Text):
        if padding is None:
            raise TypeError(f"{name}: padding must be given for token ids without lengths, found None; or pass a Text")
        held = jnp.iinfo(tokens.dtype)
        if not held.min <= padding <= held.max:  # in the comparison below, padding would wrap around to another id
            raise TypeError(f"{name}: {tokens.dtype} cannot hold the padding id {padding}")
        return tokens, tokens != padding
    lengths = jnp.asarray(x.lengths)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"{name}: the lengths must be integers, found {lengths.dtype}")
    if lengths.shape != tokens.shape[:1]:
        raise ValueError(f"{name}: the lengths must be [{tokens.shape[0]}], found {list(lengths.shape)}")
    return tokens, jnp.arange(tokens.shape[1])[None, :] < lengths[:, None]


def like(x: Any, tokens: Array) -> Any:
    """New tokens in the form of x: a `Text` if x is one, else an array.

    Example:
        >>> like(Text(jnp.array([[5]]), jnp.array([1])), jnp.array([[6]])).tokens.tolist()
        [[6]]
    """
    return x._replace(tokens=tokens) if isinstance(x, Text) else tokens


def check_padding(name: str, padding: int | None) -> None:
    """Raise unless the padding id is an integer or None.

    Example:
        >>> check_padding("cbow", 0.5)
        Traceback (most recent call last):
        ...
        TypeError: cbow: padding must be a token id or None, found 0.5
    """
    if padding is not None and (isinstance(padding, bool) or not isinstance(padding, int)):
        raise TypeError(f"{name}: padding must be a token id or None, found {found(padding)}")
