"""Soft parameter sharing: one full copy of the network per task, and a penalty that ties the copies."""

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
    """One copy of the network per task; a penalty on the stacked copies keeps them close.

        outputs_k = head_k(network(inputs_k; w_k)),   objective = sum_k weight_k loss_k + penalty(w_1, ..., w_T)

    `Params.shared` is empty and `Params.tasks[k]` is `{"trunk": w_k, "head": v_k}`. The penalty ties the trunks; the
    heads are free and may differ in shape. The state is `{"tasks": {k: {"trunk": ..., "head": ...}}}`. For a subset of
    the tasks, only their networks run. With `TaskInputs` each copy reads its own inputs.

    All copies start from the same values. Between networks whose hidden units are in different orders, a penalty on the
    distance between parameters would mean little, and would first drive them all to zero. With the same key, trunks and
    heads start as those of `hard`, and dropout drops the same units in all copies. So an infinite strength is hard
    sharing. Without a penalty, this is single-task training in which all tasks start from the same trunk.

    A penalty with `parts`, such as `robust` or `dirty`, has one structure per summand of the parameters. The trunk's
    parameters are then a sum: `{"trunk": {part: ...}}`, `w_k = sum_part w_k,part`, added in float32 at least. The first
    part starts from the network's initial values, the others from zero.

    By default the copies run one after the other in one program. With `stacked=True` they run as one network, vmapped
    over parameters `[T, *p]` that are stacked in every step; parameters are stored by task in both cases, and results
    agree to rounding. On a CPU, one after the other was as fast or faster except for tiny networks of some hundred
    parameters, and several times faster for convolutions (`benchmarks/stacked.py`). Accelerators were not measured;
    there, many small dense copies may be faster stacked.

    Args:
        network: network from inputs `[B, ...]` to features, or to outputs if there are no heads; each task gets a copy.
        tasks: the task names, if the network's output is the task's output (`"head"` is then empty); or a dict of heads
            by task name, networks from the features to the task's outputs.
        penalty: function from the trunks, stacked in sorted order of task names with leaves `[T, *p]`, to a scalar; any
            of `mtljax.penalties`. A penalty with `parts` gets a dict of such trees by part. None for copies that are
            not tied.
        stacked: whether copies run stacked; their parameters, states and inputs must then have the same structure,
            shapes and dtypes. A single requested task never runs stacked.

    Returns:
        `Model`. Its `penalty(params)` is a scalar; without a penalty, `penalty` is None. `encode` and `decode` are
        None, since tasks have no features in common.

    Raises:
        ValueError: from `apply`, copies differ where `stacked` is True; from `penalty`, trunks differ in structure or
            shape.

    References:
        Duong, Cohn, Bird and Cook, "Low Resource Dependency Parsing", ACL 2015, with the L2 penalty between two
        networks.
        Evgeniou and Pontil, "Regularized Multi-Task Learning", KDD 2004, for linear models.

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
            # Copies, because a step that donates its state must not get one buffer twice.
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
            raise ValueError(f"soft: the trunks must be alike, found that {difference}")
        return penalty(trees.stack(list(trunks.values())))

    return checked_model(names, init, apply, penalty=None if penalty is None else tied)


_IDENTITY = Network(
    init=lambda key, inputs: ((), ()),
    apply=lambda params, state, inputs, *, key=None, train=False: (inputs, state),
)


def _summed(trunk: PyTree, parts: tuple[str, ...], name: str) -> PyTree:
    """The trunk's parameters: the given ones, or the sum of their parts."""
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
    """Check that the copies can be stacked."""
    kinds = ("parameters", "state", "inputs")
    each = zip(names, trunks, states, inputs, strict=True)
    difference = _difference({name: dict(zip(kinds, own, strict=True)) for name, *own in each}, dtypes=True)
    if difference:
        raise ValueError(f"soft: the copies must be alike for stacked=True, found that {difference}")


def _difference(by_task: Mapping[str, PyTree], *, dtypes: bool = False) -> str:
    """The first difference between the trees of two tasks, as a message with leaf and tasks; empty if all match."""

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
            return f"the tree of task {name!r} has another structure than that of task {names[0]!r}"
    return ""
