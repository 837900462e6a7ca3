"""Absent tasks in the optimizer: a step does not change the parameters and the optimizer state of an inactive task."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import DictKey, GetAttrKey, SequenceKey

from mtljax import trees
from mtljax.banks import Entries
from mtljax.checks import check_mask, check_optimizer, expect
from mtljax.participation import rows_of
from mtljax.partition import Layout, keys_of
from mtljax.penalties import ProximalState
from mtljax.training.objective_value import update_with
from mtljax.types import Array, Params, PyTree

Moves = Callable[[tuple[Any, ...]], Array | None]
"""`moves(path) -> bool []`, whether the leaf at that path may change, or `[n]` which rows of a bank's leaf may; None if
the leaf does not belong to a task."""


class ByTaskState(NamedTuple):
    """The state of `by_task`.

    Attributes:
        shared: the optimizer's state for the shared parameters.
        tasks: dict by task name of the optimizer's states for task parameters.
    """

    shared: Any
    tasks: dict[str, Any]


def by_task(
    optimizer: optax.GradientTransformation, *, banks: Iterable[str] = ()
) -> optax.GradientTransformationExtraArgs:
    """An optimizer with separate states for the shared parameters and for each task: counts, moments and norms.

    A step without a task has no effect at all on the task's part. Without `by_task`, `make_train_step` also keeps the
    parameters and the moments of an absent task as they are, but a step count that all parameters share still
    increases. Adam's bias correction and a schedule then use a count that is too large for the task. For a learning
    rate that decreases over the run, that is right. Use `by_task` for tasks that are absent for a long time from the
    start, and for optimizers that use a norm or a trust ratio over all parameters.

    Args:
        optimizer: applied to the shared parameters, and to each task's parameters. A global norm is then a norm of one
            part.
        banks: the entries that are banks of many tasks, such as `model.banks`; the optimizer is mapped over the tasks
            of each bank, so that each has a state of its own. An optimizer that looks at a leaf as a whole (`muon`,
            `lamb`, `adafactor`, masks by ndim) then does for a bank what it does for single tasks.

    Returns:
        Transformation of `Params`, with state `ByTaskState`. Its `update(updates, state, params=None, *, active=None)`
        accepts `active`, bool `[T]` in sorted order of names: an inactive task has update zero, and its state does not
        change. `make_train_step` passes no `active`, since it handles absent tasks itself. Each part gets `value` as it
        is, and `grad` and `value_fn` as functions of the part; other keyword arguments are passed on.

    Raises:
        TypeError: `optimizer` is not an optimizer; from `init` and `update`, arguments that are not `Params`.
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
    banks = frozenset(banks)

    def init(params: PyTree) -> ByTaskState:
        _check_params("params", params)
        states = {
            name: (jax.vmap(optimizer.init) if name in banks else optimizer.init)(own)
            for name, own in params.tasks.items()
        }
        return ByTaskState(optimizer.init(params.shared), states)

    def update(
        updates: PyTree, state: Any, params: PyTree = None, *, active: Array | None = None, **extra: Any
    ) -> tuple[PyTree, ByTaskState]:
        _check_params("updates", updates)
        sizes = tuple(_rows(name, own) if name in banks else None for name, own in sorted(updates.tasks.items()))
        entries = Entries(tuple(sorted(updates.tasks)), sizes)
        if active is not None:
            check_mask("by_task", "active", active, (entries.num_tasks,))

        def part(name: str | None, row: Array | None = None) -> tuple[PyTree, Any]:
            """The update of the shared parameters, of an entry, or of one row of a bank."""

            def of(tree: Any) -> PyTree:
                own = tree.shared if name is None else tree.tasks[name]
                return own if row is None else jax.tree.map(lambda leaf: leaf[row], own)

            given = dict(extra)
            if "grad" in given:
                given["grad"] = of(given["grad"])
            for key in ("value_fn", "obj_fn"):
                if key in given:
                    given[key] = lambda own, f=given[key], obj_fn=None: f(_with(name, own, params, row))
            return update_with(optimizer, of(updates), of(state), None if params is None else of(params), given)

        shared, shared_state = part(None)
        tasks, states = {}, {}
        present = None if active is None else entries.parts(active)
        for e, (name, size) in enumerate(zip(entries.names, sizes, strict=True)):
            own, new = part(name) if size is None else jax.vmap(functools.partial(part, name))(jnp.arange(size))
            if present is not None:
                own = trees.where(present[e], own) if size is None else rows_of(present[e], own)
                old = state.tasks[name]
                keep = jax.tree.map(lambda leaf, e=e: trees.along(present[e], leaf), new)
                new = jax.tree.map(jnp.where, keep, new, old)
            tasks[name], states[name] = own, new
        return Params(shared, tasks), ByTaskState(shared_state, states)

    return optax.GradientTransformationExtraArgs(init, update)


def _rows(name: str, own: PyTree) -> int:
    """The number of tasks of a bank, which its leaves lead with."""
    leaves = jax.tree.leaves(own)
    lengths = {jnp.shape(leaf)[:1] for leaf in leaves}
    expected = "of leaves [n, ...] with one n, as a bank's are"
    expect(
        len(lengths) == 1 and () not in lengths,
        "by_task",
        f"tasks[{name!r}]",
        expected,
        jax.tree.map(jnp.shape, own),
        ValueError,
    )
    return leaves[0].shape[0]


