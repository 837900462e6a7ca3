"""Methods as links of an optax chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtljax import trees
from mtljax.checks import check_count
from mtljax.methods.apply import reconcile
from mtljax.methods.common import check_active
from mtljax.types import Array, Key, Method, MethodState, Params, PyTree


def as_optax(method: Method, num_tasks: int) -> optax.GradientTransformationExtraArgs:
    """A method as the first link of an `optax.chain`: it takes the task axis off the updates.

        chain = optax.chain(as_optax(method, T), optax.adam(1e-3))
        chain.update(stacked gradients, state, params, losses=losses)

    The updates are what `value_and_task_grads` returns: `Params` whose `shared` leaves are `[T, *p]` and whose
    `tasks[k]` is task k's own gradient; or any pytree with leaves `[T, *p]`. What comes out has the shapes of the
    parameters. Task-specific gradients pass through, multiplied by the task's weight where the method is the gradient
    of a scalarisation (`method.weigh_tasks`). A task that is not active, or whose loss is given and not finite, is as
    good as absent: its gradients may hold anything and its own come out zero.

    How it composes:

    - `optax.chain` hands `losses`, `active` and `key` on to links of type `GradientTransformationExtraArgs` alone,
      which this one is. Packed again as `optax.GradientTransformation(link.init, link.update)` it never sees them.
    - A method with `observe` is told of the losses after the step by its caller:
      `state = (method.observe(losses_after, state[0]), *state[1:])`.
    - `optax.MultiSteps` goes after this link,
      `optax.chain(as_optax(...), optax.MultiSteps(...).gradient_transformation())`, and averages the updates of the
      micro-batches: a nonlinear method then decides on each of them alone, where `make_train_step(accumulate=...)`
      decides once. Around this link it would keep an accumulator without the task axis, and fails.
    - `optax.partition` takes `Params("shared", "tasks")` as its labels: after this link, or with this link as the
      first of the chain for "shared". In the second case it does not see the task-specific gradients, and leaves
      them unweighted.

    Args:
        method: any method.
        num_tasks: T, the length of the task axis.

    Returns:
        Transformation with state `MethodState`. Its `init(params)` takes the parameters without task axis (arrays or
        shapes); its `update(updates, state, params=None, *, losses=None, active=None, key=None)` takes the losses as
        `[T]` or as a dict of scalars by task, `active` bool `[T]`, and a PRNG key for stochastic methods. Unknown
        keyword arguments are ignored.

    Raises:
        TypeError: `num_tasks` is not an integer.
        ValueError: `num_tasks` is below 1; updates without a leading axis of T; losses missing where the method reads
            them, or of the wrong shape; task-specific gradients of another number of tasks.

    Example:
        >>> import mtljax
        >>> params = {"w": jnp.zeros(2)}
        >>> chain = optax.chain(as_optax(mtljax.methods.mgda(), 2), optax.sgd(1.0))
        >>> state = chain.init(params)
        >>> updates, state = chain.update({"w": jnp.array([[2.0, 0.0], [0.0, 2.0]])}, state, params)
        >>> updates["w"]
        Array([-1., -1.], dtype=float32)
    """
    check_count("as_optax", "num_tasks", num_tasks)

    def init(params: PyTree) -> MethodState:
        return method.init(num_tasks, params.shared if isinstance(params, Params) else params)

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        losses: Array | Mapping[str, Array] | None = None,
        active: Array | None = None,
        key: Key | None = None,
        **extra: Any,
    ) -> tuple[PyTree, Any]:
        del params, extra
        rows = updates.shared if isinstance(updates, Params) else updates
        _check_rows(rows, "updates.shared" if isinstance(updates, Params) else "updates", num_tasks)
        check_active(method.name, active, num_tasks)
        if losses is not None:
            losses = _vector(losses, num_tasks)
            finite = jnp.isfinite(losses)
            active = finite if active is None else active & finite
            losses = jnp.where(active, losses, 0.0)
        if active is not None:
            rows = jax.tree.map(lambda row: trees.where(active.reshape(-1, *[1] * (row.ndim - 1)), row), rows)
        merged, state, _ = reconcile(method, state, rows, losses=losses, active=active, key=key)
        if not isinstance(updates, Params):
            return merged, state
        return Params(shared=merged, tasks=_own(method, updates.tasks, state.weights, active)), state

    return optax.GradientTransformationExtraArgs(init, update)


def _check_rows(rows: PyTree, where: str, num_tasks: int) -> None:
    for path, leaf in jax.tree_util.tree_flatten_with_path(rows)[0]:
        if jnp.shape(leaf)[:1] != (num_tasks,):
            raise ValueError(
                f"as_optax: {where}{jax.tree_util.keystr(path)} has shape {jnp.shape(leaf)}, expected a leading task "
                f"axis of {num_tasks}"
            )


def _vector(losses: Array | Mapping[str, Array], num_tasks: int) -> Array:
    """Losses `[T]` in task order."""
    vector = jnp.stack([losses[name] for name in sorted(losses)]) if isinstance(losses, Mapping) else losses
    if jnp.shape(vector) != (num_tasks,):
        raise ValueError(f"as_optax: losses has shape {jnp.shape(vector)}, expected ({num_tasks},)")
    return vector


def _own(method: Method, tasks: Mapping[str, PyTree], weights: Array, active: Array | None) -> Mapping[str, PyTree]:
    """Task-specific gradients: weighted where the method asks for it, zero where the task is not active."""
    if not jax.tree.leaves(tasks):  # nothing task-specific, or masked by `optax.partition`
        return tasks
    if len(tasks) != weights.shape[0]:
        raise ValueError(f"as_optax: updates.tasks has {sorted(tasks)}, expected {weights.shape[0]} tasks")
    own = dict(tasks)
    for k, name in enumerate(sorted(own)):
        if method.weigh_tasks:
            own[name] = trees.scale(weights[k], own[name])
        if active is not None:
            own[name] = trees.where(active[k], own[name])
    return own
