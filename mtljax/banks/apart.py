"""The mark between a bank and the features that its tasks read.

A bank maps one head over the parameters of n tasks, with the features not mapped: one matrix product for all heads, and
in the derivative one sum over all tasks. The equation of the derivative in which features become a bank's is marked, so
that an engine can cut there. An engine that needs each task's own cotangent, `[n, B, ...]`, wants the sum left out:
under `keep_apart()` a bank reads n copies of the features, and what is pulled back to the mark is the n cotangents, in
one pass. Under `keep_apart(group)` it is those of some of a bank's tasks; its other tasks then do not run at all, and
their outputs are 0. The mark changes no number.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax.types import Array, PyTree


class Group(NamedTuple):
    """Some tasks of one bank, one after the other.

    Attributes:
        entry: the bank.
        start: the first of them, int `[]`.
        size: their number m.
    """

    entry: str
    start: Array
    size: int


_apart = contextvars.ContextVar[Group | bool]("apart", default=False)
_MARK = "mtljax_bank"


@contextlib.contextmanager
def keep_apart(group: Group | bool = True) -> Iterator[None]:
    """While a loss function is traced in this context, the tasks of its banks are kept apart.

    Args:
        group: True for all tasks of all banks; a group of tasks, whose bank then runs these alone, while the tasks of
            other banks are summed; False for none.

    Example:
        >>> with keep_apart():
        ...     marked(jnp.ones(2), 3, "assays")[1]
        0
    """
    before = _apart.set(group)
    try:
        yield
    finally:
        _apart.reset(before)


def group_of(entry: str) -> Group | None:
    """The tasks of this bank which run alone; None where all of them run.

    Example:
        >>> with keep_apart(Group("assays", 0, 2)):
        ...     group_of("assays").size, group_of("genes")
        (2, None)
    """
    found = _apart.get()
    return found if isinstance(found, Group) and found.entry == entry else None


def is_apart(apart: Group | bool, entry: str) -> bool:
    """Whether tasks of this bank are kept apart, all of them or a group.

    Example:
        >>> is_apart(True, "assays"), is_apart(Group("genes", 0, 2), "assays")
        (True, False)
    """
    return apart if isinstance(apart, bool) else apart.entry == entry


def marked(features: PyTree, size: int, entry: str) -> tuple[PyTree, int | None]:
    """Features as a bank of n tasks reads them, and their axis of `jax.vmap`: None, or 0 where tasks are kept apart.

    Args:
        features: pytree.
        size: n.
        entry: the bank's name.

    Example:
        >>> marked(jnp.ones(2), 3, "assays")
        (Array([1., 1.], dtype=float32), None)
        >>> with keep_apart():
        ...     copies, axis = marked(jnp.ones(2), 3, "assays")
        >>> copies.shape, axis
        ((3, 2), 0)
    """
    group, apart = group_of(entry), is_apart(_apart.get(), entry)
    copies = (size if group is None else group.size) if apart else 1

    def spread(leaf: Any) -> Array:
        return lax.broadcast_in_dim(leaf, (copies, *jnp.shape(leaf)), tuple(range(1, jnp.ndim(leaf) + 1)))

    with jax.named_scope(_MARK):
        found = jax.tree.map(spread, features)
    return (found, 0) if apart else (jax.tree.map(lambda leaf: lax.squeeze(leaf, (0,)), found), None)


def is_mark(equation: Any) -> bool:
    """Whether an equation of a derivative marks the features that a bank reads.

    Example:
        >>> jaxpr = jax.make_jaxpr(lambda features: marked(features, 3, "assays")[0])(jnp.ones(2))
        >>> [is_mark(equation) for equation in jaxpr.eqns]
        [True, False]
    """
    return equation.primitive.name == "broadcast_in_dim" and _MARK in str(equation.source_info.name_stack)
