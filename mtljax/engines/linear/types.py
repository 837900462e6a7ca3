"""Losses at a point, and their derivative in two pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mtljax.banks import Entries, Group
from mtljax.types import Array, PyTree

Cotangents = list[Array | None]
"""One entry per boundary value; None where the entry of the tasks does not read it. Of a bank that is kept apart they
have a leading axis `[n]`, else they are summed over its tasks."""

Factors = dict[str, list[tuple[Array, ...]]]


class Linearized(NamedTuple):
    """Losses at a point, and their derivative in two pieces.

    Attributes:
        entries: of the tasks, with the sizes of banks.
        losses: by entry, a scalar or `[n]` each.
        aux: what the loss function returned beside them (None without `has_aux`).
        restore: puts losses by entry into the form in which the loss function returns them.
        head: `head(e, seed) -> cotangents at the boundary` of seed, `[]` or `[n]`, times loss e, its parameters left
            out.
        heads: `heads(seeds) -> (list of cotangents, dict of own gradients, dict of factors)`, all heads, each pulled
            once. An entry's factors are a list of its leaves, each as the two arrays whose product it is, or alone.
        pull: `pull(cotangents, one entry per boundary value) -> gradient like shared`.
        push: `push(tangents like shared) -> tangents at the boundary`.
        push_heads: `push_heads(tangents at the boundary) -> loss tangents by entry`.
        apart: whether the tasks of banks are kept apart; or the group of tasks that are.
        marked: by entry, whether it is a bank whose features are marked, so that groups of its tasks can run alone.
        separate: whether the map was cut.
        direct: for each boundary value, whether it is a shared parameter itself, read by a head without a trunk
            between (as all are where every task has inputs of its own).
        trunk: number of equations between shared parameters and boundary.
        convolutional: whether the trunk holds a convolution.
        products: multiplications in the trunk's matrix products; over the number of parameters, how often each is used.
        forward: whether `push` can run (not where a `jax.custom_vjp` has no forward rule).
    """

    entries: Entries
    losses: tuple[Array, ...]
    aux: Any
    restore: Callable[[Sequence[Array]], Any]
    head: Callable[[int, Array], Cotangents]
    heads: Callable[[Sequence[Array]], tuple[list[Cotangents], dict[str, PyTree], Factors]]
    pull: Callable[[Sequence[Array]], PyTree]
    push: Callable[[PyTree], list[Array]]
    push_heads: Callable[[Sequence[Array]], tuple[Array, ...]]
    apart: Group | bool
    marked: tuple[bool, ...]
    separate: bool
    direct: tuple[bool, ...]
    trunk: int
    convolutional: bool
    products: int
    forward: bool
