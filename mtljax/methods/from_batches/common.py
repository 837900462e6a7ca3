"""Parts of bilevel methods: their state, which tasks take part, inner steps, gradients of weighted losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import participation, trees
from mtljax.banks import in_order
from mtljax.engines.cut import cut_heads
from mtljax.engines.linear import linearize
from mtljax.types import Array, Batches, MethodState, Params, PyTree, Update


class Learned(NamedTuple):
    """The state of a bilevel method, `MethodState.inner`; arrays only.

    Attributes:
        meta: float32 `[T]`, what is learned: the weights, or what they are the softmax of.
        optimizer: state of the optimizer that learns it, leaves `[T, ...]`, each task's its own.
        rest: pytree of arrays, the method's own state.
    """

    meta: Array
    optimizer: PyTree
    rest: PyTree = ()


class Slope(NamedTuple):
    """Losses at a point, and the gradient of every weighted sum of them.

    Attributes:
        vector: `[T]`, in their own precision.
        present: bool `[T]`, of the tasks that were asked for those whose loss and gradient are finite.
        gradient: `gradient(weights) -> Params`, of `sum_k w_k L_k` over these; the others may be NaN.
    """

    vector: Array
    present: Array
    gradient: Callable[[Array], Params]


SlopeAt = Callable[[Params, Array], Slope]


def vector_of(batches: Batches, index: int) -> Callable[[Params], Array]:
    """`params -> losses [T]` on one batch, for derivatives in forward mode."""
    return lambda params: in_order(batches.losses_fn(params, index))


def slope_of(batches: Batches, index: int) -> SlopeAt:
    """`(params, asked bool [T]) -> Slope` on one batch. Every head is pulled once, the trunk once for each gradient.

    The gradient is differentiable by the weights and by `params`.
    """

    def at(params: Params, asked: Array) -> Slope:
        linear = linearize(batches.losses_fn, params, (index,), False)
        entries = linear.entries
        vector = entries.joined(linear.losses)
        cut = cut_heads(linear, jnp.ones(vector.size), params.shared, asked & jnp.isfinite(vector))

        def gradient(weights: Array) -> Params:
            return Params(cut.pull(weights), participation.own_gradients(cut.own, cut.active, weights, entries=entries))

        return Slope(vector, cut.active, gradient)

    return at


def agreed(attempt: Callable[[Array], tuple[PyTree, Array]], asked: Array) -> tuple[PyTree, Array]:
    """The result of `attempt(asked) -> (found, present)`, repeated without tasks that do not take part, if any.

    Example:
        >>> found, present = agreed(lambda asked: (asked.sum(), asked.at[1].set(False)), jnp.ones(3, bool))
        >>> print(found, present)
        2 [ True False  True]
    """
    first = attempt(asked)
    return lax.cond((first[1] == asked).all(), lambda: first, lambda: attempt(first[1]))


def descend(params: PyTree, gradient: PyTree, rate: Array | float) -> PyTree:
    """`params - rate * gradient`, each leaf in its own dtype."""

    def leaf(value: Array, slope: Array) -> Array:
        dtype = trees.accumulator(value.dtype)
        return (value.astype(dtype) - rate * slope.astype(dtype)).astype(value.dtype)

    return jax.tree.map(leaf, params, gradient)


def inner_steps(
    train: SlopeAt, params: Params, weights: Array, asked: Array, rate: Array | float, count: int
) -> Params:
    """The parameters after `count` steps of gradient descent on `sum_k w_k L_k`.

    Differentiable by `weights`; in forward mode the memory that this takes does not grow with `count`.
    """

    def step(params: Params, _: None) -> tuple[Params, None]:
        return descend(params, train(params, asked).gradient(weights), rate), None

    return lax.scan(step, params, None, length=count)[0]


def settled(grads: Params, new: MethodState, old: MethodState, present: Array) -> tuple[Update, MethodState]:
    """Gradients and the new state; a void step where one of them is not finite, or no task takes part."""
    whole = present.any() & trees.all_finite((grads, new))
    state = jax.tree.map(lambda a, b: jnp.where(whole, a, b), new, old)
    return Update(trees.where(whole, grads), present & whole), state
