"""The objective for optimizers that need its value, its gradient or the function besides the update."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtljax.banks import rows_scaled
from mtljax.gradients.result import Gradients
from mtljax.gradients.step import differentiate
from mtljax.methods.common import initial_state
from mtljax.partition import Parted
from mtljax.training.penalized import Penalized
from mtljax.types import Array, Method, Params, PyTree


def update_with(
    optimizer: optax.GradientTransformation, updates: PyTree, state: Any, params: PyTree, offered: dict[str, Any]
) -> tuple[PyTree, Any]:
    """`optimizer.update`, with those of the offered keyword arguments that its signature accepts.

    Example:
        >>> update_with(optax.sgd(1.0), jnp.ones(()), optax.sgd(1.0).init(()), None, {"value": 2.0})[0].tolist()
        -1.0
    """
    takes = inspect.signature(optimizer.update).parameters
    every = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in takes.values())
    return optimizer.update(
        updates, state, params, **{name: each for name, each in offered.items() if every or name in takes}
    )


def with_slope(grads: Params, slope: Params) -> Params:
    """The sum of gradients and of a penalty's gradient, in the dtypes of the gradients."""
    return jax.tree.map(lambda g, s: g + s.astype(g.dtype), grads, slope)


def objective(
    part: Parted,
    method: Method,
    found: Gradients,
    args: tuple[Any, ...],
    penalty: Penalized | None,
    axis_name: str | tuple[str, ...] | None,
) -> dict[str, Any]:
    """The objective with this step's weights: `sum_k w_k L_k + penalty` over the tasks that take part.

    Args:
        part: the parameters by task; its `losses_fn` is `(params, *args) -> (losses, Aux)`.
        method: the method of the step.
        found: this step's gradients, with the method's weights.
        args: further arguments of `part.losses_fn`.
        penalty: the penalty at the parameters, or None.
        axis_name: as for `differentiate`.

    Returns:
        Dict with `value` `[]`, averaged over devices; `grad`, its gradient; `value_fn` and `obj_fn`, the objective as a
        function of the parameters, whose gradient is over all devices. Parameters and gradients are in the form that
        the caller gave.
    """
    weights = jnp.where(found.active, found.method_state.weights, 0.0)
    names = sorted(found.grads.tasks)

    def total(losses: Array) -> Array:
        return jnp.sum(jnp.where(found.active, weights * losses, 0.0))

    def constant(evidence: Array, state: Any, **rest: Any) -> tuple[Array, Any]:
        return weights, state

    fixed = Method("losses", lambda num_tasks, shared=None: initial_state(num_tasks), constant, weigh_tasks=True)

    def both(params: Params) -> tuple[Array, Params]:
        # As in the step, a task that is not finite does not affect the others, and devices agree.
        at = differentiate(
            part.losses_fn,
            fixed,
            params,
            initial_state(found.entries.num_tasks),
            (args,),
            has_aux=True,
            active=found.active,
            axis_name=axis_name,
        )
        if penalty is None:
            return total(at.losses), at.grads
        value, slope = jax.value_and_grad(penalty.function)(params)
        return total(at.losses) + value, with_slope(at.grads, slope)

    @jax.custom_vjp
    def function(params: Params) -> Array:
        return both(params)[0]

    function.defvjp(both, lambda grads, c: (jax.tree.map(lambda g: jnp.asarray(c, g.dtype) * g, grads),))

    def value_fn(params: PyTree, *, obj_fn: Any = None) -> Array:
        del obj_fn  # a named argument, since line searches pass it
        return function(part.split(params))

    value, own = total(found.losses), found.grads.tasks
    if not method.weigh_tasks:
        parts = zip(names, found.entries.parts(weights), strict=True)
        own = {name: rows_scaled(part, own[name]) for name, part in parts}
    grad = Params(found.grads.shared, own)
    if penalty is not None:
        known = jnp.where(jnp.isfinite(penalty.value), penalty.value, 0.0)
        value, grad = value + known, with_slope(grad, penalty.slope)
    return {"value": value, "grad": part.join(grad), "value_fn": value_fn, "obj_fn": value_fn}
