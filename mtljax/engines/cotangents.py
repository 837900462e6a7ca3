"""Algebra on the cotangents of T tasks at the boundary between heads and trunk."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax.numpy as jnp

from mtljax import trees
from mtljax.banks import Entries
from mtljax.engines.linear import Cotangents
from mtljax.participation import rows_of
from mtljax.types import Array


def merged(
    cotangents: Sequence[Cotangents],
    entries: Entries,
    active: Array,
    factors: Array | None = None,
    *,
    apart: bool = True,
) -> list[Array]:
    """`sum_k f_k c_k` over active tasks, one array per boundary value. Values of an inactive task may be NaN.

    Args:
        cotangents: by entry; of banks `[n, ...]`.
        entries: of the tasks.
        active: bool `[T]`.
        factors: f, `[T]`; None for 1.
        apart: whether the tasks of banks are kept apart; else their entries are the sums, `[...]`.
    """
    places, total = entries.places(), []
    for values in zip(*cotangents, strict=True):
        parts = []
        for e, value in enumerate(values):
            if value is None:
                continue
            if entries.sizes[e] is not None and not apart:
                parts.append(value)
                continue
            present, factor = active[places[e]], None if factors is None else factors[places[e]].astype(value.dtype)
            if entries.sizes[e] is None:
                scaled = value if factor is None else value * factor
                parts.append(jnp.where(present, scaled, jnp.zeros_like(value)))
            else:
                weights = present.astype(value.dtype) if factor is None else jnp.where(present, factor, 0)
                parts.append(trees.weighted_sum(weights, rows_of(present, value)))
        total.append(functools.reduce(jnp.add, parts))
    return total


def stacked(cotangents: Sequence[Cotangents], entries: Entries, active: Array) -> list[Array]:
    """The T cotangents as arrays `[T, ...]`, one per boundary value; rows of inactive tasks are zero.

    Args:
        cotangents: by entry; of banks `[n, ...]`.
        entries: of the tasks.
        active: bool `[T]`.
    """
    places, rows = entries.places(), []
    for values in zip(*cotangents, strict=True):
        first = next(e for e, value in enumerate(values) if value is not None)
        shape = values[first].shape if entries.sizes[first] is None else values[first].shape[1:]
        zero = jnp.zeros_like(values[first], shape=shape)
        parts = []
        for e, value in enumerate(values):
            if entries.sizes[e] is None:
                row = zero if value is None else value
                parts.append(jnp.where(active[places[e]], row, jnp.zeros_like(row)))
            elif value is None:
                parts.append(jnp.broadcast_to(zero, (entries.sizes[e], *shape)))
            else:
                parts.append(rows_of(active[places[e]], value))
        rows.append(entries.joined(parts))
    return rows
