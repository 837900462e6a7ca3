"""Algebra on the cotangents of T tasks at the boundary between heads and trunk."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax.numpy as jnp

from mtljax.engines.linear import Cotangents
from mtljax.types import Array


def merged(cotangents: Sequence[Cotangents], active: Array, factors: Array | None = None) -> list[Array]:
    """`sum_k f_k c_k` over active tasks, one array per boundary value. Values of an inactive task may be NaN."""
    total = []
    for entries in zip(*cotangents, strict=True):
        parts = []
        for k, entry in enumerate(entries):
            if entry is not None:
                scaled = entry if factors is None else entry * factors[k].astype(entry.dtype)
                parts.append(jnp.where(active[k], scaled, jnp.zeros_like(entry)))
        total.append(functools.reduce(jnp.add, parts))
    return total


def stacked(cotangents: Sequence[Cotangents], active: Array) -> list[Array]:
    """The T cotangents as arrays `[T, ...]`, one per boundary value; rows of inactive tasks are zero."""
    rows = []
    for entries in zip(*cotangents, strict=True):
        present = next(entry for entry in entries if entry is not None)
        full = [jnp.zeros_like(present) if entry is None else entry for entry in entries]
        rows.append(jnp.stack([jnp.where(active[k], row, jnp.zeros_like(row)) for k, row in enumerate(full)]))
    return rows
