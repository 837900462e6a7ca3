"""Who takes part in a step. Every way of taking one asks here, so that all of them answer alike.

A task takes part where it is asked for, has labels (a positive sum of weights) and has a finite loss, which is known
before any evidence is made; and where its gradient is finite, which is known once its head was pulled. All devices
decide alike, before anything is summed. A task that does not take part is as good as absent: its rows and its own
gradients are zero and its part of a method's state is held. `jnp.sqrt` or a norm at 0 gives a finite loss with a NaN
gradient.

Where an optimizer follows, a loss or gradient whose square is not finite counts as one that is not: one beyond 1.8e19.
Adam's second moment, once infinite, stays so for ever. A loss below what the method can make sense of
(`Method.least_loss`) counts as one that is not finite.

What gets past that, such as a NaN that the trunk itself makes, is stopped entry by entry: a non-finite entry of the
update is 0. Where no task is left the step is void: zeros for the optimizer, and a method's state that has not moved.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.banks import Entries, rows_scaled
from mtljax.checks import check_least_loss
from mtljax.sweeps import throughout
from mtljax.types import Array, Method, PyTree

Reduce = Callable[[PyTree], PyTree]


class Present(NamedTuple):
    """Who takes part, as far as labels and losses tell.

    Attributes:
        losses: `[T]`, averaged over devices; non-finite where they were.
        clean: `[T]`, the same with 0 for tasks that do not take part.
        share: `[T]`, this device's share of each task's sum of weights (1 on one device).
        weight_sum: `[T]`, each task's sum of weights over devices.
        asked: bool `[T]`, the tasks that are asked for and have weight.
        active: bool `[T]`, those of them whose loss is finite, and not below what the method takes.
    """

    losses: Array
    clean: Array
    share: Array
    weight_sum: Array
    asked: Array
    active: Array


def present(
    losses: Array,
    *,
    weight_sum: Array | None = None,
    active: Array | None = None,
    reduce: Reduce | None = None,
    method: Method | None = None,
    squared: bool = False,
) -> Present:
    """Who takes part before there is any evidence.

    Args:
        losses: `[T]`, this device's.
        weight_sum: `[T]`, the sum of weights that each loss is a mean over, on this device; None where all are alike.
        active: bool `[T]`, who is asked for; None for all.
        reduce: sums a pytree over devices; None on one device.
        method: the method, whose `least_loss` counts; None for one that takes any losses.
        squared: whether the squares of losses must be finite, too.

    Raises:
        ValueError: a concrete loss that is below what the method takes.

    Example:
        >>> found = present(jnp.array([1.0, jnp.nan, 3.0]), weight_sum=jnp.array([4, 4, 0]))
        >>> print(found.asked, found.active, found.clean)
        [ True  True False] [ True False False] [1. 0. 0.]
    """
    here = jnp.ones_like(losses) if weight_sum is None else weight_sum.astype(losses.dtype)
    total = here if reduce is None else reduce(here)
    if reduce is None:
        share = jnp.ones_like(losses)
    else:
        share = jnp.where(total > 0, here / jnp.where(total > 0, total, 1.0), 0.0)
        losses = reduce(jnp.where(share > 0, losses * share, 0.0))
    asked = total > 0 if active is None else active & (total > 0)
    taking_part = asked & jnp.isfinite(_witness(losses, True) if squared else losses)
    if method is not None and method.least_loss is not None:
        check_least_loss(method.name, losses, asked, method.least_loss)
        taking_part = taking_part & (losses >= jnp.asarray(method.least_loss))
    return Present(losses, jnp.where(taking_part, losses, 0.0), share, total, asked, taking_part)


def sound(
    gradients: Sequence[PyTree],
    reduce: Reduce | None = None,
    *,
    squared: bool = False,
    factors: Sequence[Sequence[tuple[Array, ...]]] | None = None,
    sizes: Sequence[int | None] | None = None,
) -> Array:
    """Whether each task's gradients are finite on every device, bool `[T]`.

    Args:
        gradients: list of T pytrees.
        reduce: sums a pytree over devices; None on one device.
        squared: whether their squares must be, too.
        factors: for each task the leaves of its gradient, each as the two arrays whose product it is, or alone; all
            gradients are read only where these do not show that they are finite. None to read them at once.
        sizes: for each pytree None, or n where its leaves are `[n, ...]`, of n tasks; None for single tasks.

    Example:
        >>> sound([jnp.ones(2), jnp.array([0.0, jnp.nan])]).tolist()
        [True, False]
        >>> sound([jnp.array([1e19]), jnp.array([1e20])], squared=True).tolist()
        [True, False]
    """
    sizes = [None] * len(gradients) if sizes is None else sizes
    num_tasks = sum(1 if size is None else size for size in sizes)

    def read() -> Array:
        if num_tasks == len(gradients):
            return jnp.stack([_finite(each, squared) for each in gradients])
        each = zip(gradients, sizes, strict=True)
        return jnp.concatenate(
            [
                _finite(tree, squared)[None] if size is None else sound_rows(tree, size, squared=squared)
                for tree, size in each
            ]
        )

    if factors is None:
        finite = read()
    else:
        fine = _bounded([pair for leaves in factors for pair in leaves])
        finite = lax.cond(throughout(fine), lambda: jnp.broadcast_to(fine, (num_tasks,)), read)
    return finite if reduce is None else reduce((~finite).astype(jnp.int32)) == 0


def _finite(tree: PyTree, squared: bool) -> Array:
    """Whether no entry is NaN or infinite."""
    return jnp.isfinite(sum([jnp.sum(_witness(leaf, squared)) for leaf in jax.tree.leaves(tree)], jnp.zeros(())))


def _bounded(leaves: Sequence[tuple[Array, ...]]) -> Array:
    """Whether all leaves, of all tasks, are known to be finite with their squares: by the norms of their factors.

    Many arrays of one shape are added up before they are summed, in one pass; to sum each costs more than to read it.
    """

    def squares(arrays: Sequence[Array]) -> Array:
        # One array may be a factor for many tasks: what a shared layer gave.
        distinct = {id(each): each for each in arrays}.values()
        by_shape: dict[Any, list[Array]] = {}
        for each in distinct:
            by_shape.setdefault(each.shape, []).append(_witness(each, True))
        return sum([jnp.sum(functools.reduce(jnp.add, same)) for same in by_shape.values()], jnp.zeros(()))

    pairs = [pair for pair in leaves if len(pair) == 2]
    alone = squares([pair[0] for pair in leaves if len(pair) == 1])
    # The square of an entry is no more than the product of its factors' squares. 2^8 is far more than sums round.
    product = squares([a for a, _ in pairs]) * squares([b for _, b in pairs])
    return (alone < 2.0**120) & (product < 2.0**120)


def _witness(leaf: Array, squared: bool) -> Array:
    """Whose sum is finite if the leaf is. Zero times NaN is NaN, and XLA:CPU sums twice as fast as it compares."""
    wide = leaf.astype(trees.accumulator(leaf.dtype))
    return wide * wide if squared else wide * 0


def sound_rows(stacked: PyTree, num_tasks: int, *, squared: bool = False) -> Array:
    """Whether each row of a tree with leaves `[T, *p]` is finite, bool `[T]`; with `squared` its square too.

    Example:
        >>> sound_rows(jnp.array([[1.0, 2.0], [jnp.inf, 0.0]]), 2).tolist()
        [True, False]
    """
    leaves = [leaf.reshape(num_tasks, -1) for leaf in jax.tree.leaves(stacked)]
    rows = [jnp.sum(_witness(leaf, squared), axis=1) for leaf in leaves]
    return jnp.isfinite(sum(rows, jnp.zeros((num_tasks,))))


def rows_of(active: Array, stacked: PyTree) -> PyTree:
    """Rows of the tasks that take part, zeros for the others; what is dropped may be NaN.

    Example:
        >>> rows_of(jnp.array([True, False]), jnp.array([[1.0], [jnp.nan]])).tolist()
        [[1.0], [0.0]]
    """
    return jax.vmap(trees.where)(active, stacked)


def held(new: PyTree, old: PyTree, active: Array | None) -> PyTree:
    """A new state with the entries `[T, ...]` of tasks that do not take part as they were; what is dropped may be NaN.

    Each leaf of a state either has an entry for each task or is about no task; the latter are new.

    Args:
        new: pytree of arrays.
        old: pytree of the same form.
        active: bool `[T]`, or None for all.

    Example:
        >>> held((jnp.ones(2), jnp.ones(())), (jnp.zeros(2), jnp.zeros(())), jnp.array([True, False]))[0].tolist()
        [1.0, 0.0]
    """
    if active is None:
        return new

    def leaf(a: Array, b: Array) -> Array:
        return jnp.where(trees.along(active, a), a, b) if jnp.shape(a)[:1] == active.shape else a

    return jax.tree.map(leaf, new, old)


def own_gradients(
    own: dict[str, PyTree],
    active: Array,
    weights: Array | None = None,
    *,
    entries: Entries | None = None,
    squared: bool = False,
) -> dict[str, PyTree]:
    """Task-specific gradients: times their task's weight where there are weights, zero where it does not take part.

    Args:
        own: dict by entry of the tasks.
        active: bool `[T]`.
        weights: `[T]`, or None for each head's own gradient.
        entries: of the tasks; None for single tasks.
        squared: as in `guarded`.

    Example:
        >>> own_gradients({"a": jnp.ones(1), "b": jnp.ones(1)}, jnp.array([True, False]), jnp.array([2.0, 2.0]))["a"]
        Array([2.], dtype=float32)
    """
    names = tuple(sorted(own))
    entries = entries or Entries(names, (None,) * len(names))
    found = {}
    for name, place in zip(names, entries.places(), strict=True):
        each = own[name] if weights is None else rows_scaled(weights[place], own[name])
        found[name] = guarded(each, active[place], squared=squared)
    return found


def guarded(tree: PyTree, keep: Array, *, squared: bool = False) -> PyTree:
    """The last guard: the entries of an update that are finite where `keep` holds, 0 elsewhere.

    Args:
        tree: the update.
        keep: bool `[]`, whether anything is kept; or `[n]`, which rows of leaves `[n, ...]`.
        squared: whether an entry's square must be finite, too.

    Example:
        >>> guarded(jnp.array([1.0, jnp.nan]), jnp.array(True)).tolist()
        [1.0, 0.0]
    """

    def leaf(each: Array) -> Array:
        # One comparison for both, since XLA:CPU pays for each in every entry. A square overflows from 2^64 on.
        dtype = trees.accumulator(each.dtype)
        most = 2.0 ** (jnp.finfo(dtype).maxexp // 2) if squared else jnp.inf
        limit = trees.along(jnp.where(keep, most, 0.0).astype(dtype), each)
        return jnp.where(jnp.abs(each).astype(dtype) < limit, each, jnp.zeros_like(each))

    return jax.tree.map(leaf, tree)


def unless_void(new: PyTree, old: PyTree, active: Array) -> PyTree:
    """A method's new state, or the old one where no task takes part."""
    anyone = active.any()
    return jax.tree.map(lambda a, b: jnp.where(anyone, a, b), new, old)
