"""Gramians of rows of any size.

A Gramian's entries are products of gradients, which leave float32's range where the gradients themselves do not: those
of 2e19 overflow, those of 1e-20 vanish. Where the longest row is outside a comfortable range, the Gramian is that of
all rows times one power of two. That rounds nothing, and a method whose weights do not depend on the scale of the
gradients sees nothing of it; others read the factor, `scale`. Inside the comfortable range nothing is touched, so that
ordinary steps keep every bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.solvers.scaling import power_of_two
from mtljax.sweeps import throughout
from mtljax.types import Array, PyTree

COMFORTABLE = 40
"""A Gramian is taken as it is where its longest row has a norm from 2^-40 to 2^40: its square is far from either end of
float32's range, and rows 2^-20 as long still count in full."""

LARGEST_SCALE = 2.0**120


class Ranged(NamedTuple):
    """A Gramian in range.

    Attributes:
        gramian: `[T, T]`, of the rows times `scale`; zero for a row that is not finite.
        scale: float32 `[]`, a power of two; 1 in the comfortable range.
        finite: bool `[T]`, which rows hold neither NaN nor infinity.
    """

    gramian: Array
    scale: Array
    finite: Array


def ranged(first: Array, again: Callable[[], Ranged]) -> Ranged:
    """The Gramian `first` where it is in range, else what `again` computes; only one of the two is run.

    Under `jax.vmap` `again` is run where any member needs it, and changes no bit of the others.

    Args:
        first: `[T, T]`, the same on every device.
        again: the Gramian of scaled rows, by `scale_for` the largest entry of each.
    """
    longest = jnp.max(jnp.diagonal(first))
    comfortable = (longest >= 4.0**-COMFORTABLE) & (longest <= 4.0**COMFORTABLE)
    as_it_is = Ranged(first, jnp.ones((), jnp.float32), jnp.ones(first.shape[:1], bool))

    def scaled() -> Ranged:
        return jax.tree.map(lambda a, b: jnp.where(comfortable, a, b), as_it_is, again())

    return lax.cond(throughout(comfortable), lambda: as_it_is, scaled)


def scale_for(largest: Array) -> Array:
    """The power of two by which rows are multiplied whose largest entries are `largest [T]`; NaN and inf do not count.

    Example:
        >>> float(scale_for(jnp.array([3.0, jnp.nan, 1.0])))
        0.5
    """
    size = jnp.max(jnp.where(jnp.isfinite(largest), largest, 0.0))
    unit = power_of_two(jnp.clip(size.astype(jnp.float32), 1.0 / LARGEST_SCALE, LARGEST_SCALE))
    return jnp.where(size > 0, 1.0 / unit, 1.0)


def largest_entries(stacked: PyTree, num_tasks: int) -> Array:
    """The largest entry of each row by size, `[T]`; NaN where the row holds one. Squares nothing.

    Example:
        >>> largest_entries({"w": jnp.array([[1.0, -3.0], [1e30, 2.0]])}, 2).tolist()
        [3.0, 1.0000000150474662e+30]
    """
    found = jnp.zeros((num_tasks,), jnp.float32)
    for leaf in jax.tree.leaves(stacked):
        wide = jnp.abs(leaf.reshape(num_tasks, -1)).astype(trees.accumulator(leaf.dtype))
        found = jnp.maximum(found, jnp.max(wide, axis=1, initial=0.0))
    return found


def in_units(columns: Array, largest: Array, *, symmetric: bool = True) -> Ranged:
    """The Gramian in one unit, out of columns in one unit each.

    Args:
        columns: `[T, T]`, entry (i, k) is `<g_i, g_k>` times `scale_for` the largest entry of row k alone. Such an
            entry is in range where the rows are, and no row need be copied for it but row k.
        largest: `[T]`, the largest entry of each row.
        symmetric: whether it is known to be, so that rounding may be averaged out.
    """
    finite, scale = jnp.isfinite(largest), scale_for(largest)
    units = jax.vmap(scale_for)(largest[:, None])
    found = columns * scale * (scale / units)[None, :]
    found = 0.5 * (found + found.T) if symmetric else found
    return Ranged(jnp.where(finite[:, None] & finite[None, :], found, 0.0), scale, finite)


def in_its_unit(row: PyTree, largest: Array) -> PyTree:
    """A row times `scale_for` its largest entry, in its own dtype."""
    return trees.scale(scale_for(largest[None]), row)


def gramian(stacked: PyTree, *, num_tasks: int) -> Ranged:
    """The Gramian of stacked rows of any size.

    Args:
        stacked: pytree with leaves `[T, *p]` of any floating dtype.
        num_tasks: T.

    Example:
        >>> found = gramian(jnp.array([[1e30, 0.0], [0.0, 2e30]]), num_tasks=2)
        >>> print(jnp.sqrt(found.gramian) / found.scale)
        [[1.e+30 0.e+00]
         [0.e+00 2.e+30]]
    """
    return _products(stacked, stacked, num_tasks, symmetric=True)


def refined_gramian(stacked: PyTree, *, num_tasks: int) -> Ranged:
    """The Gramian of stacked rows in float64, which holds every product of float32 rows; where float64 is enabled.

    Args:
        stacked: pytree with leaves `[T, *p]` of any floating dtype.
        num_tasks: T.

    Example:
        >>> with jax.enable_x64(True):
        ...     rows = jnp.array([[1.0, 2.0**-20]], jnp.float32)
        ...     print(refined_gramian(rows, num_tasks=1).gramian - 1.0 == 2.0**-40)
        [[ True]]
    """
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), stacked)
    found = trees.cross_gramian(wide, wide, rows=(num_tasks, num_tasks))
    squares = jnp.diagonal(found)
    finite = jnp.isfinite(squares)
    longest = jnp.max(jnp.where(finite, squares, 0.0))
    comfortable = (longest >= 4.0**-COMFORTABLE) & (longest <= 4.0**COMFORTABLE)
    scale = jnp.where(comfortable, 1.0, scale_for(jnp.sqrt(longest)[None])).astype(jnp.float32)
    return Ranged(jnp.where(finite[:, None] & finite[None, :], found * scale * scale, 0.0), scale, finite)


def cross_gramian(a: PyTree, b: PyTree, *, num_tasks: int) -> Ranged:
    """Products of all rows of `a` with all rows of `b`, rows of any size; `scale` is that of both.

    Args:
        a: pytree with leaves `[T, *p]`.
        b: the same of other samples.
        num_tasks: T.
    """
    return _products(a, b, num_tasks, symmetric=False)


def _products(a: PyTree, b: PyTree, num_tasks: int, *, symmetric: bool) -> Ranged:
    def again() -> Ranged:
        largest = jnp.maximum(largest_entries(a, num_tasks), largest_entries(b, num_tasks))

        def column(one: tuple[PyTree, Array]) -> Array:
            row = jax.tree.map(lambda leaf: leaf[None], in_its_unit(*one))
            return trees.cross_gramian(a, row, rows=(num_tasks, 1))[:, 0]

        return in_units(lax.map(column, (b, largest)).T, largest, symmetric=symmetric)

    return ranged(trees.cross_gramian(a, b, rows=(num_tasks, num_tasks)), again)
