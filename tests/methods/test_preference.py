"""Tests of `preference`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax
from mtljax.methods.apply import aggregate
from mtljax.methods.from_gramian import mgda
from mtljax.methods.wrappers import every, preference
from mtljax.types import Params
from tests.methods.steps.wrapper import ROWS, picking


def test_preference_of_one_picked_gradient():
    np.testing.assert_allclose(aggregate(preference(picking(), [2.0, 3.0]), ROWS), 3.0 * ROWS[1])


def test_a_preference_holds_at_steps_that_reuse_weights():
    method = preference(every(mgda(), 2), [1.0, 3.0])
    weights, state = method.update(jnp.eye(2), method.init(2))
    np.testing.assert_allclose(weights, [0.5, 1.5], atol=1e-6)
    np.testing.assert_allclose(method.reuse(state)[0], [0.5, 1.5], atol=1e-6)


def test_a_prior_holds_at_steps_that_reuse_weights():
    def losses_fn(params, state, batch, key, train):
        return dict(zip("ab", params.shared, strict=True)), mtljax.Aux(state, prior=jnp.array([1.0, 3.0]))

    init, step = mtljax.training.make_train_step(losses_fn, every(mgda(), 2), optax.sgd(0.1))
    state, step = init(Params(jnp.ones(2), {"a": (), "b": ()}), key=jax.random.key(0)), jax.jit(step)
    weights = []
    for _ in range(2):
        state, metrics = step(state, None)
        weights.append([float(weight) for weight in metrics["weights"].values()])
    np.testing.assert_allclose(weights, [[0.5, 1.5]] * 2, atol=1e-6)
