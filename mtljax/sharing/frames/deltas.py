"""The common model of `adapters` and `film`: one shared trunk, and one small network per task after each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtljax.checks import check_flag
from mtljax.sharing.frames.bank import Bank, Keyed, heads_of, run_entries, start_entries
from mtljax.sharing.frames.channels import channels_last
from mtljax.sharing.frames.inputs import input_of
from mtljax.sharing.frames.model import checked_model
from mtljax.sharing.frames.network import Network, check_networks, key_for, selected
from mtljax.types import Key, Model, Params, PyTree


def after_each_stage(
    where: str,
    kind: str,
    delta: Network,
    stages: Sequence[Network],
    heads: Mapping[str, Network | Bank],
    *,
    frozen: bool,
) -> Model:
    """The model of `adapters` and `film`: `h_k^j = delta_k^j(stage_j(h_k^{j-1}))`, `outputs_k = head_k(h_k^J)`.

    Args:
        where: the public function that calls this one; messages start with its name.
        kind: the key of a task's deltas in `Params.tasks[k]`, which are a list with one entry per stage.
        delta: network after each stage, which starts as the identity; it has no state and draws nothing at random.
        stages: the trunk's networks.
        heads: network by task name, or a `Bank`, whose tasks have deltas of their own too.
        frozen: whether no gradient reaches the trunk.

    Example:
        >>> keep = Network(
        ...     init=lambda key, x: ((), ()),
        ...     apply=lambda params, state, x, *, key=None, train=False: (x, state),
        ... )
        >>> model = after_each_stage("film", "film", keep, [keep], {"a": keep}, frozen=False)
        >>> model.init(jax.random.key(0), jnp.ones((2, 3)))[0].tasks
        {'a': {'film': [()], 'head': ()}}
    """
    names, networks, banks = heads_of(where, heads)
    stages = check_networks(where, "stages", stages)
    check_flag(where, "frozen", frozen)

    def init(key: Key, inputs: PyTree) -> tuple[Params, PyTree]:
        x = input_of(inputs, names[0])
        trunk, trunk_state, features = [], [], []
        for j, stage in enumerate(stages):
            params, state = stage.init(key_for(key, f"stage/{j}"), x)
            x, _ = stage.apply(params, state, x)
            trunk.append(params)
            trunk_state.append(state)
            features.append(channels_last(where, f"the output of stage {j}", x))

        def start(name: str, keyed: Keyed, read: PyTree) -> tuple[PyTree, PyTree]:
            own = [delta.init(keyed("task", f"/{kind}/{j}"), h)[0] for j, h in enumerate(features)]
            head, head_state = networks[name].init(keyed("task"), read)
            # Copies, because a step that donates its state must not get one buffer twice.
            return {kind: own, "head": head}, {"stages": jax.tree.map(jnp.copy, trunk_state), "head": head_state}

        tasks, states = start_entries(start, key, names, banks, x)
        return Params(shared=trunk, tasks=tasks), {"tasks": states}

    def apply(
        params: Params,
        state: PyTree,
        inputs: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], PyTree]:
        trunk = lax.stop_gradient(params.shared) if frozen else params.shared

        def one(name: str, own: PyTree, before: PyTree, keyed: Keyed, read: PyTree) -> tuple[Any, PyTree]:
            (trunk, x), after = read, []
            for j, stage in enumerate(stages):
                x, moved = stage.apply(trunk[j], before["stages"][j], x, key=key_for(key, f"stage/{j}"), train=train)
                x, _ = delta.apply(own[kind][j], (), channels_last(where, f"the output of stage {j}", x))
                after.append(moved)
            outputs, head_state = networks[name].apply(own["head"], before["head"], x, key=keyed("task"), train=train)
            return outputs, {"stages": after, "head": head_state}

        def read(name: str) -> PyTree:
            return (trunk, input_of(inputs, name))

        outputs, states = run_entries(one, selected(names, tasks), params.tasks, state["tasks"], key, banks, read)
        return outputs, {"tasks": states}

    return checked_model(names, init, apply, banks=banks)
