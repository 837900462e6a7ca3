"""Gradients at the shared representation in place of gradients by the parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtljax import trees
from mtljax.checks import expect
from mtljax.engines.cut import Cut
from mtljax.engines.types import Engine, Reading, reading_of
from mtljax.ranges import LARGEST_SCALE, Ranged, in_its_unit, in_units, largest_entries, ranged
from mtljax.types import Array, Model, PyTree, Reads


def features(model: Model | None = None) -> Engine:
    """Reconcile tasks at the shared representation Z, then pull once through the trunk.

    The method reads `dL_k / dZ` (leaves `[T, B, ...]`) instead of `dL_k / d shared`, and the trunk is pulled once with
    the method's update. With `d shared = (dZ / d shared)^T dZ`,

        |sum_k w_k dL_k / d shared| <= |dZ / d shared| |sum_k w_k dL_k / dZ|,

    so the norm that MGDA minimises at Z is an **upper bound** of the one it would minimise by the parameters, up to the
    trunk's factor (MGDA-UB; Sener and Koltun, NeurIPS 2018, arXiv:1810.04650). It is an approximation: weights differ
    from the exact ones unless the trunk is an isometry, and non-conflict holds at Z, not by the parameters.

    Z is found automatically: all values that run from shared to task-specific computation. A shared parameter that a
    head reads directly counts as a part of Z. For `sharing.hard` Z is what `encode` returns.

    Args:
        model: the model the losses are made of, checked to have a shared representation (`encode` not None); None
            (default) for losses written by hand.

    Returns:
        `Engine` for every method. Losses that cannot be told apart (an array made by one stacked operation)
        raise ValueError at trace time.

    Raises:
        ValueError: `model` has no `encode`.

    Example:
        >>> import mtljax
        >>> features().name
        'features'
    """
    if model is not None:
        expect(isinstance(model, Model), "features", "model", "a mtljax.Model or None", model, TypeError)
    if model is not None and model.encode is None:
        raise ValueError(
            "features: model has no encode, so its tasks meet at no shared representation; use engines.full()"
        )

    def read(cut: Cut, reads: Reads) -> Reading:
        if not cut.linear.separate:
            raise ValueError(
                "features: losses_fn mixes the tasks before it returns, so no shared representation can be found; "
                "return a dict of scalars, each computed from its own head"
            )
        if reads == "gramian":
            return reading_of(cut, _at_features(cut))
        return Reading(cut.rows(), (), cut.active, None)

    def pull(cut: Cut, reads: Reads, answer: PyTree, kept: PyTree) -> PyTree:
        return cut.pull(answer) if reads == "gramian" else cut.reduce(cut.linear.pull(answer))

    return Engine("features", read, pull)


def _at_features(cut: Cut) -> Ranged:
    rows, num_tasks = cut.rows(), cut.num_tasks
    shape = (num_tasks, num_tasks)
    by_example = [r for r, direct in zip(rows, cut.linear.direct, strict=True) if not direct]
    # Examples lie on different devices, so their products add up; parameters are the same, so they are summed first.
    by_parameter = cut.reduce([r for r, direct in zip(rows, cut.linear.direct, strict=True) if direct])

    def products(others: PyTree, direct: PyTree) -> Array:
        found = cut.reduce(trees.cross_gramian(by_example, others, rows=shape))
        return jnp.asarray(found + trees.cross_gramian(by_parameter, direct, rows=shape))

    def again() -> Ranged:
        # Sums of the devices' largest entries, which are never smaller than the largest and at most N times as large.
        largest = cut.reduce(jnp.minimum(largest_entries(by_example, num_tasks), LARGEST_SCALE))
        largest = jnp.maximum(largest, largest_entries(by_parameter, num_tasks))
        scaled = (jax.vmap(in_its_unit)(each, largest) for each in (by_example, by_parameter))
        return in_units(products(*scaled), largest)

    return ranged(products(by_example, by_parameter), again)
