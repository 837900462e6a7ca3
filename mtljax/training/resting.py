"""Parameters of a task that is absent from a step rest: neither they nor what the optimizer keeps for them move."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtljax import trees
from mtljax.checks import check_mask, check_optimizer, expect
from mtljax.penalties import ProximalState
from mtljax.training.objective_value import update_with
from mtljax.types import Array, Params, PyTree

Moves = Callable[[tuple[Any, ...]], Array | None]
"""`moves(path) -> bool []`, whether a leaf at that path moves; None where the leaf is not of a task."""


class ByTaskState(NamedTuple):
    """The state of `by_task`.

    Attributes:
        shared: the optimizer's state for the shared parameters.
        tasks: dict by task name of its states for theirs.
    """

    shared: Any
    tasks: dict[str, Any]


def by_task(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """An optimizer with a state of its own for the shared parameters and for each task: counts, moments and norms.

    A task that is absent from a step rests exactly: it goes on later as if that step had not been. In
    `make_train_step` any optimizer leaves an absent task's parameters alone, and holds its moments; but a count that
    all parameters have in common goes on, so that Adam's correction of its bias and a schedule take the task for older
    than it is. That is what a learning rate which falls over the run wants. Take `by_task` for tasks that are absent
    for long from their first steps on, and where an optimizer reads norms or a trust ratio over all of its parameters.

    Args:
        optimizer: over the shared parameters, and over each task's own. Of a global norm, each sees its own part.

    Returns:
        Transformation of `Params`, with state `ByTaskState`. Its `update(updates, state, params=None, *, active=None)`
        takes bool `[T]` in sorted order of names: the update of a task that is not active is zero, and its state is
        held. `make_train_step` needs no `active`: it holds what is absent by itself. `value` goes to each part as it
        is, `grad` and `value_fn` as functions of that part; other keyword arguments are handed on.

    Raises:
        TypeError: not an optimizer; from `init` and `update`, what is not `Params`.
        ValueError: from `update`, a mask that is not `[T]`.

    Example:
        >>> params = Params(jnp.zeros(1), {"a": jnp.zeros(1), "b": jnp.zeros(1)})
        >>> optimizer = by_task(optax.adam(0.1))
        >>> grads = jax.tree.map(jnp.ones_like, params)
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params, active=jnp.array([True, False]))
        >>> updates.tasks["b"].tolist(), int(state.tasks["a"][0].count), int(state.tasks["b"][0].count)
        ([0.0], 1, 0)
    """
    check_optimizer("by_task", "optimizer", optimizer)

    def init(params: PyTree) -> ByTaskState:
        _check_params("params", params)
        return ByTaskState(optimizer.init(params.shared), {k: optimizer.init(own) for k, own in params.tasks.items()})

    def update(
        updates: PyTree, state: Any, params: PyTree = None, *, active: Array | None = None, **extra: Any
    ) -> tuple[PyTree, ByTaskState]:
        _check_params("updates", updates)
        if active is not None:
            check_mask("by_task", "active", active, (len(updates.tasks),))

        def part(task: str | None) -> tuple[PyTree, Any]:
            given = dict(extra)
            if "grad" in given:
                given["grad"] = _of(task, given["grad"])
            for name in ("value_fn", "obj_fn"):
                if name in given:
                    given[name] = lambda own, f=given[name], obj_fn=None: f(_with(task, own, params))
            own = None if params is None else _of(task, params)
            return update_with(optimizer, _of(task, updates), _of(task, state), own, given)

        shared, shared_state = part(None)
        tasks, states = {}, {}
        for k, name in enumerate(sorted(updates.tasks)):
            own, new = part(name)
            if active is not None:
                own = trees.where(active[k], own)
                new = jax.tree.map(lambda a, b, k=k: jnp.where(active[k], a, b), new, state.tasks[name])
            tasks[name], states[name] = own, new
        return Params(shared, tasks), ByTaskState(shared_state, states)

    return optax.GradientTransformationExtraArgs(init, update)


def moving(params: Params, active: Array, reach: Params | None) -> Moves:
    """Which leaves of task parameters move at a step: those of active tasks, and those that a penalty reaches.

    A penalty is part of the objective at every step. A copy that it ties goes on to follow the others while its task is
    absent; a head that it leaves alone rests.

    Args:
        params: the parameters.
        active: bool `[T]`.
        reach: like the parameters, a scalar for each leaf, not 0 where the penalty has a gradient; None for no
            penalty.
    """
    by_task: dict[str, list[tuple[tuple[Any, ...], Array]]] = {}
    for k, name in enumerate(sorted(params.tasks)):
        leaves = jax.tree_util.tree_flatten_with_path(params.tasks[name])[0]
        pulled = [None] * len(leaves) if reach is None else jax.tree.leaves(reach.tasks[name])
        flags = [active[k] if s is None else active[k] | (s != 0) for s in pulled]
        own = sorted(zip([path for path, _ in leaves], flags, strict=True), key=lambda each: -len(each[0]))
        # Last, for what an optimizer keeps for the task as a whole.
        by_task[name] = [*own, ((), functools.reduce(jnp.logical_or, flags, active[k]))]

    def moves(path: tuple[Any, ...]) -> Array | None:
        for start, (part, name) in enumerate(itertools.pairwise(path)):
            if getattr(part, "name", None) == "tasks" and getattr(name, "key", None) in by_task:
                rest = path[start + 2 :]
                # An optimizer keeps its leaves under the parameter's path, with names of its own before that.
                return next(flag for own, flag in by_task[name.key] if rest[len(rest) - len(own) :] == own)
        return None

    return moves


def can_hold(opt_state: PyTree) -> bool:
    """Whether what is absent may be held from outside: not where an optimizer gathers gradients over several steps.

    It would then lose what it has gathered for a task that is absent from the step which spends it.
    """
    gathers = (optax.MultiStepsState, optax.ApplyEvery)
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, (ByTaskState, *gathers)))
    return not any(isinstance(leaf, gathers) for leaf in leaves)


def has_prox(opt_state: PyTree) -> bool:
    """Whether a link of the optimizer is `penalties.proximal`, which moves what it ties, as a penalty's slope does."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, ProximalState))
    return any(isinstance(leaf, ProximalState) for leaf in leaves)


