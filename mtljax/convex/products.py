"""Matrix products in full precision."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from mtljax.types import Array


def product(equation: str, a: Array, b: Array) -> Array:
    """`jnp.einsum` in full precision, which is not the default of accelerators.

    Example:
        >>> product("i,i->", jnp.ones(2), jnp.ones(2)).tolist()
        2.0
    """
    return jnp.einsum(equation, a, b, precision=lax.Precision.HIGHEST)