def moving(params: Params, entries: Entries, active: Array, reach: Params | None) -> Moves:
    """The leaves of task parameters that change at a step: those of active tasks, and those that a penalty reaches.

    A penalty is part of the objective at every step. So a copy that the penalty couples follows the other copies while
    its task is absent; a head that the penalty does not depend on does not change.

    Args:
        params: the parameters.
        entries: of the tasks.
        active: bool `[T]`.
        reach: one scalar per leaf of the parameters, `[n]` of a bank, not 0 if the penalty has a gradient there; None
            without a penalty.
    """
    by_task: dict[str, list[tuple[tuple[Any, ...], Array]]] = {}
    for name, present in zip(sorted(params.tasks), entries.parts(active), strict=True):
        leaves = jax.tree_util.tree_flatten_with_path(params.tasks[name])[0]
        pulled = [None] * len(leaves) if reach is None else jax.tree.leaves(reach.tasks[name])
        flags = [present if s is None else present | (s != 0) for s in pulled]
        own = sorted(zip([path for path, _ in leaves], flags, strict=True), key=lambda each: -len(each[0]))
        # The last entry is for optimizer state of the task as a whole.
        by_task[name] = [*own, ((), functools.reduce(jnp.logical_or, flags, present))]

    def moves(path: tuple[Any, ...]) -> Array | None:
        for start, (part, name) in enumerate(itertools.pairwise(path)):
            if getattr(part, "name", None) == "tasks" and getattr(name, "key", None) in by_task:
                rest = path[start + 2 :]
                # An optimizer stores its leaves under the path of the parameter, behind names of its own.
                return next(flag for own, flag in by_task[name.key] if rest[len(rest) - len(own) :] == own)
        return None

    return moves


def at_paths(layout: Layout, params: PyTree, moves: Moves) -> Moves:
    """`moves` of `Params`, as a function of paths that end in that of a leaf of one pytree.

    Args:
        layout: which leaf is whose.
        params: the pytree.
        moves: for the `Params` that it is split into.
    """
    flags: dict[tuple[Any, ...], Array | None] = {}
    leaves, keys = jax.tree_util.tree_flatten_with_path(params)[0], keys_of(layout.names)
    for k, ((path, _), owner) in enumerate(zip(leaves, layout.owners, strict=True)):
        if owner is None:
            flags[path] = None
        else:
            place = layout.owners[:k].count(owner)
            flags[path] = moves((GetAttrKey("tasks"), DictKey(keys[owner]), SequenceKey(place)))

    def of_path(path: tuple[Any, ...]) -> Array | None:
        # An optimizer keeps its leaves under the parameter's path, with names of its own before that.
        return next((flags[path[start:]] for start in range(len(path) + 1) if path[start:] in flags), None)

    return of_path


def can_hold(opt_state: PyTree) -> bool:
    """Whether state of absent tasks may be restored after the update: False if gradients accumulate over several steps.

    Such an optimizer would lose the gradients of a task that is absent from the step that applies them.
    """
    gathers = (optax.MultiStepsState, optax.ApplyEvery)
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, (ByTaskState, *gathers)))
    return not any(isinstance(leaf, gathers) for leaf in leaves)


def has_prox(opt_state: PyTree) -> bool:
    """Whether a link of the optimizer is `penalties.proximal`, which changes the parameters in its penalty."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, ProximalState))
    return any(isinstance(leaf, ProximalState) for leaf in leaves)


def scalars_held(sound: Array, new: PyTree, old: PyTree) -> PyTree:
    """The new state; if no task takes part in the step (`sound` is False), floating-point scalars keep the old values.

    The objective is then an empty sum, 0, which must not become the best value of a plateau schedule.
    """
    before = dict(jax.tree_util.tree_flatten_with_path(old)[0])

    def leaf(path: tuple[Any, ...], a: Any) -> Any:
        number = jnp.shape(a) == () and jnp.issubdtype(jnp.result_type(a), jnp.floating)
        return jnp.where(sound, a, before[path]) if number and path in before else a

    return jax.tree_util.tree_map_with_path(leaf, new)


def held(moves: Moves, new: PyTree, old: PyTree | None = None) -> PyTree:
    """The new tree, with old values for leaves that do not change, or 0 without an old tree."""
    # By path, since the state of some optimizers grows at their first step.
    before = None if old is None else dict(jax.tree_util.tree_flatten_with_path(old)[0])

    def leaf(path: tuple[Any, ...], a: Any) -> Any:
        flag = moves(path)
        if flag is None or (before is not None and path not in before):
            return a
        if flag.ndim and jnp.shape(a)[:1] != flag.shape:
            flag = flag.any()  # what an optimizer keeps of a bank as a whole
        return jnp.where(trees.along(flag, a), a, jnp.zeros_like(a) if before is None else before[path])

    return jax.tree_util.tree_map_with_path(leaf, new)


def _check_params(what: str, value: Any) -> None:
    expect(isinstance(value, Params), "by_task", what, "mtljax.Params(shared, tasks)", value, TypeError)


def _with(name: str | None, own: PyTree, params: Any, row: Array | None) -> Params:
    """The parameters with another part: the shared one, an entry, or one row of a bank."""
    if name is None:
        return params._replace(shared=own)
    if row is not None:
        own = jax.tree.map(lambda leaf, new: leaf.at[row].set(new), params.tasks[name], own)
    return params._replace(tasks={**params.tasks, name: own})
