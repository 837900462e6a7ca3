"""A fixed tree of blocks: tasks share the blocks from the root up to the point where their paths branch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtljax.checks import check_count, expect
from mtljax.sharing.frames.inputs import input_of, one_task_at_a_time
from mtljax.sharing.frames.model import checked_model
from mtljax.sharing.frames.network import (
    Network,
    check_entries,
    check_heads,
    check_networks,
    is_sequence,
    key_for,
    selected,
)
from mtljax.sharing.frames.parts import Filing, file_parts
from mtljax.types import Key, Model, Params, PyTree


def tree(stages: Sequence[Network], heads: Mapping[str, Network], paths: Mapping[str, Sequence[int]]) -> Model:
    r"""A fixed tree: each task follows its own path of nodes, and tasks share the nodes that their paths share.

        h_k^0 = inputs,   h_k^j = node_{j, paths[k][j]}(h_k^{j-1}),   outputs_k = head_k(h_k^J)

    Node n of stage j is a copy of `stages[j]`. It runs once per call, and only if a requested task passes it.
    Parameters are dicts by part, `"node/<stage>/<number>"` and `"head"`. A node that several tasks pass is in
    `Params.shared`; a node that only task k passes is in `Params.tasks[k]`, with k's head. The state is
    `{"nodes": {part: ...}, "tasks": {k: ...}}`, with the heads' state under `"tasks"`. Node numbers are names: they
    need not be consecutive, and a node's key comes from its stage and number.

    `prune` makes such a tree from a trained `ltb` model. With paths from a measure of task affinity, the tree is the
    network of the paper.

    Args:
        stages: J networks in order, each from features to features.
        heads: network from the last features to outputs, by task name.
        paths: by task name, the number of the node that the task passes at each stage, `[J]` non-negative integers.
            Two tasks that pass the same node must have passed the same nodes before it.

    Returns:
        `Model`; `encode` and `decode` are None, since paths branch at several stages, and `penalty` is None.

    Raises:
        ValueError: paths meet again after they have branched.

    References:
        Vandenhende, Georgoulis, De Brabandere and Van Gool, "Branched Multi-Task Networks: Deciding What Layers To
        Share", BMVC 2020.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> heads = {"depth": dense(1), "edges": dense(1), "label": dense(10)}
        >>> model = tree([dense(8), dense(4)], heads, {"depth": (0, 0), "edges": (0, 0), "label": (0, 1)})
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> sorted(params.shared), {name: sorted(own) for name, own in params.tasks.items()}
        (['node/0/0', 'node/1/0'], {'depth': ['head'], 'edges': ['head'], 'label': ['head', 'node/1/1']})
    """
    names = check_heads("tree", heads)
    stages = check_networks("tree", "stages", stages)
    _check_paths(names, len(stages), paths)
    routes = {name: [node_part(j, int(node)) for j, node in enumerate(paths[name])] for name in names}
    filing = file_nodes(names, paths)

    def init(key: Key, inputs: PyTree) -> tuple[Params, PyTree]:
        x = input_of(inputs, names[0])
        nodes, node_states, features, tasks, states = {}, {}, {}, {}, {}
        for name in names:
            h = x
            for stage, part in zip(stages, routes[name], strict=True):
                if part not in features:
                    nodes[part], node_states[part] = stage.init(key_for(key, part), h)
                    features[part], _ = stage.apply(nodes[part], node_states[part], h)
                h = features[part]
            tasks[name], states[name] = heads[name].init(key_for(key, f"task/{name}"), h)
        params = filing.params(nodes)
        for name in names:
            params.tasks[name]["head"] = tasks[name]
        return params, {"nodes": node_states, "tasks": states}

    def apply(
        params: Params,
        state: PyTree,
        inputs: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], PyTree]:
        outputs, features = {}, {}
        node_states, states = dict(state["nodes"]), dict(state["tasks"])
        for name in selected(names, tasks):
            h = inputs
            for stage, part in zip(stages, routes[name], strict=True):
                if part not in features:
                    features[part], node_states[part] = stage.apply(
                        filing.find(params, part), node_states[part], h, key=key_for(key, part), train=train
                    )
                h = features[part]
            outputs[name], states[name] = heads[name].apply(
                params.tasks[name]["head"], states[name], h, key=key_for(key, f"task/{name}"), train=train
            )
        return outputs, {"nodes": node_states, "tasks": states}

    return checked_model(names, init, one_task_at_a_time(names, apply))


def node_part(stage: int, number: int) -> str:
    """The name of a node, which is the key of its parameters and determines its random key.

    Example:
        >>> node_part(1, 0)
        'node/1/0'
    """
    return f"node/{stage}/{number}"


def file_nodes(names: tuple[str, ...], paths: Mapping[str, Sequence[int]]) -> Filing:
    """The place of each node in `Params`: shared if several tasks pass it, else the task that passes it.

    Example:
        >>> file_nodes(("a", "b"), {"a": (0, 0), "b": (0, 1)}).owner
        {'node/0/0': None, 'node/1/0': 'a', 'node/1/1': 'b'}
    """
    passed_by: dict[str, list[str]] = {}
    for name in names:
        for stage, number in enumerate(paths[name]):
            passed_by.setdefault(node_part(stage, int(number)), []).append(name)
    return file_parts(names, passed_by)


def _check_paths(names: tuple[str, ...], length: int, paths: Mapping[str, Sequence[int]]) -> None:
    check_entries("tree", "paths", paths, names)
    before: dict[tuple[int, int], tuple[str, tuple[int, ...]]] = {}
    for name in names:
        expect(is_sequence(paths[name]), "tree", f"paths[{name!r}]", "a sequence of integers", paths[name], TypeError)
        path = tuple(check_count("tree", f"paths[{name!r}][{j}]", node, least=0) for j, node in enumerate(paths[name]))
        if len(path) != length:
            raise ValueError(f"tree: paths[{name!r}] must hold one node per stage, {length} nodes, found {path}")
        for stage, node in enumerate(path):
            other, came = before.setdefault((stage, node), (name, path[:stage]))
            if came != path[:stage]:
                raise ValueError(
                    f"tree: tasks {other!r} and {name!r} must reach node {node} of stage {stage} from one path, found "
                    f"{came} and {path[:stage]}"
                )
