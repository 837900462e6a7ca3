"""The mark between a bank and the features that its tasks read.

A bank maps one head over the parameters of n tasks, with the features not mapped: one matrix product for all heads, and
in the derivative one sum over all tasks. The equation of the derivative in which features become a bank's is marked, so
that an engine can cut there. An engine that needs each task's own cotangent, `[n, B, ...]`, wants the sum left out:
under `keep_apart()` a bank reads n copies of the features, and what is pulled back to the mark is the n cotangents, in
one pass. The mark changes no number.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtljax.types import Array, PyTree

_apart = contextvars.ContextVar("apart", default=False)
_MARK = "mtljax_bank"


@contextlib.contextmanager
def keep_apart() -> Iterator[None]:
    """While a loss function is traced in this context, the tasks of its banks are kept apart.

    Example:
        >>> with keep_apart():
        ...     marked(jnp.ones(2), 3)[1]
        0
    """
    before = _apart.set(True)
    try:
        yield
    finally:
        _apart.reset(before)


def marked(features: PyTree, size: int) -> tuple[PyTree, int | None]:
    """Features as a bank of n tasks reads them, and their axis of `jax.vmap`: None, or 0 under `keep_apart()`.

    Example:
        >>> marked(jnp.ones(2), 3)
        (Array([1., 1.], dtype=float32), None)
        >>> with keep_apart():
        ...     copies, axis = marked(jnp.ones(2), 3)
        >>> copies.shape, axis
        ((3, 2), 0)
    """
    copies = size if _apart.get() else 1

    def spread(leaf: Any) -> Array:
        return lax.broadcast_in_dim(leaf, (copies, *jnp.shape(leaf)), tuple(range(1, jnp.ndim(leaf) + 1)))

    with jax.named_scope(_MARK):
        found = jax.tree.map(spread, features)
    return (found, 0) if _apart.get() else (jax.tree.map(lambda leaf: lax.squeeze(leaf, (0,)), found), None)


def is_mark(equation: Any) -> bool:
    """Whether an equation of a derivative marks the features that a bank reads.

    Example:
        >>> jaxpr = jax.make_jaxpr(lambda features: marked(features, 3)[0])(jnp.ones(2))
        >>> [is_mark(equation) for equation in jaxpr.eqns]
        [True, False]
    """
    return equation.primitive.name == "broadcast_in_dim" and _MARK in str(equation.source_info.name_stack)
