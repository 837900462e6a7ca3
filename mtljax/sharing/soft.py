"""Soft parameter sharing: a full copy of the network for each task, tied by a penalty."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax import trees
from mtljax.checks import check_callable, check_flag
from mtljax.sharing.frames.inputs import input_of
from mtljax.sharing.frames.model import checked_model
from mtljax.sharing.frames.network import Network, check_heads, check_network, key_for, selected, task_names
from mtljax.types import Array, Key, Model, Params, PyTree, TaskInputs


def soft(
    network: Network,
    tasks: Sequence[str] | Mapping[str, Network],
    penalty: Callable[[PyTree], Array] | None = None,
    *,
    stacked: bool = False,
) -> Model:
    """A copy of the network for each task; a penalty on the copies, stacked, says how close they stay.

        outputs_k = head_k(network(inputs_k; w_k)),   objective = sum_k weight_k loss_k + penalty(w_1, ..., w_T)

    `Params.shared` is empty and `Params.tasks[k]` is `{"trunk": w_k, "head": v_k}`: the trunks are tied, the heads are
    free and may differ in shape. The state is `{"tasks": {k: {"trunk": ..., "head": ...}}}`. A task's network runs
    alone when it is asked for alone, on whatever inputs it is given; with `TaskInputs` each copy reads its own.

    All copies start from the same values: a penalty on the distance between parameters means little between networks
    whose hidden units stand in different orders, and would first drive them all to zero. Given one key, trunks and
    heads start where those of `hard` do, and all copies drop the same units; so an infinite strength is hard sharing,
    and no penalty is single-task training from one start.

    A penalty with `parts`, which asks a structure of its own of each summand (robust or dirty models), has the trunk's
    parameters be a sum: `{"trunk": {part: ...}}`, `w_k = sum_part w_k,part`, added in float32 at least. The first part
    starts from the network's initial values, the others from zero.

    Copies run one after the other in one program, or, with `stacked=True`, as one network vmapped over parameters
    `[T, *p]` that are stacked anew at every step; they are stored by task all the same, and results agree to rounding.
    One after the other is the default because on a CPU it was as fast or faster for all but tiny networks of some
    hundred parameters, and several times faster for convolutions (`benchmarks/stacked.py`). Accelerators were not
    measured; there, many small dense copies may well be faster stacked.

    Duong, Cohn, Bird and Cook, "Low Resource Dependency Parsing", ACL 2015, with the L2 penalty between two networks;
    for linear models Evgeniou and Pontil, KDD 2004.

    Args:
        network: what is copied: the network from inputs `[B, ...]` to features, or to outputs if there are no heads.
        tasks: the task names, where the network's output is the task's output (`"head"` is then empty); or a dict of
            heads by task name, networks from the features to the task's outputs.
        penalty: function of the trunks stacked in sorted order of task names, leaves `[T, *p]`, to a scalar; any of
            `mtljax.penalties`. One with `parts` gets a dict by part of such trees. None for untied copies.
        stacked: whether copies run stacked; their parameters, states and inputs must then be equal in structure,
            shape and dtype. A task that is asked for alone never runs stacked.

    Returns:
        `Model` whose `penalty(params)` is a scalar, or None without a penalty. `encode` and `decode` are None: there
        are no features in common.

    Raises:
        TypeError: a task name that is not a string; `tasks` is one string.
        ValueError: no tasks, or one named twice; `apply` asked for an unknown task, or given trunks in other parts
            than the penalty's, or with `stacked=True` copies that differ; trunks in `penalty(params)` that differ in
            structure or shape; `TaskInputs` that lack a task.

    Example:
        >>> def init(key, x):
        ...     return {"w": jax.random.normal(key, (x.shape[-1], 1))}, ()
        >>> linear = Network(init, lambda p, state, x, *, key=None, train=False: (x @ p["w"], state))
        >>> model = soft(linear, ("depth", "edges"), lambda w: jnp.sum(jnp.var(w["w"], axis=0)))
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> float(model.penalty(params))
        0.0
        >>> sorted(model.apply(params, state, jnp.ones((2, 3)))[0])
        ['depth', 'edges']
    """
    check_network("soft", "network", network)
    names = check_heads("soft", tasks, what="tasks") if isinstance(tasks, Mapping) else task_names("soft", tasks)
    if penalty is not None:
        check_callable("soft", "penalty", penalty)
    check_flag("soft", "stacked", stacked)
    heads = dict(tasks) if isinstance(tasks, Mapping) else dict.fromkeys(names, _IDENTITY)
    parts: tuple[str, ...] = tuple(getattr(penalty, "parts", ()))

    def init(key: Key, inputs: PyTree) -> tuple[Params, PyTree]:
        trunk, trunk_state = network.init(key_for(key, "trunk"), input_of(inputs, names[0]))
        features, _ = network.apply(trunk, trunk_state, input_of(inputs, names[0]))
        params, states = {}, {}
        for name in names:
            if isinstance(inputs, TaskInputs) and name != names[0]:
                features, _ = network.apply(trunk, trunk_state, input_of(inputs, name))
            head, head_state = heads[name].init(key_for(key, f"task/{name}"), features)
            # Copies of their own: a donated step must not be handed one buffer twice.
            own = jax.tree.map(jnp.copy, trunk)
            if parts:
                own = {part: own if part == parts[0] else jax.tree.map(jnp.zeros_like, trunk) for part in parts}
            params[name] = {"trunk": own, "head": head}
            states[name] = {"trunk": jax.tree.map(jnp.copy, trunk_state), "head": head_state}
        return Params(shared=(), tasks=params), {"tasks": states}

    def apply(
        params: Params,
        state: PyTree,
        inputs: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], PyTree]:
        chosen = selected(names, tasks)
        trunks = [_summed(params.tasks[name]["trunk"], parts, name) for name in chosen]
        before = [state["tasks"][name]["trunk"] for name in chosen]
        own_inputs = [input_of(inputs, name) for name in chosen]

        def run(trunk: PyTree, trunk_state: PyTree, x: PyTree) -> tuple[Any, PyTree]:
            return network.apply(trunk, trunk_state, x, key=key_for(key, "trunk"), train=train)

        if stacked and len(chosen) > 1 and jax.tree.leaves(trunks):
            _check_alike(chosen, trunks, before, own_inputs)
            shared = not isinstance(inputs, TaskInputs)
            x = inputs if shared else trees.stack(own_inputs)
            together = jax.vmap(run, in_axes=(0, 0, None if shared else 0))
            features, after = together(trees.stack(trunks), trees.stack(before), x)
            found = [jax.tree.map(lambda leaf, k=k: leaf[k], (features, after)) for k in range(len(chosen))]
        else:
            found = [run(*each) for each in zip(trunks, before, own_inputs, strict=True)]

        outputs, states = {}, dict(state["tasks"])
        for name, (features, trunk_state) in zip(chosen, found, strict=True):
            outputs[name], head_state = heads[name].apply(
                params.tasks[name]["head"],
                states[name]["head"],
                features,
                key=key_for(key, f"task/{name}"),
                train=train,
            )
            states[name] = {"trunk": trunk_state, "head": head_state}
        return outputs, {"tasks": states}

    def tied(params: Params) -> Array:
        assert penalty is not None
        trunks = {name: params.tasks[name]["trunk"] for name in names}
        difference = _difference(trunks)
        if difference:
            raise ValueError(f"soft: the trunks cannot be stacked: {difference}")
        return penalty(trees.stack(list(trunks.values())))

    return checked_model(names, init, apply, penalty=None if penalty is None else tied)


_IDENTITY = Network(
    init=lambda key, inputs: ((), ()),
    apply=lambda params, state, inputs, *, key=None, train=False: (inputs, state),
)


def _summed(trunk: PyTree, parts: tuple[str, ...], name: str) -> PyTree:
    """The trunk's parameters: themselves, or the sum of their parts."""
    if not parts:
        return trunk
    if not isinstance(trunk, Mapping) or set(trunk) != set(parts):
        found = sorted(trunk) if isinstance(trunk, Mapping) else type(trunk).__name__
        raise ValueError(f"soft: the trunk of task {name!r} must be a dict of the parts {list(parts)}, found {found}")

    def add(*leaves: Array) -> Array:
        dtype = leaves[0].dtype
        wide = [leaf.astype(trees.accumulator(dtype)) for leaf in leaves]
        return functools.reduce(jnp.add, wide).astype(dtype)

    return jax.tree.map(add, *(trunk[part] for part in parts))


