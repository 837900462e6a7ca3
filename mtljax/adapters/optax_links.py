"""Methods as links of an optax chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtljax import participation, trees
from mtljax.banks import in_order
from mtljax.checks import check_method_of_evidence, check_names, expect
from mtljax.engines.checks import by_entry
from mtljax.methods.apply import reconcile
from mtljax.methods.common import check_active
from mtljax.methods.observing import begun, ended
from mtljax.partition import Own, join, keys_of, layout_of, shared_of, split
from mtljax.types import Array, Key, Method, MethodState, Params, PyTree, Unobserved


class OptaxState(NamedTuple):
    """The state of `as_optax`, with figures of its last step.

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


def as_optax(
    method: Method, *, names: Sequence[str] | None = None, own: Own | None = None
) -> optax.GradientTransformationExtraArgs:
    """A method as the first link of an `optax.chain`: it takes the task axis off the updates.

        chain = optax.chain(as_optax(method, names=names), optax.adam(1e-3))
        chain.update(stacked gradients, state, params, losses=losses)

    The updates are what `value_and_task_grads` returns: `Params` whose `shared` leaves are `[T, *p]` and whose
    `tasks[k]` is task k's own gradient; or any pytree with leaves `[T, *p]`. What comes out has the shapes of the
    parameters. Where gradients of each task are not at hand, `mtljax.value_and_grad` with the link `mtljax.carry`
    computes no more of them than the method reads.

    Task-specific gradients pass through, multiplied by the task's weight where the method is the gradient of a
    scalarisation (`method.weigh_tasks`). A task that is not active, or whose loss is given and not finite, is as good
    as absent, and so is one whose gradients are not finite: they may hold anything and its own come out zero.

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
        names: the T tasks, in the order of the task axis. Wanted where parameters are one pytree; `Params` with tasks
            have them already, in sorted order, and take None (default).
        own: which leaves of one pytree are a task's own, as for `mtljax.value_and_grad`: of those, row k alone is used,
            as `tasks[k]` is. None (default) for none: the method reads all leaves.

    Returns:
        Transformation with state `OptaxState`. Its `init(params)` takes the parameters without task axis (arrays or
        shapes); its `update(updates, state, params=None, *, losses=None, active=None, key=None, **extra)` takes the
        losses as `[T]` or as a dict of scalars by task (`task_losses` is another name of them), `active` bool `[T]`,
        and a PRNG key for stochastic methods. Other keyword arguments go to the method, which ignores those that it
        does not know: `kpi` of `methods.dynamic_task_priority`, `scores` of `methods.pivrg`.

    Raises:
        TypeError: `names` are not strings, `own` is of another type.
        ValueError: no names where parameters are one pytree, or other names than those of `Params`; `own` that does not
            fit; updates without a leading axis of T; losses missing where the method reads them, of the wrong shape, of
            other tasks than the updates', or given under both names; task-specific gradients of another number of
            tasks; a method that was not told the losses after its last step.

    Example:
        >>> import mtljax
        >>> params = {"w": jnp.zeros(2)}
        >>> chain = optax.chain(as_optax(mtljax.methods.mgda(), names=["a", "b"]), optax.sgd(1.0))
        >>> state = chain.init(params)
        >>> updates, state = chain.update({"w": jnp.array([[2.0, 0.0], [0.0, 2.0]])}, state, params)
        >>> updates["w"]
        Array([-1., -1.], dtype=float32)
    """
    check_method_of_evidence("as_optax", "method", method)
    given = None if names is None else check_names("as_optax", "names", names)

    def init(params: PyTree) -> Any:
        if isinstance(params, Params) and params.tasks:
            tasks, shared = params.tasks, params.shared
            expect(own is None, "as_optax", "own", "None where parameters are mtljax.Params", own, ValueError)
        else:
            tasks, shared = None, shared_of("as_optax", own, params)
        state = method.init(len(_tasks(tasks, given)), shared)
        if method.reads != "gramian":
            return OptaxState(state, None, None, None)
        return OptaxState(state, *_seen(jnp.zeros(2 * state.weights.shape, jnp.float32)))

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
        num_tasks = before.weights.shape[0]
        plain = not isinstance(updates, Params) or not updates.tasks
        tasks = _tasks(None if plain else updates.tasks, given)
        told = f"of {num_tasks} tasks"
        expect(len(tasks) == num_tasks, "as_optax", "updates.tasks", told, tasks, ValueError)
        rows = updates if plain else updates.shared
        _check_rows(rows, "updates" if plain else "updates.shared", num_tasks)
        check_active(method.name, active, num_tasks)
        mine, layout = {} if plain else updates.tasks, None
        if own:
            layout = layout_of("as_optax", own, rows, tasks)
            rows, mine = split(layout, rows)
            mine = {key: jax.tree.map(lambda leaf, k=k: leaf[k], mine[key]) for k, key in enumerate(keys_of(tasks))}
        present = participation.sound_rows(rows, num_tasks, squared=True) & _sound(mine, num_tasks)
        present = present if active is None else active & present
        if losses is not None:
            who = participation.present(_vector(losses, tasks), active=present, method=method, squared=True)
            losses, present = who.clean, who.active
        rows = participation.rows_of(present, rows)
        merged, after, gram = reconcile(method, before, rows, losses=losses, active=present, key=key, **extra)
        merged = participation.guarded(merged, present.any(), squared=True)
        after = participation.unless_void(after, before, present)
        state = OptaxState(ended(method, after), *((None,) * 3 if gram is None else _seen(gram)))
        weights = after.weights if method.weigh_tasks else None
        if jax.tree.leaves(mine):  # there may be nothing task-specific, or it may be masked by `optax.partition`
            mine = participation.own_gradients(dict(mine), present, weights, squared=True)
        if layout is not None:
            return join(layout, Params(merged, mine)), state
        return merged if plain else Params(merged, mine), state

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
                f"shape {jnp.shape(leaf)}; gradients of mtljax.value_and_grad have none, and go with mtljax.carry"
            )


def _tasks(own: Any, given: list[str] | None) -> list[str]:
    """The tasks in order: those of `Params`, or those that the caller names."""
    if given is None:
        told = "given where parameters are not mtljax.Params with a dict of tasks"
        expect(isinstance(own, Mapping) and bool(own), "as_optax", "names", told, given, ValueError)
        return sorted(own)
    if isinstance(own, Mapping):
        expect(given == sorted(own), "as_optax", "names", f"those of params.tasks, {sorted(own)}", given, ValueError)
    return given


def _vector(losses: Array | Mapping[str, Array], tasks: list[str]) -> Array:
    """Losses `[T]` in task order."""
    by_entry(losses, tasks, banks=False, where="as_optax")
    return in_order(losses, tasks)


def _sound(tasks: Mapping[str, PyTree], num_tasks: int) -> Array:
    """Whether each task's own gradients are finite, bool `[T]`."""
    if not jax.tree.leaves(tasks):
        return jnp.ones((num_tasks,), bool)
    return participation.sound([tasks[name] for name in sorted(tasks)], squared=True)
