"""Tests of `pooled`: the gradient is that of the one mean over all labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax
from mtljax import losses, methods, training
from mtljax.types import Batch, Model, Params, Task

NAMES = ("a", "b", "c", "d")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 3)).astype(np.float32)
LABELS = np.where(RNG.random((16, 4)) < [0.9, 0.5, 0.1, 0.0], RNG.normal(size=(16, 4)), np.nan).astype(np.float32)
SHARED, OWN = RNG.normal(size=(3, 5)).astype(np.float32), RNG.normal(size=(4, 5)).astype(np.float32)
MODEL = Model(
    None, lambda params, state, x, **rest: ({k: jnp.tanh(x @ params.shared) @ params.tasks[k] for k in NAMES}, state)
)
PARAMS = Params(jnp.asarray(SHARED), dict(zip(NAMES, jnp.asarray(OWN), strict=True)))
BATCH = mtljax.data.mask_missing(Batch(X, dict(zip(NAMES, LABELS.T, strict=True))))


def pooled_gradient():
    """Of the squared error of all labels that are there by their number, in float64, by hand."""
    hidden = np.tanh(np.float64(X) @ SHARED)
    error = np.nan_to_num(hidden @ np.float64(OWN).T - LABELS)
    seed = 2 * error / (~np.isnan(LABELS)).sum()
    return X.T @ ((seed @ OWN) * (1 - hidden**2)), seed.T @ hidden


def test_a_step_is_that_of_the_pooled_mean():
    losses_fn = mtljax.make_losses_fn(MODEL, dict.fromkeys(NAMES, Task(losses.squared_error)))
    init, step = training.make_train_step(losses_fn, methods.pooled(), optax.sgd(1.0))
    state, metrics = jax.jit(step)(init(PARAMS, key=jax.random.key(0)), BATCH)
    shared, own = pooled_gradient()
    np.testing.assert_allclose(PARAMS.shared - state.params.shared, shared, rtol=1e-4, atol=1e-6)
    for k, name in enumerate(NAMES):
        np.testing.assert_allclose(PARAMS.tasks[name] - state.params.tasks[name], own[k], rtol=1e-4, atol=1e-6)
    counts = (~np.isnan(LABELS)).sum(0)
    assert counts.tolist()[2:] == [1, 0]
    np.testing.assert_allclose(list(metrics["weights"].values()), counts / counts.sum(), rtol=1e-6)
    assert not metrics["active"]["d"]


def test_weights_are_shares_of_what_takes_part():
    method, counts = methods.pooled(), jnp.array([6.0, jnp.nan, 2.0, 0.0])
    active = jnp.array([True, False, True, True])
    weights = method.update(jnp.ones(4), method.init(4), active=active, weight_sum=counts)[0]
    assert weights.tolist() == [0.75, 0.0, 0.25, 0.0]
    assert method.update(jnp.ones(4), method.init(4))[0].tolist() == [0.25] * 4
    assert method.update(jnp.ones(4), method.init(4), weight_sum=jnp.zeros(4))[0].tolist() == [0.0] * 4


def test_the_sums_reach_it_from_the_caller_and_from_aux():
    losses_fn = lambda params: {k: jnp.sum(params.shared) for k in NAMES}  # noqa: E731
    counts, method = jnp.array([1.0, 2.0, 3.0, 4.0]), methods.pooled()
    told = mtljax.value_and_grad(losses_fn, method)(PARAMS, method.init(4), weight_sum=counts)[2]
    with_aux = mtljax.value_and_grad(lambda p: (losses_fn(p), mtljax.Aux(weight_sum=counts)), method, has_aux=True)
    wrapped = methods.preference(method, [1.0, 1.0, 1.0, 2.0])
    for state, expected in (
        (told, [0.1, 0.2, 0.3, 0.4]),
        (with_aux(PARAMS, method.init(4))[2], [0.1, 0.2, 0.3, 0.4]),
        (mtljax.value_and_grad(losses_fn, wrapped)(PARAMS, method.init(4), weight_sum=counts)[2], [0.1, 0.2, 0.3, 0.8]),
    ):
        np.testing.assert_allclose(state.weights, expected, rtol=1e-6)
