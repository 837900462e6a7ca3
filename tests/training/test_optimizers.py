"""Optimizers that want the loss: value, gradient and function of the objective with the step's weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from mtljax import methods, training
from mtljax.methods.common import initial_state
from mtljax.types import Aux, Method, Params

START = Params({"w": jnp.array([1.0, 2.0])}, {"a": {"v": jnp.array(0.5)}, "b": {"v": jnp.array(-0.7)}})
X = jnp.asarray(np.random.default_rng(0).normal(size=(16, 2)), jnp.float32)


def penalty(params):
    return 0.1 * jnp.sum(params.shared["w"] ** 2) + 0.3 * params.tasks["a"]["v"] ** 2


def of_tasks(params, x):
    a = jnp.mean((x @ params.shared["w"] - params.tasks["a"]["v"]) ** 2)
    return {"a": a, "b": jnp.mean((x @ params.shared["w"] + 1.0 - params.tasks["b"]["v"]) ** 2)}


def losses_fn(params, state, batch, key, train):
    return of_tasks(params, batch), Aux(state)


class Seen(NamedTuple):
    value: Any
    grad: Any
    after: Any
    slope: Any


def recorder():
    """SGD that keeps what it is offered."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return Seen(jnp.zeros(()), zeros, jnp.zeros(()), zeros)

    def update(updates, state, params=None, *, value, grad, value_fn, **extra):
        updates = jax.tree.map(lambda g: -0.1 * g, updates)
        after, slope = jax.value_and_grad(value_fn)(optax.apply_updates(params, updates))
        return updates, Seen(value, grad, after, slope)

    return optax.GradientTransformationExtraArgs(init, update)


def recorded(method, **rest):
    init, step = training.make_train_step(losses_fn, method, recorder(), penalty=penalty, **rest)
    return init(START, key=jax.random.key(0)), step


def inverse_norms():
    """A method that reads the Gramian and leaves heads alone, quick to compile."""

    def update(gramian, state, **rest):
        weights = 1.0 / jnp.sqrt(jnp.diagonal(gramian))
        return weights, state._replace(weights=weights)

    return Method("gramian", lambda num_tasks, shared=None: initial_state(num_tasks), update, name="inverse_norms")


@pytest.mark.parametrize("method", [inverse_norms(), methods.uncertainty(), methods.graddrop()], ids=lambda m: m.name)
def test_the_value_is_the_objective_with_the_steps_weights(method):
    state, step = recorded(method)
    after, metrics = jax.jit(step)(state, X)
    weights = metrics["weights"]

    def expected(params):
        return sum(weights[name] * loss for name, loss in of_tasks(params, X).items()) + penalty(params)

    seen = after.opt_state
    np.testing.assert_allclose(seen.value, expected(START), rtol=1e-6)
    np.testing.assert_allclose(seen.after, expected(after.params), rtol=1e-6)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, seen.slope, jax.grad(expected)(after.params))
    grad = jax.grad(expected)(START)
    jax.tree.map(close, seen.grad.tasks, grad.tasks)
    if method.reads != "task_grads":  # whose update need not be the gradient of anything
        jax.tree.map(close, seen.grad.shared, grad.shared)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
@pytest.mark.parametrize("how", ["shard_map", pytest.param("pmap", marks=pytest.mark.slow)])
def test_it_is_the_same_on_all_devices(how):
    state, step = recorded(inverse_norms())
    expected = jax.jit(step)(state, X)[0].opt_state
    state, step = recorded(inverse_norms(), axis_name="batch")
    if how == "pmap":
        found = training.pmap(step)(state, training.split_batch(X, 8))[0].opt_state
    else:
        mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
        specs = (PartitionSpec(), PartitionSpec("batch"))
        mapped = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=PartitionSpec()))
        found = mapped(state, X)[0].opt_state
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, found, expected)


