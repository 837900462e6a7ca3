"""Methods as links of an optax chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtljax import participation, trees
from mtljax.checks import check_count, expect
from mtljax.methods.apply import begun, check_reads_evidence, ended, reconcile
from mtljax.methods.common import check_active, in_order
from mtljax.types import Array, Key, Method, MethodState, Params, PyTree, Unobserved


class OptaxState(NamedTuple):
    """The state of `as_optax`, and what it has seen at its last step.

    Attributes:
        method: the method's state; `Unobserved` where it waits for `mtljax.observe`.
        cosines: float32 `[T, T]`, between every two task gradients; 0 where one is zero or not active. None, like the
            next two, for a method that does not read the Gramian.
        grad_norms: float32 `[T]`, the length of each task's gradient.
        conflicts: int32 `[]`, the number of pairs of tasks whose cosine is negative.
    """

    method: MethodState | Unobserved
    cosines: Array | None
    grad_norms: Array | None
    conflicts: Array | None


def as_optax(method: Method, num_tasks: int) -> optax.GradientTransformationExtraArgs:
    """A method as the first link of an `optax.chain`: it takes the task axis off the updates.

        chain = optax.chain(as_optax(method, T), optax.adam(1e-3))
        chain.update(stacked gradients, state, params, losses=losses)

    The updates are what `value_and_task_grads` returns: `Params` whose `shared` leaves are `[T, *p]` and whose
    `tasks[k]` is task k's own gradient; or any pytree with leaves `[T, *p]`. What comes out has the shapes of the
    parameters. Task-specific gradients pass through, multiplied by the task's weight where the method is the gradient
    of a scalarisation (`method.weigh_tasks`). A task that is not active, or whose loss is given and not finite, is as
    good as absent, and so is one whose gradients are not finite: they may hold anything and its own come out zero.

    How it composes:

    - `optax.chain` hands `losses`, `active` and `key` on to links of type `GradientTransformationExtraArgs` alone,
      which this one is. Packed again as `optax.GradientTransformation(link.init, link.update)` it never sees them.
    - A method with `observe` (`famo`) learns from the losses after the step, of which its caller tells it:
      `state = mtljax.observe(method, losses, state)`, with the state of the whole chain. Without that call the next
      update is an error.
    - `optax.MultiSteps` goes after this link,
      `optax.chain(as_optax(...), optax.MultiSteps(...).gradient_transformation())`, and averages the updates of the
      micro-batches: a nonlinear method decides on each of them alone. Around this link it would keep an accumulator
      without the task axis, and fails.
    - `optax.partition` takes `Params("shared", "tasks")` as its labels: after this link, or with this link as the
      first of the chain for "shared". In the second case it does not see the task-specific gradients, and leaves
      them unweighted.

    Args:
        method: any method.
        num_tasks: T, the length of the task axis.

    Returns:
        Transformation with state `OptaxState`. Its `init(params)` takes the parameters without task axis (arrays or
        shapes); its `update(updates, state, params=None, *, losses=None, active=None, key=None, **extra)` takes the
        losses as `[T]` or as a dict of scalars by task (`task_losses` is another name of them), `active` bool `[T]`,
        and a PRNG key for stochastic methods. Other keyword arguments go to the method, which ignores those that it
        does not know: `kpi` of `methods.dynamic_task_priority`, `scores` of `methods.pivrg`.

    Raises:
        TypeError: `num_tasks` is not an integer.
        ValueError: `num_tasks` is below 1; updates without a leading axis of T; losses missing where the method reads
            them, of the wrong shape, of other tasks than the updates', or given under both names; task-specific
            gradients of another number of tasks; a method that was not told the losses after its last step.

    Example:
        >>> import mtljax
        >>> params = {"w": jnp.zeros(2)}
        >>> chain = optax.chain(as_optax(mtljax.methods.mgda(), 2), optax.sgd(1.0))
        >>> state = chain.init(params)
        >>> updates, state = chain.update({"w": jnp.array([[2.0, 0.0], [0.0, 2.0]])}, state, params)
        >>> updates["w"]
        Array([-1., -1.], dtype=float32)
    """
    check_reads_evidence("as_optax", method)
    check_count("as_optax", "num_tasks", num_tasks)

    def init(params: PyTree) -> Any:
        state = method.init(num_tasks, params.shared if isinstance(params, Params) else params)
        if method.reads != "gramian":
            return OptaxState(state, None, None, None)
        return OptaxState(state, *_seen(jnp.zeros((num_tasks, num_tasks), jnp.float32)))

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        losses: Array | Mapping[str, Array] | None = None,
        task_losses: Array | Mapping[str, Array] | None = None,
        active: Array | None = None,
        key: Key | None = None,
        **extra: Any,
    ) -> tuple[PyTree, Any]:
        del params
        if losses is not None and task_losses is not None:
            raise ValueError("as_optax: losses must be given once, found both losses= and task_losses=")
        losses = task_losses if losses is None else losses
        expect(isinstance(state, OptaxState), "as_optax", "state", "an OptaxState, as init makes it", state, TypeError)
        before = begun("as_optax", method, state.method)
        rows = updates.shared if isinstance(updates, Params) else updates
        _check_rows(rows, "updates.shared" if isinstance(updates, Params) else "updates", num_tasks)
        check_active(method.name, active, num_tasks)
        own = updates.tasks if isinstance(updates, Params) else {}
        present = participation.sound_rows(rows, num_tasks, squared=True) & _sound(own, num_tasks)
        present = present if active is None else active & present
        if losses is not None:
            who = participation.present(
                _vector(losses, num_tasks, sorted(own) if isinstance(own, Mapping) else []),
                active=present,
                method=method,
                squared=True,
            )
            losses, present = who.clean, who.active
        rows = participation.rows_of(present, rows)
        merged, after, gram = reconcile(method, before, rows, losses=losses, active=present, key=key, **extra)
        merged = participation.guarded(merged, present.any(), squared=True)
        after = participation.unless_void(after, before, present)
        state = OptaxState(ended(method, after), *((None,) * 3 if gram is None else _seen(gram)))
        if not isinstance(updates, Params):
            return merged, state
        weights = after.weights if method.weigh_tasks else None
        if jax.tree.leaves(own):  # there may be nothing task-specific, or it may be masked by `optax.partition`
            own = participation.own_gradients(dict(own), present, weights, squared=True)
        return Params(shared=merged, tasks=own), state

    return optax.GradientTransformationExtraArgs(init, update)


def _seen(gramian: Array) -> tuple[Array, Array, Array]:
    """Cosines, norms, and how many pairs are in conflict."""
    cosines = trees.cosines(gramian)
    return cosines, trees.norms(gramian), jnp.sum(jnp.triu(cosines, 1) < 0).astype(jnp.int32)


def _check_rows(rows: PyTree, where: str, num_tasks: int) -> None:
    for path, leaf in jax.tree_util.tree_flatten_with_path(rows)[0]:
        if jnp.shape(leaf)[:1] != (num_tasks,):
            raise ValueError(
                f"as_optax: {where}{jax.tree_util.keystr(path)} must have a leading task axis of {num_tasks}, found "
                f"shape {jnp.shape(leaf)}"
            )


def _vector(losses: Array | Mapping[str, Array], num_tasks: int, names: list[str]) -> Array:
    """Losses `[T]` in task order; names are the tasks of the updates, where they are known."""
    if isinstance(losses, Mapping) and names and sorted(losses) != names:
        raise ValueError(f"as_optax: losses must be of tasks {names}, as updates.tasks, found {sorted(losses)}")
    vector = in_order(losses)
    if jnp.shape(vector) != (num_tasks,):
        raise ValueError(f"as_optax: losses must be of shape ({num_tasks},), found shape {jnp.shape(vector)}")
    return vector


def _sound(tasks: Mapping[str, PyTree], num_tasks: int) -> Array:
    """Whether each task's own gradients are finite, bool `[T]`."""
    if not jax.tree.leaves(tasks):
        return jnp.ones((num_tasks,), bool)
    if len(tasks) != num_tasks:
        raise ValueError(f"as_optax: updates.tasks must be of {num_tasks} tasks, found {sorted(tasks)}")
    return participation.sound([tasks[name] for name in sorted(tasks)], squared=True)
