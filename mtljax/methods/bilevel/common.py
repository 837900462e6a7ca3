"""What bilevel methods share: their type, their state, losses as a vector, inner steps, combinations of losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.checks import expect
from mtljax.engines.checks import as_scalars, split_aux
from mtljax.methods.common import check_active
from mtljax.types import Array, Params, PyTree


class Bilevel(NamedTuple):
    """A bilevel method as a pair of pure functions: weights of training losses, learned from validation losses.

    Attributes:
        init: `init(num_tasks) -> BilevelState`.
        update: `update(params, state, train_args, val_args, *, key=None, active=None, **extra) ->
            ((losses, aux), grads: Params, state)`. `losses_fn(params, *train_args)` is the training batch,
            `losses_fn(params, *val_args)` the validation batch. `losses` and `aux` are the training batch's; `grads`
            go into an optimiser as those of `mtljax.value_and_grad` do, and heads follow the weights, as for every
            weighted sum of losses. `active` is bool `[T]`: a task that is not active is as good as absent; its loss
            must be differentiable all the same (a missing label masked inside the loss). Where a loss or a gradient of
            any task is not finite the step is void: gradients of zero and the state as it was. `key` is not used.
        name: the method's public name.
    """

    init: Callable[[int], BilevelState]
    update: Callable[..., tuple[tuple[Any, Any], Params, BilevelState]]
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


class Point(NamedTuple):
    """Losses at a point.

    Attributes:
        vector: `[T]`, in their own precision.
        losses: as the loss function returned them.
        aux: what it returned beside them.
    """

    vector: Array
    losses: Any
    aux: Any


def check_params(name: str, params: Any, num_tasks: int, active: Array | None) -> None:
    """Raises where parameters, state and mask do not go together."""
    expect(isinstance(params, Params), name, "params", "mtljax.Params(shared, tasks)", params, TypeError)
    if len(params.tasks) != num_tasks:
        raise ValueError(f"{name} was initialised for {num_tasks} tasks but params.tasks has {sorted(params.tasks)}")
    check_active(name, active, num_tasks)


def vector_of(name: str, losses_fn: Callable[..., Any], args: Any, has_aux: bool) -> Callable[[Params], Any]:
    """`params -> (losses [T], Point)`, for `jax.vjp(..., has_aux=True)`; raises where losses are of another form."""
    if not isinstance(args, tuple):
        raise TypeError(f"{name}: train_args and val_args must be tuples, found {type(args).__name__}")

    def f(params: Params) -> tuple[Array, Point]:
        out = losses_fn(params, *args)
        losses, aux = split_aux(out, has_aux)
        names = sorted(params.tasks)
        vector = jnp.stack(as_scalars(losses, names))
        return vector, Point(vector, losses, aux)

    return f


def combine(weights: Array, vector: Array) -> Array:
    """`sum_k w_k L_k`; a loss of weight 0 may be NaN."""
    weights = weights.astype(vector.dtype)
    return jnp.sum(jnp.where(weights == 0, 0.0, weights * vector))


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
    losses: Callable[[Params], tuple[Array, Point]], params: Params, weights: Array, rate: Array | float, count: int
) -> Params:
    """Where `count` steps of gradient descent on `sum_k w_k L_k` lead.

    Differentiable by `weights`; in forward mode the memory that this takes does not grow with `count`.
    """

    def step(params: Params, _: None) -> tuple[Params, None]:
        gradient = jax.grad(lambda params: combine(weights, losses(params)[0]))(params)
        return descend(params, gradient, rate), None

    return lax.scan(step, params, None, length=count)[0]


def settled(grads: Params, new: BilevelState, old: BilevelState, active: Array) -> tuple[Params, BilevelState]:
    """Gradients with nothing for heads of inactive tasks, and the new state; a void step where either is not finite.

    Weighted sums of losses are differentiated as one, so that a NaN of one task has met the others.
    """
    names = sorted(grads.tasks)
    own = {name: trees.where(active[k], grads.tasks[name]) for k, name in enumerate(names)}
    sound = trees.all_finite((grads.shared, own, new))
    found = trees.where(sound, Params(grads.shared, own))
    return found, jax.tree.map(lambda a, b: jnp.where(sound, a, b), new, old)
