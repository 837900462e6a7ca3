"""Three ways to pull T cotangents through one trunk; each is `(pull, stacked cotangents [T, ...]) -> rows [T, *p]`.

All three compute the same rows. Which is fastest depends on device and network: `looped` for dense nets on a CPU, where
rows one at a time stay in cache; `unrolled` for convolutions on a CPU, which lose their threads inside a loop;
`vmapped` on accelerators, which want large operations.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import lax

from mtljax import trees
from mtljax.checks import check_count
from mtljax.types import PyTree

Rows = Callable[[Callable[[PyTree], PyTree], PyTree], PyTree]


def vmapped(pull: Callable[[PyTree], PyTree], cotangents: PyTree) -> PyTree:
    """All rows at once. Memory: T times the trunk's cotangents.

    Example:
        >>> import jax.numpy as jnp
        >>> vmapped(lambda c: 2 * c, jnp.arange(3.0))
        Array([0., 2., 4.], dtype=float32)
    """
    return jax.vmap(pull)(cotangents)


def looped(pull: Callable[[PyTree], PyTree], cotangents: PyTree) -> PyTree:
    """One row after the other in a compiled loop. Memory: one row's cotangents.

    Example:
        >>> import jax.numpy as jnp
        >>> looped(lambda c: 2 * c, jnp.arange(3.0))
        Array([0., 2., 4.], dtype=float32)
    """
    return lax.map(pull, cotangents)


def unrolled(pull: Callable[[PyTree], PyTree], cotangents: PyTree) -> PyTree:
    """One row after the other, written out; compile time grows with T.

    Example:
        >>> import jax.numpy as jnp
        >>> unrolled(lambda c: 2 * c, jnp.arange(3.0))
        Array([0., 2., 4.], dtype=float32)
    """
    count = trees.num_rows(cotangents)
    return trees.stack([pull(jax.tree.map(lambda leaf, k=k: leaf[k], cotangents)) for k in range(count)])


def in_chunks(size: int) -> Rows:
    """`size` rows at once, chunk after chunk in a compiled loop; the last chunk may be smaller.

    Raises:
        ValueError: `size` below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> in_chunks(2)(lambda c: 2 * c, jnp.arange(3.0))
        Array([0., 2., 4.], dtype=float32)
    """
    check_count("chunked", "size", size)
    return lambda pull, cotangents: lax.map(pull, cotangents, batch_size=size)
