"""Bad calls of the parallel forms of a step, and of optimizers and their state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, PartitionSpec

import mtljax
from mtljax import methods, training
from tests.bad_calls.bad import NO_FUNCTIONS, Bad, count, each

PARAMS = mtljax.Params(jnp.ones(2), {"a": jnp.ones(2), "b": jnp.ones(2)})
DEVICES = jax.local_device_count()
AUTO = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
EXPLICIT = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))


def losses_fn(params, state, batch, key, train):
    return {k: jnp.sum(params.shared * params.tasks[k]) for k in params.tasks}, mtljax.Aux(state)


def lost(params, state, batch, key, train):
    """A model's losses with a penalty, whose wrapper has lost it."""
    return losses_fn(params, state, batch, key, train)[0], mtljax.Aux(state, penalty=jnp.zeros(()))


def made(losses_fn=losses_fn, **rest):
    return training.make_train_step(losses_fn, methods.equal(), optax.sgd(0.1), **rest)


def traced(run, losses_fn=losses_fn, **rest):
    init, step = made(losses_fn, **rest)
    return jax.eval_shape(run(step), init(PARAMS, key=jax.random.key(0)), jnp.ones((DEVICES, 1)))


def mapped(batch):
    init, step = made(axis_name="batch")
    return training.pmap(step)(init(PARAMS, key=jax.random.key(0)), batch)


def weighted(params, state, batch, key, train):
    """Losses whose attribute is not a function."""
    return losses_fn(params, state, batch, key, train)


weighted.penalty = 0.1


def begun(params=PARAMS, **rest):
    return made()[0](params, **rest)


def returning(value):
    return traced(same, lambda *args: value)


def jax_pmap(step, **rest):
    return jax.pmap(step, in_axes=(None, 0), **rest)


def jax_shard_map(step):
    mesh = jax.make_mesh((DEVICES,), ("rows",), axis_types=(AxisType.Auto,))
    specs = (PartitionSpec(), PartitionSpec("rows"))
    return jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())


def same(step):
    return step


BY_TASK = training.by_task(optax.sgd(0.1))

BAD = [
    *each(training.jit, ("jit", "step"), NO_FUNCTIONS, TypeError),
    *each(training.pmap, ("pmap", "step"), NO_FUNCTIONS, TypeError),
    *each(lambda step: training.sharded(step, AUTO), ("sharded", "step"), NO_FUNCTIONS, TypeError),
    *each(training.jit, ("jit", "step"), [made()], TypeError),
    *each(
        lambda name: training.pmap(made()[1], axis_name=name), ("pmap", "axis_name"), (None, 1, ("batch",)), TypeError
    ),
    Bad(lambda: training.pmap(made()[1]), ("pmap", "step", "axis_name='batch'")),
    Bad(lambda: training.pmap(made(axis_name="rows")[1]), ("pmap", "step", "axis_name='batch'", "rows")),
    *each(mapped, ("pmap", "of the batch", f"[{DEVICES}, B / {DEVICES}, ...]"), (1.0, np.ones(DEVICES + 1))),
    Bad(lambda: mapped({"x": np.ones((DEVICES, 2)), "y": np.ones(3 * DEVICES)}), ("pmap", "leaf ['y']", "(24,)")),
    *each(lambda mesh: training.sharded(made()[1], mesh), ("sharded", "mesh"), (None, "data", 8), TypeError),
    Bad(lambda: training.sharded(made()[1], EXPLICIT), ("sharded", "mesh axis 'data'")),
    *count(lambda n: training.split_batch(np.ones(4), n), ("split_batch", "num_devices"), 0, -1),
    Bad(lambda: training.split_batch({"x": np.ones(5)}, 2), ("split_batch", "leaf ['x']", "(5,)")),
    Bad(lambda: training.split_batch({"x": 1.0}, 2), ("split_batch", "leaf ['x']", "()")),
    Bad(lambda: traced(same, axis_name="batch"), ("make_train_step", "axis_name", "'batch'")),
    Bad(lambda: traced(training.jit, axis_name="batch"), ("make_train_step", "axis_name", "'batch'")),
    *each(
        traced,
        ("make_train_step", "axis_name", "()"),
        (jax_pmap, lambda step: jax_pmap(step, axis_name="rows"), jax_shard_map),
    ),
    Bad(lambda: made(weighted), ("make_train_step", "penalty", "losses_fn"), TypeError),
    Bad(lambda: traced(same, lost), ("make_train_step", "penalty", "losses_fn")),
    *each(training.by_task, ("by_task", "optimizer"), (None, "adam", optax.adam, methods.equal(), 0.1), TypeError),
    *each(BY_TASK.init, ("by_task", "params"), (None, {"w": jnp.ones(2)}, jnp.ones(2)), TypeError),
    Bad(lambda: BY_TASK.update({"w": jnp.ones(2)}, BY_TASK.init(PARAMS)), ("by_task", "updates"), TypeError),
    Bad(lambda: BY_TASK.update(PARAMS, BY_TASK.init(PARAMS), active=jnp.ones(3, bool)), ("by_task", "active")),
    Bad(lambda: BY_TASK.update(PARAMS, BY_TASK.init(PARAMS), active=jnp.ones(2)), ("by_task", "active"), TypeError),
    *each(
        lambda params: begun(params, key=jax.random.key(0)),
        "params",
        ({"w": jnp.ones(2)}, None, jnp.ones(2)),
        TypeError,
    ),
    *each(lambda key: begun(key=key), ("init", "key"), (0, None, jnp.ones(2)), TypeError),
    *each(lambda state: made()[1](state, None), ("step", "state", "TrainState"), (None, PARAMS, ()), TypeError),
    *each(
        returning,
        ("make_train_step", "losses_fn", "(losses, mtljax.Aux(state))"),
        (jnp.ones(2), {"a": 1.0, "b": 1.0}, (jnp.ones(2), ()), (jnp.ones(2), {}), (jnp.ones(2), ({}, ()))),
        TypeError,
    ),
]