def _check_alike(names: Sequence[str], trunks: list[PyTree], states: list[PyTree], inputs: list[PyTree]) -> None:
    """Raises where copies cannot be stacked."""
    kinds = ("parameters", "state", "inputs")
    each = zip(names, trunks, states, inputs, strict=True)
    difference = _difference({name: dict(zip(kinds, own, strict=True)) for name, *own in each}, dtypes=True)
    if difference:
        raise ValueError(f"soft: stacked=True, but the copies differ: {difference}")


def _difference(by_task: Mapping[str, PyTree], *, dtypes: bool = False) -> str:
    """Where the first two trees that do not match differ, naming leaf and tasks; empty where all match."""

    def kind(leaf: Any) -> Any:
        return (jnp.shape(leaf), str(jnp.asarray(leaf).dtype)) if dtypes else jnp.shape(leaf)

    def kinds(tree: PyTree) -> dict[Any, Any]:
        return {path: kind(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}

    names = list(by_task)
    first = kinds(by_task[names[0]])
    for name in names[1:]:
        other = kinds(by_task[name])
        for path in [*first, *other]:
            a, b = (found.get(path, "no such leaf") for found in (first, other))
            if a != b:
                return f"leaf {jax.tree_util.keystr(path)} is {a} for task {names[0]!r} but {b} for task {name!r}"
        if jax.tree.structure(by_task[names[0]]) != jax.tree.structure(by_task[name]):
            return f"the tree of task {name!r} is of another structure than that of task {names[0]!r}"
    return ""
