"""Two domains in one network: with batch statistics by task it evaluates as it trains."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import mtljax
from mtljax import training
from mtljax.adapters.flax_linen import from_linen
from mtljax.adapters.flax_nnx import from_nnx
from mtljax.sharing import hard, statistics_by_task
from mtljax.types import Batch, TaskInputs

TASKS = ("cold", "warm")
DRAW = np.random.default_rng(0)
INPUTS = {
    task: jnp.asarray(DRAW.normal(mean, 1.0, (32, 2)), jnp.float32) for task, mean in zip(TASKS, (0, 10), strict=True)
}


class LinenTrunk(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)


class NnxTrunk(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(2, momentum=0.9, rngs=rngs)

    def __call__(self, x):
        return self.norm(x)


TRUNKS = {
    "linen": (lambda: from_linen(LinenTrunk()), lambda: from_linen(nn.Dense(1))),
    "nnx": (lambda: from_nnx(NnxTrunk), lambda: from_nnx(lambda rngs: nnx.Linear(2, 1, rngs=rngs))),
}


def batch(by_task):
    """A linear function of each domain's own inputs, as a batch for each task or as inputs by task."""
    targets = {task: jnp.sum(x - jnp.mean(x, 0, keepdims=True), 1, keepdims=True) for task, x in INPUTS.items()}
    if by_task:
        return {task: Batch(INPUTS[task], {task: targets[task]}) for task in TASKS}
    return Batch(TaskInputs(INPUTS), targets)


@functools.cache
def trained(kind, by_task, wrapped):
    """The mean loss of both tasks after training, in training and in evaluation."""
    trunk, head = TRUNKS[kind]
    model = hard(trunk(), {task: head() for task in TASKS})
    model = statistics_by_task(model) if wrapped else model
    losses_fn = mtljax.make_losses_fn(model, dict.fromkeys(TASKS, mtljax.Task(mtljax.losses.squared_error)))
    data = batch(by_task)
    params, model_state = model.init(jax.random.key(0), TaskInputs(INPUTS))
    init, step = training.make_train_step(losses_fn, mtljax.methods.equal(), optax.adam(0.1))

    @jax.jit
    def run(state):
        state, _ = jax.lax.scan(lambda state, _: (step(state, data)[0], None), state, length=400)
        return [losses_fn(state.params, state.model_state, data, None, train)[0] for train in (True, False)]

    return [float(sum(losses.values())) / 2 for losses in run(init(params, model_state, key=jax.random.key(1)))]


@pytest.mark.parametrize(("kind", "by_task"), [("linen", True), ("nnx", False)])
def test_with_statistics_by_task_it_evaluates_as_it_trains(kind, by_task):
    in_training, in_evaluation = trained(kind, by_task, True)
    assert in_training < 1e-8
    assert in_evaluation < 1e-8


def test_with_shared_statistics_it_does_not():
    in_training, in_evaluation = trained("linen", True, False)
    assert in_training < 1e-8
    assert in_evaluation > 1
