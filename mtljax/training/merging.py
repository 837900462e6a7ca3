"""What devices have each of their own, merged: means by task, and the network's state."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import DictKey

from mtljax.types import Array, PyTree


def over_devices(value: Array, share: Array, axis_name: Any) -> Array:
    """A per-task mean over one device's elements, with its share of their weights, as the mean over all devices'."""
    if axis_name is None:
        return value
    return lax.psum(jnp.where(share > 0, value * share, 0.0), axis_name)


def share_over_devices(weight_sum: Array, axis_name: Any) -> Array:
    """This device's share of a sum of weights; 0 where the sum over devices is 0."""
    if axis_name is None:
        return jnp.ones_like(weight_sum)
    total = lax.psum(weight_sum, axis_name)
    return weight_sum / jnp.where(total > 0, total, 1)


def mean_over_devices(
    new: PyTree, old: PyTree, axis_name: str | tuple[str, ...] | None, banks: Collection[str] = ()
) -> PyTree:
    """The network's state after the step: averaged over the devices that moved it, and never poisoned by NaN.

    An entry that was finite and is no longer is held. One that was infinite, such as a running maximum before its first
    step, may become anything but NaN. A device whose part of the batch has no labels has not moved the state. In a leaf
    of a bank, whose path holds the bank's name, this is told for each task by itself.
    """

    def leaf(path: tuple[Any, ...], a: Any, b: Any) -> Any:
        if jnp.issubdtype(jnp.result_type(a), jnp.integer) and axis_name is not None:
            return lax.pmax(a, axis_name)  # counters
        if not jnp.issubdtype(jnp.result_type(a), jnp.floating):
            return a
        a = jnp.where(jnp.isfinite(a) | jnp.isnan(b) | (jnp.isinf(b) & ~jnp.isnan(a)), a, b)
        if axis_name is None:
            return a
        banked = any(isinstance(key, DictKey) and key.key in banks for key in path)
        changed = (a != b) & ~(jnp.isnan(a) & jnp.isnan(b))
        moved = changed.any(axis=tuple(range(1 if banked else 0, jnp.ndim(a))), keepdims=True).astype(a.dtype)
        count = lax.psum(moved, axis_name)
        total = lax.psum(jnp.where(moved > 0, a, 0.0), axis_name)
        return jnp.where(count > 0, total / jnp.maximum(count, 1), b)

    return jax.tree_util.tree_map_with_path(leaf, new, old)
