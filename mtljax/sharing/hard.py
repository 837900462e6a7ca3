"""Hard parameter sharing: one trunk for all tasks, one head per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtljax.sharing.frames.bank import Bank, Keyed, heads_of, run_entries, start_entries
from mtljax.sharing.frames.encoder import encoder_and_heads
from mtljax.sharing.frames.inputs import input_of
from mtljax.sharing.frames.network import Network, check_network, key_for, selected
from mtljax.types import Array, Key, Model, Params, PyTree


def hard(trunk: Network, heads: Mapping[str, Network | Bank]) -> Model:
    """One trunk that all tasks share, and one head per task.

        outputs_k = head_k(trunk(inputs))

    `Params.shared` are the trunk's parameters and `Params.tasks[k]` the parameters of head k. The state is
    `{"trunk": ..., "tasks": {k: ...}}`. For a subset of the tasks, the model runs only their heads and returns the
    state of the other heads unchanged. Each head's key comes from its name, so its initial values and its dropout do
    not depend on which other tasks there are. Shapes and dtypes are those of the networks. With `TaskInputs` the trunk
    runs once per task, on that task's inputs; the trunk must accept the inputs of all tasks.

    Args:
        trunk: network from inputs `[B, ...]` to features, any pytree.
        heads: network from those features to outputs, by task name; a `Bank` stands for many tasks of one form.

    Returns:
        `Model` with `encode` and `decode`; its `penalty` is None.

    References:
        Caruana, "Multitask Learning", Machine Learning 28, 1997.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> model = hard(dense(8), {"depth": dense(1), "label": dense(10)})
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> outputs, state = model.apply(params, state, jnp.ones((2, 3)), tasks=("label",))
        >>> jax.tree.map(jnp.shape, outputs)
        {'label': (2, 10)}
    """
    names, networks, banks = heads_of("hard", heads)
    check_network("hard", "trunk", trunk)

    def init(key: Key, inputs: PyTree) -> tuple[Params, PyTree]:
        inputs = input_of(inputs, names[0])
        shared, trunk_state = trunk.init(key_for(key, "trunk"), inputs)
        features, _ = trunk.apply(shared, trunk_state, inputs)

        def start(name: str, keyed: Keyed, features: PyTree) -> tuple[PyTree, PyTree]:
            return networks[name].init(keyed("task"), features)

        params, states = start_entries(start, key, names, banks, features)
        return Params(shared=shared, tasks=params), {"trunk": trunk_state, "tasks": states}

    def encode(
        shared: PyTree, state: PyTree, inputs: PyTree, *, key: Key | None = None, train: bool = False
    ) -> tuple[PyTree, PyTree]:
        features, trunk_state = trunk.apply(shared, state["trunk"], inputs, key=key_for(key, "trunk"), train=train)
        return features, {"trunk": trunk_state, "tasks": state["tasks"]}

    def decode(
        tasks_params: PyTree,
        state: PyTree,
        features: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
        task: Mapping[str, Array] = {},
    ) -> tuple[dict[str, Any], PyTree]:
        def one(name: str, own: PyTree, state: PyTree, keyed: Keyed, features: PyTree) -> tuple[Any, PyTree]:
            return networks[name].apply(own, state, features, key=keyed("task"), train=train)

        outputs, states = run_entries(
            one, selected(names, tasks), tasks_params, state["tasks"], key, banks, lambda _: features, task
        )
        return outputs, {"trunk": state["trunk"], "tasks": states}

    return encoder_and_heads(names, init, encode, decode, banks=banks)
