"""Separate batch statistics per task, for tasks whose inputs are distributed differently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.checks import expect
from mtljax.sharing.frames.network import selected
from mtljax.types import Key, Model, Params, PyTree


def statistics_by_task(model: Model) -> Model:
    """The same model with one state per task, so that each task is evaluated with the statistics of its own inputs.

        outputs_k, state_k = model.apply(params, state_k, inputs_k, tasks=(k,))

    Batch normalization uses the statistics of the batch in training, and running averages in evaluation. If tasks have
    separate inputs, each task's batch has its own statistics, but a shared trunk has one running average over all
    tasks. If the inputs differ, that average fits no task: two tasks with inputs of N(0, 1) and N(10, 1) train to a
    loss of 1e-14 and evaluate at 27. With this wrapper they evaluate as they train.

    The parameters are those of the model. The state is `{k: state of the model}`, and task k reads and updates only its
    own entry. In training, the outputs for a given key are those of the model. All other state is kept per task too,
    such as the count of training calls of `ltb`. Each task runs by itself. So on inputs that all tasks share, the trunk
    runs once per task; there the statistics are equal, and the wrapper is of no use.

    Some models keep the state of their trunk per task already and need no wrapper: `single_task`, `soft`, `adapters`,
    `film`, `low_rank`.

    Args:
        model: any `Model`, made of networks from Linen, NNX or by hand.

    Returns:
        `Model` with the model's `penalty`. `encode` and `decode` are None, since no features are common to all tasks.

    References:
        Li, Wang, Shi, Liu and Hou, "Revisiting Batch Normalization For Practical Domain Adaptation", ICLR workshop
        2017. Departures: the trainable scale and shift stay shared.

    Example:
        >>> from mtljax.sharing import Network, hard
        >>> from mtljax.types import TaskInputs
        >>> center = Network(  # the mean of the last batch as its state
        ...     lambda key, x: ((), jnp.zeros(())),
        ...     lambda p, mean, x, *, key=None, train=False: ((x - x.mean(), x.mean()) if train else (x - mean, mean)),
        ... )
        >>> model = statistics_by_task(hard(center, dict.fromkeys(("day", "night"), center)))
        >>> inputs = TaskInputs({"day": jnp.array([9.0, 11.0]), "night": jnp.array([-1.0, 1.0])})
        >>> params, state = model.init(jax.random.key(0), inputs)
        >>> _, state = model.apply(params, state, inputs, train=True)
        >>> {task: float(own["trunk"]) for task, own in state.items()}
        {'day': 10.0, 'night': 0.0}
    """
    expect(isinstance(model, Model), "statistics_by_task", "model", "a Model", model, TypeError)

    def init(key: Key, inputs: PyTree) -> tuple[Params, PyTree]:
        params, state = model.init(key, inputs)
        # Copies, because a step that donates its state must not get one buffer twice.
        return params, {name: jax.tree.map(jnp.copy, state) for name in sorted(params.tasks)}

    def apply(
        params: Params,
        state: PyTree,
        inputs: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], PyTree]:
        outputs, states = {}, dict(state)
        for name in selected(tuple(sorted(state)), tasks):
            found, states[name] = model.apply(params, state[name], inputs, tasks=(name,), key=key, train=train)
            outputs[name] = found[name]
        return outputs, states

    return Model(init=init, apply=apply, penalty=model.penalty)
