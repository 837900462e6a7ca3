"""The network's state is what it would be without the tasks that are absent, and without NaN."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mtljax
from mtljax import training
from mtljax.adapters.flax_linen import from_linen
from mtljax.adapters.flax_nnx import from_nnx

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
    return mtljax.make_losses_fn(model, {k: mtljax.Task(mtljax.losses.squared_error) for k in "ab"}), params, state


def of_trunk(state):
    stats = jax.tree.leaves_with_path(state["trunk"])
    return {jax.tree_util.keystr(path[-1:]): float(leaf[0]) for path, leaf in stats}


@pytest.mark.parametrize("filler", [8.0, jnp.nan])
def test_an_absent_task_moves_nothing(filler):
    f, params, state = made()
    a = mtljax.Batch(jnp.array([[-1.0], [1.0], [-1.0], [1.0]]), {"a": jnp.zeros(4)}, {"a": HERE})
    b = mtljax.Batch(jnp.full((4, 1), filler), {"b": jnp.zeros(4)}, {"b": NOT_HERE})
    after = f(params, state, {"a": a, "b": b}, None, True)[1].state
    found = of_trunk(after)
    assert found == {"['mean']": 0.0, "['var']": 1.0}
    jax.tree.map(np.testing.assert_array_equal, after["tasks"]["b"], state["tasks"]["b"])
    there = b._replace(inputs=jnp.full((4, 1), 8.0), mask={"b": HERE})
    both = f(params, state, {"a": a, "b": there}, None, True)[1].state
    assert of_trunk(both)["['mean']"] == 4.0


class Slow(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(x)[:, 0]


class Spectral(nn.Module):
    """A layer whose power iteration goes a step on wherever it runs, whatever the inputs are."""

    @nn.compact
    def __call__(self, x, train: bool):
        return nn.SpectralNorm(nn.Dense(3))(x, update_stats=train)


class NnxNorm(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, momentum=0.5, rngs=rngs)
        self.linear = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        return self.linear(self.norm(x))


NETWORKS = {"spectral norm": lambda: from_linen(Spectral()), "nnx batch norm": lambda: from_nnx(NnxNorm)}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=list(NETWORKS))
def test_a_path_that_ran_for_no_labeled_example_gives_its_state_back_whatever_that_is(network):
    """In a trunk that tasks share, and in heads: as if the absent task were not there, and with nobody as it was."""
    model = mtljax.sharing.hard(network(), {k: network() for k in "ab"})
    tasks = {k: mtljax.Task(mtljax.losses.squared_error) for k in "ab"}
    f = jax.jit(mtljax.make_losses_fn(model, tasks), static_argnums=4)
    x = jnp.asarray(np.random.default_rng(0).normal(2.0, 1.0, (4, 3)), jnp.float32)
    params, state = model.init(jax.random.key(0), x)

    # Of two programs, and a mean of what was normalized is 0 but for rounding.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)

    def after(present, filler=8.0):
        inputs = {k: x if k in present else jnp.full((4, 3), filler) for k in "ab"}
        mask = {k: HERE if k in present else NOT_HERE for k in "ab"}
        batch = {k: mtljax.Batch(inputs[k], {k: jnp.zeros((4, 3))}, {k: mask[k]}) for k in "ab"}
        return f(params, state, batch, None, True)[1].state

    for present, absent in ("ab", "ba"):
        alone = jax.jit(lambda k=present: model.apply(params, state, x, tasks=(k,), train=True)[1])()
        for filler in (8.0, jnp.nan):
            found = after(present, filler)
            jax.tree.map(close, found["trunk"], alone["trunk"])
            jax.tree.map(close, found["tasks"][present], alone["tasks"][present])
            jax.tree.map(np.testing.assert_array_equal, found["tasks"][absent], state["tasks"][absent])
        for part in (found["trunk"], found["tasks"][present]):
            old = state["trunk"] if part is found["trunk"] else state["tasks"][present]
            assert any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), part, old)))
    jax.tree.map(np.testing.assert_array_equal, after(""), state)


def test_with_one_task_a_batch_it_evaluates_as_it_trains():
    """400 steps of `data.mix`: rows that fill up the absent task's batch, all alike, must not count as variance."""
    rng = np.random.default_rng(0)
    data = {}
    for k, direction in (("a", [1.0, 1.0]), ("b", [1.0, -1.0])):
        x = rng.normal(size=(512, 2)).astype(np.float32)
        data[k] = mtljax.Batch(x, {k: x @ np.array(direction, np.float32)})
    model = mtljax.sharing.hard(from_linen(Slow()), {k: from_linen(Linear()) for k in "ab"})
    f = mtljax.make_losses_fn(model, {k: mtljax.Task(mtljax.losses.squared_error) for k in "ab"})
    params, model_state = model.init(jax.random.key(0), jnp.ones((4, 2)))
    init, step = training.make_train_step(f, mtljax.methods.equal(), optax.adam(0.02))
    state, step = init(params, model_state, key=jax.random.key(1)), training.jit(step)
    for _, batch in zip(range(400), mtljax.data.mix(data, {"a": 1.0, "b": 1.0}, batch_size=64, seed=0), strict=False):
        state, _ = step(state, batch)
    variance = state.model_state["trunk"]["batch_stats"]["BatchNorm_0"]["var"]
    np.testing.assert_allclose(variance, 1.0, atol=0.1)
    in_training, in_evaluation = (f(state.params, state.model_state, data, None, train)[0] for train in (True, False))
    for k in "ab":
        assert float(in_training[k]) < 2e-3
        assert float(in_evaluation[k]) < 2e-2


def test_a_batch_for_all_keeps_the_heads_of_absent_tasks():
    f, params, state = made()
    x, targets = jnp.array([[-1.0], [1.0], [3.0], [5.0]]), {k: jnp.zeros(4) for k in "ab"}
    after = f(params, state, mtljax.Batch(x, targets, {"b": NOT_HERE}), None, True)[1].state
    assert of_trunk(after)["['mean']"] == 1.0
    jax.tree.map(np.testing.assert_array_equal, after["tasks"]["b"], state["tasks"]["b"])
    moved = jax.tree.map(lambda new, old: bool((new != old).any()), after["tasks"]["a"], state["tasks"]["a"])
    assert any(jax.tree.leaves(moved))
    nobody = f(params, state, mtljax.Batch(x, targets, {k: NOT_HERE for k in "ab"}), None, True)[1].state
    jax.tree.map(np.testing.assert_array_equal, nobody, state)


def stepped(model_state, new_state, batch=None, axis_name=None):
    def losses_fn(params, state, batch, key, train):
        return {"a": jnp.sum(params.shared * params.tasks["a"])}, mtljax.Aux(new_state(state, batch))

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
