"""One step's losses, differentiated as far as the shared representation: what engines read.

Every head has been pulled once. The trunk is left; each engine pulls it in its own way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import participation
from mtljax.engines.cotangents import merged, stacked
from mtljax.engines.linear import Cotangents, Linearized
from mtljax.types import Array, PyTree


class Cut(NamedTuple):
    """Losses whose heads have been pulled, on this device.

    Attributes:
        linear: the losses' derivative.
        cotangents: list of T, each task's cotangents at the boundary, already times its seed.
        own: dict by task name, gradients of task-specific parameters times the task's seed.
        seeds: list of T scalars, what each loss was pulled with (1, or the device's share of the examples).
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

    def rows(self) -> list[Array]:
        """Cotangents as arrays `[T, ...]`, one per boundary value; zero where a task does not take part."""
        return stacked(self.cotangents, self.active)

    def pull(self, weights: Array | None = None, tasks: Array | None = None) -> PyTree:
        """`sum_k w_k dL_k / d shared` over the tasks that take part, over all devices: one backward pass.

        Args:
            weights: w, `[T]`; None for 1.
            tasks: bool `[T]`, who counts; None for `active`.
        """
        total = merged(self.cotangents, self.active if tasks is None else tasks, weights)
        return self.reduce(self.linear.pull(total))


def cut_heads(
    linear: Linearized,
    factors: Array,
    shared: PyTree,
    active: Array,
    *,
    reduce: Callable[[PyTree], PyTree] | None = None,
    squared: bool = False,
) -> Cut:
    """Pull every head once, and see whose cotangents are finite.

    Args:
        linear: the derivative.
        factors: `[T]`, what each loss is multiplied with.
        shared: the shared parameters.
        active: bool `[T]`, the tasks that take part as far as labels and losses tell.
        reduce: sums a pytree over devices; None on one device.
        squared: whether squares must be finite, too.
    """
    # In each loss's own dtype and, inside shard_map, its own type.
    seeds = [factors[k].astype(loss.dtype) * jnp.ones_like(loss) for k, loss in enumerate(linear.losses)]
    cotangents, own, products = linear.heads(seeds)
    named = list(zip(cotangents, sorted(own), strict=True))
    gradients = [(each, own[name]) for each, name in named]
    known = [[(leaf,) for leaf in jax.tree.leaves(each)] + products[name] for each, name in named]
    sound = participation.sound(gradients, reduce, squared=squared, factors=known)
    return Cut(
        linear, cotangents, own, seeds, shared, active & sound, _alone if reduce is None else reduce, squared=squared
    )


def reduction(axis_name: str | tuple[str, ...] | None) -> Callable[[PyTree], PyTree] | None:
    """What sums a pytree over the devices of a mapped axis; None without one."""
    return None if axis_name is None else lambda tree: lax.psum(tree, axis_name)


def _alone(tree: PyTree) -> PyTree:
    return tree
