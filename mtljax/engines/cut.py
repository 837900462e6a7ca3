"""One step's losses, differentiated as far as the shared representation: what engines read.

Every head has been pulled once. The trunk is left; each engine pulls it in its own way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import participation, trees
from mtljax.banks import Group
from mtljax.engines.cotangents import merged, stacked
from mtljax.engines.linear import Cotangents, Linearized
from mtljax.sweeps import throughout
from mtljax.types import Array, PyTree

GROUP = 2**18
"""How many numbers the cotangents of a group of a bank's tasks may hold, in a step in which one is not finite."""


class Cut(NamedTuple):
    """Losses whose heads have been pulled, on this device.

    Attributes:
        linear: the losses' derivative.
        cotangents: by entry, the cotangents at the boundary, already times their seeds. Of a bank that is not kept
            apart they are summed over its tasks, with the weights of `cut_heads`.
        own: dict by entry, gradients of task-specific parameters times the tasks' seeds; `[n, *p]` of a bank.
        seeds: by entry, what each loss was pulled with (1, or the device's share of the examples), `[]` or `[n]`.
        shared: the shared parameters (only shapes are read).
        active: bool `[T]`, the tasks that take part: asked for, with labels, and with a finite loss and finite
            cotangents on every device.
        reduce: sums a pytree over devices; the identity on one device.
        squared: whether the squares of rows must be finite, too.
    """

    linear: Linearized
    cotangents: list[Cotangents]
    own: dict[str, PyTree]
    seeds: list[Array]
    shared: PyTree
    active: Array
    reduce: Callable[[PyTree], PyTree]
    squared: bool = False

    @property
    def num_tasks(self) -> int:
        """T."""
        return self.linear.entries.num_tasks

    def rows(self) -> list[Array]:
        """Cotangents as arrays `[T, ...]`, one per boundary value; zero where a task does not take part."""
        return stacked(self.cotangents, self.linear.entries, self.active)

    def pull(self, weights: Array | None = None, tasks: Array | None = None) -> PyTree:
        """`sum_k w_k dL_k / d shared` over the tasks that take part, over all devices: one backward pass.

        Args:
            weights: w, `[T]`; None for 1. Of a bank that is not kept apart, those of `cut_heads` are used already.
            tasks: bool `[T]`, who counts; None for `active`.
        """
        active = self.active if tasks is None else tasks
        total = merged(self.cotangents, self.linear.entries, active, weights, apart=self.linear.apart is True)
        return self.reduce(self.linear.pull(total))


def cut_heads(
    linear: Linearized,
    factors: Array,
    shared: PyTree,
    active: Array,
    *,
    reduce: Callable[[PyTree], PyTree] | None = None,
    squared: bool = False,
    weights: Array | None = None,
    apart: Callable[[Group], Linearized] | None = None,
) -> Cut:
    """Pull every head once, and see whose cotangents are finite.

    Args:
        linear: the derivative.
        factors: `[T]`, what each loss is multiplied with.
        shared: the shared parameters.
        active: bool `[T]`, the tasks that take part as far as labels and losses tell.
        reduce: sums a pytree over devices; None on one device.
        squared: whether squares must be finite, too.
        weights: `[T]`, what the cotangents at the boundary are multiplied with beside the factors, where the tasks of
            banks are summed; None for 1. Own gradients are not.
        apart: the derivative with a group of tasks of a bank kept apart, made if a task of a bank that is summed is not
            finite: the bank's other tasks then do without that task. None: the whole bank does not take part.
    """
    entries, alone = linear.entries, _alone if reduce is None else reduce
    parts = entries.parts(factors)
    # In each loss's own dtype and, inside shard_map, its own type.
    seeds = [part.astype(loss.dtype) * jnp.ones_like(loss) for part, loss in zip(parts, linear.losses, strict=True)]
    summed = [e for e, size in enumerate(entries.sizes) if size is not None and not linear.apart]
    places = entries.places()
    for e in summed:
        # A task that does not take part is in the sum all the same, times 0.
        seeds[e] = jnp.where(active[places[e]], seeds[e], jnp.zeros_like(seeds[e]))
    cotangents, own, products = linear.heads(seeds)
    if weights is not None:
        for e in summed:
            cotangents[e] = linear.head(e, seeds[e] * weights[places[e]].astype(seeds[e].dtype))
    named = list(zip(cotangents, sorted(own), strict=True))
    known = [[(leaf,) for leaf in jax.tree.leaves(each)] + products[name] for each, name in named]
    gradients = [(each, own[name]) for each, name in named]
    sizes = [size if linear.apart else None for size in entries.sizes]
    sound = participation.sound(gradients, reduce, squared=squared, factors=known, sizes=sizes)
    if summed:
        fine = jnp.stack([sound[e] for e in summed]).all()
        spread = zip(entries.sizes, sound, strict=True)
        sound = entries.joined([one if size is None else jnp.broadcast_to(one, (size,)) for size, one in spread])
    cut = Cut(linear, cotangents, own, seeds, shared, active & sound, alone, squared)
    if not summed or apart is None:
        return cut
    return _contained(cut, fine, summed, active, weights, apart)


