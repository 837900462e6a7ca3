"""Gramians over devices that hold unequal shares of the labels are those of one device that holds all."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

import mtljax
from mtljax import engines, training
from mtljax.methods.common import initial_state

NAMES = ("a", "b")
# Two examples on the first device have a label of a, and none on the second; of b it is one and three.
LABELED = jnp.array([[1, 1], [1, 0], [0, 0], [0, 0], [0, 1], [0, 1], [1, 1], [0, 0]], bool)


def losses_fn(params, state, batch, key, train):
    """Both tasks read the bias without a trunk between."""
    inputs, targets, labeled = batch
    hidden = jnp.tanh(inputs @ params.shared["w"])
    counts = jnp.sum(labeled, axis=0).astype(jnp.float32)
    losses = {}
    for k, name in enumerate(NAMES):
        error = hidden @ params.tasks[name] + params.shared["bias"][k] * params.shared["bias"][0] - targets[:, k]
        losses[name] = jnp.sum(jnp.where(labeled[:, k], error**2, 0.0)) / jnp.maximum(counts[k], 1.0)
    return losses, mtljax.Aux(state, weight_sum=counts)


def gramian(engine, devices):
    keys = jax.random.split(jax.random.key(0), 5)
    shared = {"w": jax.random.normal(keys[0], (3, 4)), "bias": jnp.array([0.5, -0.7])}
    params = mtljax.Params(shared, {name: jax.random.normal(k, (4,)) for name, k in zip(NAMES, keys[1:3], strict=True)})
    batch = (jax.random.normal(keys[3], (8, 3)), jax.random.normal(keys[4], (8, 2)), LABELED)
    reader = mtljax.Method(
        "gramian",
        init=lambda num_tasks, shared=None: initial_state(num_tasks, jnp.zeros((num_tasks, num_tasks))),
        update=lambda gramian, state, **rest: (jnp.ones(len(gramian)), state._replace(inner=gramian)),
    )
    init, step = training.make_train_step(losses_fn, reader, optax.sgd(0.1), engine=engine, axis_name="batch")
    mesh = jax.make_mesh((devices,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    specs = (PartitionSpec(), PartitionSpec("batch"))
    run = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=PartitionSpec()))
    after, _ = run(init(params, key=jax.random.key(1)), batch)
    return np.asarray(after.method_state.inner)


@pytest.mark.skipif(jax.device_count() < 2, reason="needs 2 devices")
@pytest.mark.parametrize("engine", [engines.gramian(), engines.features()], ids=lambda engine: engine.name)
def test_devices_with_unequal_shares_of_the_labels_have_the_gramian_of_one(engine):
    np.testing.assert_allclose(gramian(engine, 2), gramian(engine, 1), rtol=1e-5)
