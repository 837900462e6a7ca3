"""Nothing is shared: one whole network per task, the baseline of comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtljax.checks import expect
from mtljax.sharing.frames.inputs import input_of
from mtljax.sharing.frames.model import checked_model
from mtljax.sharing.frames.network import Network, check_heads, key_for, selected
from mtljax.types import Key, Model, Params, PyTree


def single_task(networks: Mapping[str, Network] | Network, heads: Mapping[str, Network] | None = None) -> Model:
    """One whole network per task: single-task training of all tasks in one step.

        outputs_k = network_k(inputs_k; w_k)                       from a dict of networks
        outputs_k = head_k(network(inputs_k; w_k); v_k)            from one network and a dict of heads

    It is the baseline of the metric `delta_m`. `Params.shared` is empty. `Params.tasks[k]` is
    `{"trunk": w_k, "head": v_k}`, with `v_k` empty without heads. The state is
    `{"tasks": {k: {"trunk": ..., "head": ...}}}`. The layout is that of `soft`. Unlike the copies of `soft`, networks
    have different initial values and different dropout. Task k's keys come from its name, so its training does not
    depend on which other tasks there are.

    Each task's gradient reaches only its own parameters, so balancing methods that act on shared parameters change
    nothing. A method that multiplies task-specific gradients too (`Method.weigh_tasks`) changes task k's learning rate.
    For the plain baseline use `methods.equal`. An optimiser that couples parameters, such as clipping by the global
    norm, couples the tasks again: wrap it in `optax.partition`, with one label per task.

    Args:
        networks: networks from inputs `[B, ...]` to outputs, by task name; or one network from inputs to features, of
            which each task gets a copy with its own initial values.
        heads: networks from those features to outputs, by task name, if `networks` is one network; else None.

    Returns:
        `Model` with `penalty`, `encode` and `decode` None.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> model = single_task(dense(8), {"depth": dense(1), "label": dense(10)})
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> jax.tree.map(jnp.shape, params.tasks["label"])
        {'head': (8, 10), 'trunk': (3, 8)}
        >>> jax.tree.map(jnp.shape, model.apply(params, state, jnp.ones((2, 3)), tasks=("depth",))[0])
        {'depth': (2, 1)}
    """
    columns = _columns(networks, heads)
    names = tuple(columns)

    def init(key: Key, inputs: PyTree) -> tuple[Params, PyTree]:
        params, states = {}, {}
        for name, (trunk, head) in columns.items():
            own_inputs, own_key = input_of(inputs, name), key_for(key, f"single/{name}")
            w, trunk_state = trunk.init(key_for(own_key, "trunk"), own_inputs)
            v, head_state = (), ()
            if head is not None:
                features, _ = trunk.apply(w, trunk_state, own_inputs)
                v, head_state = head.init(key_for(own_key, "head"), features)
            params[name], states[name] = {"trunk": w, "head": v}, {"trunk": trunk_state, "head": head_state}
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
        outputs, states = {}, dict(state["tasks"])
        for name in selected(names, tasks):
            (trunk, head), own, before = columns[name], params.tasks[name], states[name]
            own_key = key_for(key, f"single/{name}")
            found, trunk_state = trunk.apply(
                own["trunk"], before["trunk"], input_of(inputs, name), key=key_for(own_key, "trunk"), train=train
            )
            head_state = before["head"]
            if head is not None:
                found, head_state = head.apply(
                    own["head"], head_state, found, key=key_for(own_key, "head"), train=train
                )
            outputs[name], states[name] = found, {"trunk": trunk_state, "head": head_state}
        return outputs, {"tasks": states}

    return checked_model(names, init, apply)


def _columns(
    networks: Mapping[str, Network] | Network, heads: Mapping[str, Network] | None
) -> dict[str, tuple[Network, Network | None]]:
    """By task in task order, its network and its head."""
    if isinstance(networks, Network):
        names = check_heads("single_task", heads)
        assert heads is not None
        return {name: (networks, heads[name]) for name in names}
    names = check_heads("single_task", networks, what="networks")
    expect(heads is None, "single_task", "heads", "None where networks is a dict", heads, TypeError)
    return {name: (networks[name], None) for name in names}
