"""Inference on some heads compiles to their work alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from mtljax.sharing import hard, single_task, soft
from tests.sharing.blocks import dense

X = jnp.ones((8, 4))
HEADS = {f"task{k}": dense(k + 1) for k in range(5)}

MODELS = {
    "hard": lambda heads: hard(dense(16), heads),
    "soft": lambda heads: soft(dense(16), heads),
    "soft stacked": lambda heads: soft(dense(16), heads, stacked=True),
    "single_task": lambda heads: single_task(dense(16), heads),
}
"""From heads to a model. An architecture belongs here if a task alone needs nothing that other tasks bring into it."""


def flops(model, tasks=None):
    params, state = jax.eval_shape(model.init, jax.random.key(0), X)

    def outputs(params, state, x):
        return model.apply(params, state, x, tasks=tasks)[0]

    analysis = jax.jit(outputs).lower(params, state, X).compile().cost_analysis()
    assert analysis is not None
    return analysis["flops"]


@pytest.mark.parametrize("name", list(MODELS))
def test_some_heads_cost_what_a_model_with_those_heads_alone_costs(name):
    whole = MODELS[name](HEADS)
    counted = {}
    for tasks in (("task4",), ("task1", "task3")):
        counted[tasks] = flops(whole, tasks)
        alone = MODELS[name]({task: HEADS[task] for task in tasks})
        assert counted[tasks] == flops(alone)
    # A multiplication and an addition for each weight and example, trunk and head.
    assert counted["task4",] >= 2 * 8 * (4 * 16 + 16 * 5)
    assert counted["task4",] < counted["task1", "task3"] < flops(whole)