OPTIMIZERS = {
    "reduce_on_plateau": optax.chain(optax.sgd(0.05), optax.contrib.reduce_on_plateau(patience=1)),
    "polyak_sgd": optax.polyak_sgd(1.0),
    "momo": optax.contrib.momo(0.1),
    "momo_adam": optax.contrib.momo_adam(0.1),
    "lbfgs": optax.lbfgs(),
    "backtracking": optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(15, store_grad=True)),
    "zoom": optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(15)),
    "sophia": optax.contrib.sophia(0.05),
    "sam": optax.contrib.sam(optax.sgd(0.05), optax.sgd(0.01)),
    "by_task(lbfgs)": training.by_task(optax.lbfgs()),
}


AT_ONCE = {"reduce_on_plateau", "polyak_sgd", "momo", "lbfgs", "backtracking"}


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(each, id=name, marks=[] if name in AT_ONCE else pytest.mark.slow)
        for name, each in OPTIMIZERS.items()
    ],
)
def test_optimizers_that_want_the_loss_descend(optimizer):
    init, step = training.make_train_step(losses_fn, methods.fixed([1.0, 1.0]), optimizer, penalty=penalty)
    state, step = init(START, key=jax.random.key(0)), jax.jit(step)
    values = []
    for _ in range(6):
        state, metrics = step(state, X)
        values.append(sum(float(loss) for loss in metrics["losses"].values()) + float(metrics["penalty"]))
    assert step._cache_size() == 1
    assert values[-1] < 0.9 * values[0], values


@pytest.mark.slow
def test_a_line_search_survives_a_task_whose_derivative_is_nan():
    def poisoned(params, state, batch, key, train):
        losses = of_tasks(params, X)
        return {"a": losses["a"], "b": losses["b"] + jnp.sqrt(batch + 0.0 * params.shared["w"][0])}, Aux(state)

    init, step = training.make_train_step(poisoned, methods.fixed([1.0, 1.0]), optax.lbfgs())
    state, metrics = jax.jit(step)(init(START, key=jax.random.key(0)), jnp.array(-1.0))
    assert not metrics["active"]["b"]
    chex.assert_tree_all_finite(state.params)
    assert float(state.params.tasks["b"]["v"]) == float(START.tasks["b"]["v"])
    assert float(of_tasks(state.params, X)["a"]) < float(of_tasks(START, X)["a"])


def test_a_plain_transformation_is_offered_nothing():
    def update(updates, state, params=None):
        return jax.tree.map(lambda g: -0.1 * g, updates), state

    plain = optax.GradientTransformation(lambda params: (), update)
    init, step = training.make_train_step(losses_fn, methods.equal(), plain)
    state, _ = step(init(START, key=jax.random.key(0)), X)
    assert float(state.params.tasks["a"]["v"]) != 0.5
    with pytest.raises(TypeError, match=r"by_task: optimizer must be an optax.GradientTransformation, .* call it"):
        training.by_task(optax.adam)
    with pytest.raises(TypeError, match=r"by_task: params must be mtljax.Params\(shared, tasks\)"):
        training.by_task(optax.adam(0.1)).init({"w": jnp.ones(2)})


def test_a_step_without_tasks_is_no_best_value():
    """Nor is a penalty that is not finite."""

    def absent(params, state, batch, key, train):
        return of_tasks(params, X), Aux(state, weight_sum=jnp.full(2, batch))

    optimizer = optax.chain(optax.sgd(0.01), optax.contrib.reduce_on_plateau())
    init, step = training.make_train_step(
        absent, methods.fixed([1.0, 1.0]), optimizer, penalty=lambda p: jnp.sqrt(-1.0)
    )
    step, state = jax.jit(step), init(START, key=jax.random.key(0))
    state, metrics = step(state, 1.0)
    best = sum(float(loss) for loss in metrics["losses"].values())
    assert float(state.opt_state[1].best_value) == pytest.approx(best)
    state, _ = step(state, 0.0)
    assert float(state.opt_state[1].best_value) == pytest.approx(best)
