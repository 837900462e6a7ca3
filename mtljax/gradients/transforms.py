"""From losses and a method to gradients: `jax.value_and_grad` for many tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from mtljax.checks import check_alone, check_axis_name, check_callable, check_flag, check_method
from mtljax.engines.checks import with_aux
from mtljax.engines.cut import cut_heads, reduction
from mtljax.engines.full import jacobian
from mtljax.engines.linear import linearize
from mtljax.engines.types import Engine, check_engine
from mtljax.gradients.batches import batches_of
from mtljax.gradients.step import differentiate, varying
from mtljax.methods.observing import begun, ended, replaced
from mtljax.partition import Own, check_memory, parted
from mtljax.types import Array, Key, Method, Params, PyTree


def value_and_task_grads(
    losses_fn: Callable[..., Any],
    *,
    has_aux: bool = False,
    axis_name: str | tuple[str, ...] | None = None,
    names: Sequence[str] | None = None,
) -> Callable[..., Any]:
    """Losses, and every task's own gradient.

    `grads.shared` holds the Jacobian, leaves `[T, *p]` with row k = dL_k / d shared, and `grads.tasks[k]` holds
    dL_k / d tasks[k]. One forward pass, one pass through the heads, T passes through the trunk. Of parameters that are
    one pytree, and not `Params`, every leaf has its Jacobian, `[T, *p]`, as `jax.jacrev` returns it.

    Args:
        losses_fn: `losses_fn(params, *args)` returning losses (dict of scalars by task, or array `[T]` in sorted order
            of names), or `(losses, aux)` with `has_aux`.
        has_aux: see `losses_fn`.
        axis_name: as in `value_and_grad`.
        names: likewise.

    Returns:
        `f(params, *args) -> (losses, grads)`, or `((losses, aux), grads)` with `has_aux`; losses as `losses_fn`
        returned them. Unlike `value_and_grad` it shows NaN as NaN.

    Raises:
        ValueError, TypeError: from f, at trace time, where losses and params disagree (see `engines`).

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> losses_fn = lambda params: {k: jnp.sum(params.shared * params.tasks[k]) for k in "ab"}
        >>> params = mtljax.Params(jnp.ones(2), {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0, 4.0])})
        >>> losses, grads = mtljax.value_and_task_grads(losses_fn)(params)
        >>> print(grads.shared)
        [[1. 2.]
         [3. 4.]]
        >>> print(grads.tasks["a"])
        [1. 1.]
    """
    check_callable("value_and_task_grads", "losses_fn", losses_fn)
    check_flag("value_and_task_grads", "has_aux", has_aux)

    def f(tree: PyTree, *args: Any) -> tuple[Any, PyTree]:
        own = None if isinstance(tree, Params) else {}
        part = parted("value_and_task_grads", losses_fn, tree, args, has_aux=has_aux, names=names, own=own)
        reduce = reduction(axis_name)
        params = varying(part.split(tree), axis_name)
        linear = linearize(part.losses_fn, params, args, has_aux)
        everyone = jnp.ones(linear.entries.num_tasks, bool)
        share = 1.0 if axis_name is None else 1.0 / lax.axis_size(axis_name)
        cut = cut_heads(linear, jnp.full(everyone.shape, share), params.shared, everyone, reduce=reduce)
        losses = linear.losses if axis_name is None else lax.pmean(linear.losses, axis_name)
        values = with_aux(part.restore(linear.restore(losses)), linear.aux, has_aux)
        # Values that are not finite are shown as they are.
        return values, part.join(Params(jacobian(cut._replace(active=everyone)), cut.reduce(cut.own)))

    return f


def value_and_grad(
    losses_fn: Callable[..., Any],
    method: Method,
    *,
    has_aux: bool = False,
    engine: Engine | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    names: Sequence[str] | None = None,
    own: Own | None = None,
) -> Callable[..., Any]:
    """Losses, and the gradient that a method makes of them: `jax.value_and_grad` for many tasks.

    Parameters are `Params`, or one pytree of any form, such as Flax's. Of one pytree a leaf that one loss alone reaches
    is that task's own and follows that loss, and a leaf that several losses reach is shared, as in `Params`; the
    gradient has the pytree's form.

    Args:
        losses_fn: as in `value_and_task_grads`.
        method: how tasks are reconciled, for example `mtljax.methods.upgrad()`.
        has_aux: whether `losses_fn` returns `(losses, aux)`.
        engine: how much Jacobian is built; None (default) for the cheapest exact engine the method allows
            (`engines.choose`; `engines.explain` tells which). A method that reads losses needs none, nor does one that
            reads one task's gradient per step.
        axis_name: mapped axis, or axes, of your own `jax.pmap` or `jax.shard_map` around f; None (default) without one.
            The name is required there: each device has a part of the batch, and without the name each device would
            decide by its own losses, so that parameters drift apart; this is an error. With the name, losses and
            gradients are means over the devices, the same on all devices. Give every device the same state and key.
            `()` where each device is to go its own way, with a seed of its own, say. `jax.vmap` needs no name.

        names: of parameters that are one pytree, the tasks in their order; None (default) for the names of the losses
            in sorted order.
        own: of parameters that are one pytree, which leaves are a task's own: `own(path) -> task or None` for paths
            such as "depth/kernel", or a dict by task of the path, or of several paths, at which its parameters begin.
            `{}` for none. None (default) reads it off the losses. What stands behind an array of several heads'
            outputs or of several losses, behind a loop or a branch, then counts as shared.

    Returns:
        `f(params, method_state, *args, key=None, active=None, **extra) -> (losses, grads, method_state)`, or
        `((losses, aux), grads, method_state)` with `has_aux`.
        `method_state` may be a pytree that holds the method's state, such as the state of an optax chain with
        `mtljax.carry` or a Flax `TrainState`; it then comes back as that.
        `key` is for stochastic methods. `active` is bool `[T]`: a task that is not active is as good as absent. Extra
        arrays `[T]` are for the methods that take them, such as `kpi` of `methods.dynamic_task_priority`.
        A method that reads more than one batch (`methods.auto_lambda`) takes as many tuples of arguments in place of
        `*args`; losses and aux are those of the first.
        A method with `observe` (`famo`) learns from the losses after the step: its state is then an `Unobserved`,
        of which `mtljax.observe(method, losses, state)` makes the one for the next step. Without that call the next
        step is an error.
        A task whose loss or gradient is not finite is inactive for that step; `losses` shows the former, a weight of 0
        both. Task-specific gradients are each task's own, times its weight where `method.weigh_tasks`, and zero for an
        inactive task.

    Raises:
        ValueError, TypeError: from f, at trace time, naming what disagrees.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> losses_fn = lambda params: {k: jnp.sum((params.shared - params.tasks[k]) ** 2) for k in "ab"}
        >>> params = mtljax.Params(jnp.zeros(2), {"a": jnp.array([1.0, 0.0]), "b": jnp.array([0.0, 1.0])})
        >>> method = mtljax.methods.mgda()
        >>> losses, grads, state = mtljax.value_and_grad(losses_fn, method)(params, method.init(2))
        >>> print(grads.shared, state.weights)
        [-1. -1.] [0.5 0.5]
    """
    check_callable("value_and_grad", "losses_fn", losses_fn)
    check_method("value_and_grad", "method", method)
    check_flag("value_and_grad", "has_aux", has_aux)
    check_engine("value_and_grad", engine)
    check_axis_name("value_and_grad", axis_name)
    given, axis_name = axis_name, axis_name or None

    def f(
        params: PyTree,
        method_state: PyTree,
        *args: Any,
        key: Key | None = None,
        active: Array | None = None,
        **extra: Array,
    ) -> tuple[Any, PyTree, PyTree]:
        check_alone("value_and_grad", given)
        batches = batches_of(method, args)
        part = parted("value_and_grad", losses_fn, params, batches[0], has_aux=has_aux, names=names, own=own)
        state = begun("value_and_grad", method, method_state)
        check_memory("value_and_grad", method, state, params, part)
        result = differentiate(
            part.losses_fn,
            method,
            part.split(params),
            state,
            batches,
            has_aux=has_aux,
            engine=engine,
            key=key,
            active=active,
            extra=extra,
            axis_name=axis_name,
        )
        values = with_aux(part.restore(result.restore(result.losses)), result.aux, has_aux)
        after = replaced(method_state, ended(method, result.method_state))
        return values, part.join(result.grads), after

    return f