def scalars_held(sound: Array, new: PyTree, old: PyTree) -> PyTree:
    """The new state; where no task takes part in the step (`sound` is False), floating-point scalars are the old ones.

    The objective is a sum over no tasks then. Its 0 must not become the best value that a plateau is measured by.
    """
    before = dict(jax.tree_util.tree_flatten_with_path(old)[0])

    def leaf(path: tuple[Any, ...], a: Any) -> Any:
        number = jnp.shape(a) == () and jnp.issubdtype(jnp.result_type(a), jnp.floating)
        return jnp.where(sound, a, before[path]) if number and path in before else a

    return jax.tree_util.tree_map_with_path(leaf, new)


def held(moves: Moves, new: PyTree, old: PyTree | None = None) -> PyTree:
    """The new tree, where what does not move is as it was, or 0 without an old one."""
    # By path, since there are optimizers whose state grows at their first step.
    before = None if old is None else dict(jax.tree_util.tree_flatten_with_path(old)[0])

    def leaf(path: tuple[Any, ...], a: Any) -> Any:
        flag = moves(path)
        if flag is None or (before is not None and path not in before):
            return a
        return jnp.where(flag, a, jnp.zeros_like(a) if before is None else before[path])

    return jax.tree_util.tree_map_with_path(leaf, new)


def _check_params(what: str, value: Any) -> None:
    expect(isinstance(value, Params), "by_task", what, "mtljax.Params(shared, tasks)", value, TypeError)


def _of(task: str | None, tree: Any) -> PyTree:
    return tree.shared if task is None else tree.tasks[task]


def _with(task: str | None, own: PyTree, params: Any) -> Params:
    return params._replace(shared=own) if task is None else params._replace(tasks={**params.tasks, task: own})
