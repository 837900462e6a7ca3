"""What bilevel methods share: their type, their state, who takes part, inner steps, gradients of weighted losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import participation, trees
from mtljax.checks import expect
from mtljax.engines.checks import as_scalars, split_aux
from mtljax.engines.cut import cut_heads
from mtljax.engines.linear import linearise
from mtljax.methods.common import check_active
from mtljax.types import Array, Params, PyTree


class Bilevel(NamedTuple):
    """A bilevel method as a pair of pure functions: weights of training losses, learned from validation losses.

    Attributes:
        init: `init(num_tasks) -> BilevelState`.
        update: `update(params, state, train_args, val_args, *, key=None, active=None, **extra) ->
            (losses, grads: Params, state)`, or `((losses, aux), grads, state)` with `has_aux`.
            `losses_fn(params, *train_args)` is the training batch, `losses_fn(params, *val_args)` the validation batch.
            `losses` and `aux` are the training batch's; `grads` go into an optimiser as those of
            `mtljax.value_and_grad` do, and heads follow the weights, as for every weighted sum of losses. `active` is
            bool `[T]`: a task that is not active is as good as absent, and so is one whose loss or gradient is not
            finite in either batch: its weight is 0 and its state is held. Where NaN comes from the trunk, or from
            losses that cannot be told apart (`engines.linear`), the step is void: gradients of zero and the state as it
            was. `key` is not used.
        name: the method's public name.
    """

    init: Callable[[int], BilevelState]
    update: Callable[..., tuple[Any, Params, BilevelState]]
    name: str


class BilevelState(NamedTuple):
    """What a bilevel method carries from step to step; arrays only.

    Attributes:
        weights: float32 `[T]`, the weights of the training losses at the last step.
        residual: float32 `[]`, certificate of the inner solve (0 where there is none).
        meta: float32 `[T]`, what is learned: the weights, or what they are the softmax of.
        optimizer: state of the optimiser that learns it, leaves `[T, ...]`, each task's its own.
        inner: pytree of arrays, the method's own state.
    """

    weights: Array
    residual: Array
    meta: Array
    optimizer: PyTree
    inner: PyTree = ()


class Slope(NamedTuple):
    """Losses at a point, and the gradient of every weighted sum of them.

    Attributes:
        vector: `[T]`, in their own precision.
        losses: as the loss function returned them.
        aux: what it returned beside them.
        present: bool `[T]`, of the tasks that were asked for those whose loss and gradient are finite.
        gradient: `gradient(weights) -> Params`, of `sum_k w_k L_k` over these; the others may be NaN.
    """

    vector: Array
    losses: Any
    aux: Any
    present: Array
    gradient: Callable[[Array], Params]


SlopeAt = Callable[[Params, Array], Slope]


def check_params(name: str, params: Any, num_tasks: int, active: Array | None) -> None:
    """Raises where parameters, state and mask do not go together."""
    expect(isinstance(params, Params), name, "params", "mtljax.Params(shared, tasks)", params, TypeError)
    if len(params.tasks) != num_tasks:
        raise ValueError(f"{name} was initialised for {num_tasks} tasks but params.tasks has {sorted(params.tasks)}")
    check_active(name, active, num_tasks)


def check_args(name: str, args: Any) -> None:
    """Raises where a batch is not a tuple of arguments."""
    if not isinstance(args, tuple):
        raise TypeError(f"{name}: train_args and val_args must be tuples, found {type(args).__name__}")


def vector_of(losses_fn: Callable[..., Any], args: tuple[Any, ...], has_aux: bool) -> Callable[[Params], Array]:
    """`params -> losses [T]`, for derivatives in forward mode."""

    def f(params: Params) -> Array:
        losses, _ = split_aux(losses_fn(params, *args), has_aux)
        return jnp.stack(as_scalars(losses, sorted(params.tasks)))

    return f


def slope_of(losses_fn: Callable[..., Any], args: tuple[Any, ...], has_aux: bool) -> SlopeAt:
    """`(params, asked bool [T]) -> Slope`. Every head is pulled once, the trunk once for each gradient.

    The gradient is differentiable by the weights and by `params`.
    """

    def at(params: Params, asked: Array) -> Slope:
        linear = linearise(losses_fn, params, args, has_aux)
        vector = jnp.stack(linear.losses)
        cut = cut_heads(linear, jnp.ones(vector.size), params.shared, asked & jnp.isfinite(vector))

        def gradient(weights: Array) -> Params:
            return Params(cut.pull(weights), participation.own_gradients(cut.own, cut.active, weights))

        return Slope(vector, linear.restore(linear.losses), linear.aux, cut.active, gradient)

    return at


def agreed(attempt: Callable[[Array], tuple[PyTree, Array]], asked: Array) -> tuple[PyTree, Array]:
    """`attempt(asked) -> (found, present)`; once more without those that it found not to take part, if there are any.

    Example:
        >>> found, present = agreed(lambda asked: (asked.sum(), asked.at[1].set(False)), jnp.ones(3, bool))
        >>> print(found, present)
        2 [ True False  True]
    """
    first = attempt(asked)
    return lax.cond((first[1] == asked).all(), lambda: first, lambda: attempt(first[1]))


def softmax(values: Array, active: Array) -> Array:
    """Softmax over active tasks, 0 for the others, differentiable also where no task is active."""
    top = lax.stop_gradient(jnp.max(jnp.where(active, values, -jnp.inf)))
    powers = jnp.where(active, jnp.exp(jnp.where(active, values - jnp.where(jnp.isfinite(top), top, 0.0), 0.0)), 0.0)
    total = jnp.sum(powers)
    return powers / jnp.where(total > 0, total, 1.0)


def descend(params: PyTree, gradient: PyTree, rate: Array | float) -> PyTree:
    """`params - rate * gradient`, each leaf in its own dtype."""

    def leaf(value: Array, slope: Array) -> Array:
        dtype = trees.accumulator(value.dtype)
        return (value.astype(dtype) - rate * slope.astype(dtype)).astype(value.dtype)

    return jax.tree.map(leaf, params, gradient)


def inner_steps(
    train: SlopeAt, params: Params, weights: Array, asked: Array, rate: Array | float, count: int
) -> Params:
    """Where `count` steps of gradient descent on `sum_k w_k L_k` lead.

    Differentiable by `weights`; in forward mode the memory that this takes does not grow with `count`.
    """

    def step(params: Params, _: None) -> tuple[Params, None]:
        return descend(params, train(params, asked).gradient(weights), rate), None

    return lax.scan(step, params, None, length=count)[0]


def settled(grads: Params, new: BilevelState, old: BilevelState, present: Array) -> tuple[Params, BilevelState]:
    """Gradients and the new state; a void step where one of them is not finite, or nobody takes part."""
    whole = present.any() & trees.all_finite((grads, new))
    return trees.where(whole, grads), jax.tree.map(lambda a, b: jnp.where(whole, a, b), new, old)
