"""Which key is drawn from where: every step, stream, device, task and observer has the one that is its own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import AxisType, PartitionSpec

import mtljax
from mtljax import methods, training
from mtljax.adapters.flax_linen import from_linen
from mtljax.methods.common import initial_state
from mtljax.types import Batch, Model, Params

KEY = jax.random.key(5)
PARAMS = Params(jnp.ones(1), {"a": (), "b": ()})


def drawing(params, state, batch, key, train):
    """Losses whose state is what the key gives."""
    losses = {name: jnp.sum(params.shared) for name in params.tasks}
    return losses, mtljax.Aux({"drawn": jax.random.uniform(key)})


def model_key(step):
    return jax.random.split(jax.random.fold_in(KEY, step))[0]


def made(losses_fn=drawing, method=None, **rest):
    init, step = training.make_train_step(losses_fn, method or methods.equal(), optax.sgd(0.1), **rest)
    return init(PARAMS, {"drawn": jnp.zeros(())}, key=KEY), step


def test_the_losses_draw_from_the_key_of_their_step():
    state, step = made()
    step = jax.jit(step)
    for number in range(3):
        state, _ = step(state, None)
        np.testing.assert_array_equal(state.model_state["drawn"], jax.random.uniform(model_key(number)))
    np.testing.assert_array_equal(jax.random.key_data(state.key), jax.random.key_data(KEY))


def test_a_method_draws_anew_each_step_and_not_what_the_losses_draw():
    state, step = made(method=methods.random())
    step, seen = jax.jit(step), []
    for number in range(4):
        state, metrics = step(state, None)
        seen.append([float(weight) for weight in metrics["weights"].values()])
        method_key = jax.random.split(jax.random.fold_in(KEY, number))[1]
        expected, _ = methods.random().update(jnp.ones(2), methods.random().init(2), key=method_key)
        np.testing.assert_allclose(seen[-1], expected, rtol=1e-6)
    assert len({tuple(weights) for weights in seen}) == 4


def test_every_stream_of_a_linen_module_has_a_key_of_its_own():
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.param("scale", nn.initializers.ones, ())
            return jnp.stack([jax.random.uniform(self.make_rng(stream)) for stream in ("dropout", "noise", "mask")])

    network = from_linen(Noisy(), rngs=("dropout", "noise", "mask"))
    params, state = network.init(KEY, jnp.ones(1))
    drawn, _ = network.apply(params, state, jnp.ones(1), key=KEY, train=True)
    assert len(set(np.asarray(drawn).tolist())) == 3


def test_every_task_of_a_multi_input_batch_has_a_key_of_its_own():
    def apply(params, state, x, *, tasks=None, key=None, train=False):
        return {name: x * 0 + jax.random.uniform(key) for name in tasks}, state

    model = Model(lambda key, inputs: (PARAMS, ()), apply)
    f = mtljax.make_losses_fn(model, dict.fromkeys("ab", mtljax.Task(lambda outputs, targets: outputs)))
    batch = {name: Batch(jnp.ones(2), {name: jnp.ones(2)}) for name in "ab"}
    losses, _ = f(PARAMS, (), batch, KEY, True)
    for index, name in enumerate("ab"):
        np.testing.assert_allclose(losses[name], jax.random.uniform(jax.random.fold_in(KEY, index)), rtol=1e-6)


def watching():
    """Keeps the losses that it observes."""
    return mtljax.Method(
        "losses",
        init=lambda num_tasks, shared=None: initial_state(num_tasks, jnp.zeros(num_tasks)),
        update=lambda evidence, state, **rest: (jnp.ones_like(evidence), state),
        observe=lambda losses_after, state: state._replace(inner=losses_after),
    )


def test_an_observer_sees_losses_drawn_with_the_key_of_the_step():
    def losses_fn(params, state, batch, key, train):
        noise = jax.random.uniform(key, (2,))
        return {name: jnp.sum(params.shared) * 0 + noise[k] for k, name in enumerate("ab")}, mtljax.Aux(state)

    state, step = made(losses_fn, watching())
    after, metrics = jax.jit(step)(state, None)
    np.testing.assert_array_equal(after.method_state.inner, [metrics["losses"][name] for name in "ab"])
    np.testing.assert_array_equal(after.method_state.inner, jax.random.uniform(model_key(0), (2,)))


def over_two_devices(step):
    devices = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    specs = (PartitionSpec(), PartitionSpec("batch"))
    return jax.jit(jax.shard_map(step, mesh=devices, in_specs=specs, out_specs=PartitionSpec()))


needs_two = pytest.mark.skipif(jax.device_count() < 2, reason="needs 2 devices")


@needs_two
def test_every_device_drops_units_of_its_own():
    state, step = made(axis_name="batch")
    state, _ = over_two_devices(step)(state, jnp.zeros(2))
    each = [jax.random.uniform(jax.random.fold_in(model_key(0), device)) for device in range(2)]
    np.testing.assert_allclose(state.model_state["drawn"], np.mean(each), rtol=1e-6)


VALUES, COUNTS = jnp.array([0.2, 0.6]), jnp.array([1.0, 3.0])


@needs_two
def test_devices_with_unequal_shares_of_the_labels():
    """One labelled example on the first device, three on the second: means are over all four."""

    def update(evidence, state, *, losses, kpi, **rest):
        return jnp.ones_like(evidence), state._replace(inner=(kpi, state.inner[1]))

    method = mtljax.Method(
        "losses",
        init=lambda num_tasks, shared=None: initial_state(num_tasks, (jnp.zeros(2), jnp.zeros(2))),
        update=update,
        observe=lambda after, state: state._replace(inner=(state.inner[0], after)),
    )

    def losses_fn(params, state, batch, key, train):
        value, count = batch[0, 0], batch[0, 1]
        losses = {name: 1.0 + value + 0.0 * jnp.sum(params.shared) for name in "ab"}
        metrics = {name: {"value": value} for name in "ab"}
        extra = {"kpi": jnp.stack([value, value])}
        return losses, mtljax.Aux(state, weight_sum=jnp.stack([count, count]), extra=extra, metrics=metrics)

    state, step = made(losses_fn, method, axis_name="batch")
    after, metrics = over_two_devices(step)(state, jnp.stack([VALUES, COUNTS], axis=1))
    kpi, observed = after.method_state.inner
    for name in "ab":
        np.testing.assert_allclose(metrics["tasks"][name]["value"], 0.5, rtol=1e-6)
        np.testing.assert_allclose(metrics["losses"][name], 1.5, rtol=1e-6)
    np.testing.assert_allclose(kpi, [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(observed, [1.5, 1.5], rtol=1e-6)
