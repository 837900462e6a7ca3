"""The network's state is what it would be without the tasks that are absent, and without NaN."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import training
from mtljax.adapters.flax_linen import from_linen

HERE, NOT_HERE = jnp.ones(4, bool), jnp.zeros(4, bool)


class Norm(nn.Module):
    """Batch statistics alone, so that the running mean and variance are the batch's to halves."""

    @nn.compact
    def __call__(self, x, train: bool):
        return nn.BatchNorm(use_running_average=not train, momentum=0.5, use_scale=False, use_bias=False)(x)


class Head(nn.Module):
    """A head with batch statistics of its own."""

    @nn.compact
    def __call__(self, x, train: bool):
        return nn.Dense(1)(nn.BatchNorm(use_running_average=not train, momentum=0.5)(x))[:, 0]


def made(head=Head):
    model = mtljax.sharing.hard(from_linen(Norm()), {k: from_linen(head()) for k in "ab"})
    params, state = model.init(jax.random.key(0), jnp.ones((4, 1)))
    return mtljax.losses_fn(model, {k: mtljax.Task(mtljax.losses.squared_error) for k in "ab"}), params, state


def of_trunk(state):
    stats = jax.tree.leaves_with_path(state["trunk"])
    return {jax.tree_util.keystr(path[-1:]): float(leaf[0]) for path, leaf in stats}


@pytest.mark.parametrize("filler", [8.0, jnp.nan])
def test_an_absent_task_moves_nothing(filler):
    f, params, state = made()
    a = mtljax.Batch(jnp.array([[-1.0], [1.0], [-1.0], [1.0]]), {"a": jnp.zeros(4)}, {"a": HERE})
    b = mtljax.Batch(jnp.full((4, 1), filler), {"b": jnp.zeros(4)}, {"b": NOT_HERE})
    _, (_, after) = f(params, state, {"a": a, "b": b}, None, True)
    found = of_trunk(after)
    assert found == {"['mean']": 0.0, "['var']": 1.0}
    jax.tree.map(np.testing.assert_array_equal, after["tasks"]["b"], state["tasks"]["b"])
    there = b._replace(inputs=jnp.full((4, 1), 8.0), mask={"b": HERE})
    _, (_, both) = f(params, state, {"a": a, "b": there}, None, True)
    assert of_trunk(both)["['mean']"] == 4.0


def test_a_batch_for_all_keeps_the_heads_of_absent_tasks():
    f, params, state = made()
    x, targets = jnp.array([[-1.0], [1.0], [3.0], [5.0]]), {k: jnp.zeros(4) for k in "ab"}
    _, (_, after) = f(params, state, mtljax.Batch(x, targets, {"b": NOT_HERE}), None, True)
    assert of_trunk(after)["['mean']"] == 1.0
    jax.tree.map(np.testing.assert_array_equal, after["tasks"]["b"], state["tasks"]["b"])
    moved = jax.tree.map(lambda new, old: bool((new != old).any()), after["tasks"]["a"], state["tasks"]["a"])
    assert any(jax.tree.leaves(moved))
    _, (_, nobody) = f(params, state, mtljax.Batch(x, targets, {k: NOT_HERE for k in "ab"}), None, True)
    jax.tree.map(np.testing.assert_array_equal, nobody, state)


def stepped(model_state, new_state, batch=None, axis_name=None):
    def losses_fn(params, state, batch, key, train):
        return {"a": jnp.sum(params.shared * params.tasks["a"])}, ({}, new_state(state, batch))

    params = mtljax.Params(jnp.ones(1), {"a": jnp.ones(1)})
    init, step = training.make_train_step(losses_fn, mtljax.methods.equal(), optax.sgd(0.1), axis_name=axis_name)
    return init(params, model_state, key=jax.random.key(0)), step


def test_a_running_maximum_starts_and_an_entry_that_becomes_nan_is_held():
    state, step = stepped(jnp.array([-jnp.inf, 1.0, 2.0]), lambda state, batch: jnp.maximum(state, batch))
    after, _ = jax.jit(step)(state, jnp.array([3.0, jnp.nan, 5.0]))
    np.testing.assert_array_equal(after.model_state, [3.0, 1.0, 5.0])
    again, _ = jax.jit(step)(state, jnp.array([jnp.nan, 0.0, 0.0]))
    np.testing.assert_array_equal(again.model_state, [-jnp.inf, 1.0, 2.0])


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_a_device_without_labels_does_not_pull_the_mean():
    """Two of eight devices have moved the state: the mean is theirs. Counters are those of who went on."""
    start = {"mean": jnp.zeros(1), "count": jnp.zeros((), jnp.int32)}

    def moved(state, batch):
        return {"mean": state["mean"] + batch, "count": state["count"] + (batch[0] > 0)}

    state, step = stepped(start, moved, axis_name="batch")
    after, _ = training.pmap(step)(state, jnp.array([0.0, 0.0, 2.0, 0.0, 0.0, 4.0, 0.0, 0.0])[:, None])
    assert float(jax.tree.leaves(after.model_state["mean"])[0].ravel()[0]) == 3.0
    assert int(after.model_state["count"]) == 1