def _contained(
    cut: Cut,
    fine: Array,
    banks: list[int],
    active: Array,
    weights: Array | None,
    apart: Callable[[Group], Linearized],
) -> Cut:
    """The cut; if the sum over a bank's tasks is not finite, once more without the tasks that make it so.

    Own gradients are each task's own all the same, since each comes from the seed of its own loss.

    Args:
        cut: as it was pulled.
        fine: bool `[]`, whether all sums are finite, the same on all devices.
        banks: the entries that are summed.
        active: bool `[T]`, the tasks that take part as far as labels and losses tell.
        weights: as in `cut_heads`.
        apart: likewise.
    """
    places = cut.linear.entries.places()
    before = [cut.cotangents[e] for e in banks]

    def again() -> tuple[list[Cotangents], Array]:
        sums, present = [], cut.active
        factors = jnp.ones_like(active, jnp.float32) if weights is None else weights
        for e in banks:
            total, sound = _sum_of_sound(cut, e, active[places[e]], factors[places[e]], apart)
            sums.append(total)
            present = present.at[places[e]].set(sound)
        return sums, present

    found, present = lax.cond(throughout(fine), lambda: (before, cut.active), again)
    cotangents = list(cut.cotangents)
    for e, values in zip(banks, found, strict=True):
        cotangents[e] = values
    return cut._replace(cotangents=cotangents, active=present)


def _sum_of_sound(
    cut: Cut, e: int, active: Array, factors: Array, apart: Callable[[Group], Linearized]
) -> tuple[Cotangents, Array]:
    """The sum over a bank's tasks whose cotangents and own gradients are finite, and which these are, bool `[n]`.

    Group by group, since the cotangents of all tasks together, `[n, B, ...]`, may be far larger than anything else in
    the program, and its memory is set aside at every step.
    """
    name, size = cut.linear.entries.names[e], active.shape[0]
    # Zeros that vary over devices as the cotangents do.
    nothing: Cotangents = [
        None if each is None else jnp.where(jnp.zeros((), bool), each, jnp.zeros_like(each))
        for each in cut.cotangents[e]
    ]
    features = sum(math.prod(each.shape) for each in nothing if each is not None)
    number = max(1, min(size, GROUP // max(features, 1))) if cut.linear.marked[e] else size

    def add(k: Array | int, sofar: tuple[Cotangents, Array]) -> tuple[Cotangents, Array]:
        total, sound = sofar
        start = jnp.minimum(k * number, size - number)  # the last group may begin in the one before

        def of_group(rows: Array) -> Array:
            return lax.dynamic_slice_in_dim(rows, start, number)

        found = apart(Group(name, start, number)).head(e, cut.seeds[e])
        shapes = [None if each is None else (number, *each.shape) for each in nothing]
        if [None if each is None else each.shape for each in found] != shapes:
            # The features were not found at the same places; then the bank does not take part.
            return total, sound
        pieces = found, jax.tree.map(of_group, cut.own[name])
        fine = of_group(active) & participation.sound([pieces], cut.reduce, squared=cut.squared, sizes=[number])
        counted = fine & (start + jnp.arange(number) >= k * number)
        weights = jnp.where(counted, of_group(factors), 0.0)
        total = [
            None if each is None else each + trees.weighted_sum(weights, participation.rows_of(counted, rows))
            for each, rows in zip(total, found, strict=True)
        ]
        return total, lax.dynamic_update_slice_in_dim(sound, fine, start, 0)

    begin = nothing, jnp.zeros_like(active)
    return add(0, begin) if number == size else lax.fori_loop(0, -(-size // number), add, begin)


def reduction(axis_name: str | tuple[str, ...] | None) -> Callable[[PyTree], PyTree] | None:
    """What sums a pytree over the devices of a mapped axis; None without one."""
    return None if axis_name is None else lambda tree: lax.psum(tree, axis_name)


def _alone(tree: PyTree) -> PyTree:
    return tree
