"""`losses_fn` on what models may be given and may return beside plain arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import mtljax
from mtljax.types import Batch, Model, Params, Regularized, TaskInputs

X = jnp.array([[1.0], [2.0]])
TASKS = dict.fromkeys("ab", mtljax.Task(mtljax.losses.squared_error))
PARAMS = Params(jnp.ones(1), {"a": jnp.array([2.0]), "b": jnp.array([3.0])})


def apply(params, state, inputs, *, tasks=None, key=None, train=False):
    """Task k answers with its parameter times its input; in training its square is its regulariser."""
    outputs = {}
    for name in tasks or "ab":
        own = inputs.by_task[name] if isinstance(inputs, TaskInputs) else inputs
        outputs[name] = own @ (params.shared * params.tasks[name])
        if train:
            outputs[name] = Regularized(outputs[name], jnp.sum(params.tasks[name] ** 2))
    return outputs, state


F = mtljax.make_losses_fn(Model(init=lambda key, inputs: (PARAMS, ()), apply=apply), TASKS)
TARGETS = {"a": jnp.zeros(2), "b": jnp.zeros(2)}


def test_a_regularizer_is_part_of_its_own_tasks_loss_while_it_trains():
    losses, aux = F(PARAMS, (), Batch(X, TARGETS), None, True)
    assert {name: float(loss) for name, loss in losses.items()} == {"a": 4 * 2.5 + 4, "b": 9 * 2.5 + 9}
    assert {name: float(aux.metrics[name]["regularization"]) for name in "ab"} == {"a": 4.0, "b": 9.0}
    slope = jax.grad(lambda p: F(p, (), Batch(X, TARGETS), None, True)[0]["a"])(PARAMS)
    assert float(slope.tasks["a"][0]) == 2 * 2 * 2.5 + 2 * 2 and float(slope.tasks["b"][0]) == 0

    losses, aux = F(PARAMS, (), Batch(X, TARGETS))
    assert float(losses["a"]) == 10 and aux.metrics["a"] == {}


def test_a_task_without_labels_is_not_regularized_either():
    mask = {"a": jnp.zeros(2, bool)}
    losses, aux = F(PARAMS, (), Batch(X, TARGETS, mask), None, True)
    assert float(losses["a"]) == 0 and aux.weight_sum.tolist() == [0, 2]


def test_inputs_of_each_tasks_own_share_their_examples():
    losses, aux = F(PARAMS, (), Batch(TaskInputs({"a": X, "b": 2 * X}), TARGETS))
    np.testing.assert_allclose([losses["a"], losses["b"]], [4 * 2.5, 36 * 2.5])
    assert aux.weight_sum.tolist() == [2, 2]
