"""Tests of `gradnorm`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtljax.methods.from_gramian.gradnorm import gradnorm
from tests.methods.steps.gramian import STATEFUL, random_rows, step


@pytest.mark.parametrize("softmax", [False, True])
def test_gradnorm_follows_the_gradient_of_its_formula(softmax):
    method = gradnorm(0.7, optimizer=optax.sgd(0.03), softmax=softmax, normalize=False)
    state, parameter = method.init(3), jnp.zeros(3) if softmax else jnp.ones(3)
    first = None
    for t in range(3):
        rows = random_rows(3, t) * np.array([1.0, 3.0, 0.5])[:, None]
        losses = jnp.asarray(np.random.default_rng(t).uniform(0.5, 2.0, 3), jnp.float32)
        first = losses if first is None else first
        change = losses / first
        rate, norms = change / change.mean(), jnp.asarray(np.linalg.norm(rows, axis=1), jnp.float32)

        def weights_of(p):
            return 3 * jax.nn.softmax(p) if softmax else p

        def formula(p, rate=rate, norms=norms):
            weighted = weights_of(p) * norms
            return jnp.abs(weighted - jax.lax.stop_gradient(weighted.mean() * rate**0.7)).sum()

        weights, state = step(method, rows, state, losses=losses)
        np.testing.assert_allclose(weights, weights_of(parameter), rtol=1e-5)
        parameter = parameter - 0.03 * jax.grad(formula)(parameter)
        if not softmax:
            parameter = 3 * parameter / parameter.sum()
        assert float(jnp.min(weights_of(parameter))) > 0
        np.testing.assert_allclose(state.inner.weight, parameter, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state.inner.first_loss, first)


def test_gradnorm_two_steps_by_hand():
    # Norms 2 and 1, so N = 1.5; the gradient over N is (2, -1) / 1.5, and the step 0.3 of it.
    method = gradnorm(1.0, optimizer=optax.sgd(0.3))
    gramian = jnp.diag(jnp.array([4.0, 1.0]))
    first, state = method.update(gramian, method.init(2), losses=jnp.array([2.0, 5.0]))
    np.testing.assert_allclose(first, [1.0, 1.0])
    moved = np.array([1.0 - 0.4, 1.0 + 0.2])
    second, state = method.update(gramian, state, losses=jnp.array([1.0, 5.0]))
    np.testing.assert_allclose(second, moved * 2 / 1.8, rtol=1e-6)
    # Task 0 has halved its loss: rates 2/3 and 4/3, weighted norms 4/3 each, wanted 8/9 and 16/9.
    moved = second - 0.3 * np.array([2.0, -1.0]) / (4 / 3)
    third, _ = method.update(gramian, state, losses=jnp.array([1.0, 1.0]))
    np.testing.assert_allclose(third, moved * 2 / moved.sum(), rtol=1e-5)


def test_gradnorm_options_and_edges():
    gramian = jnp.diag(jnp.array([4.0, 1.0, 1.0]))
    known = gradnorm(initial_losses=[1.0, 2.0, 3.0])
    _, state = known.update(gramian, known.init(3), losses=jnp.ones(3))
    np.testing.assert_array_equal(state.inner.first_loss, [1.0, 2.0, 3.0])
    # A large step stops at 0, and weights that are all 0 start again.
    wild = gradnorm(optimizer=optax.sgd(100.0))
    state = wild.init(3)
    for losses in (jnp.ones(3), jnp.array([0.0, 0.0, 2.0]), jnp.zeros(3)):
        weights, state = wild.update(gramian, state, losses=losses)
        assert (np.asarray(weights) >= 0).all() and float(weights.sum()) == pytest.approx(3.0, rel=1e-5)
    # Equal norms and rates are balanced: nothing moves, whatever the rounding of the mean.
    weights, state = step(STATEFUL["gradnorm"], np.full((4, 2), 0.1), losses=np.ones(4))
    np.testing.assert_array_equal(state.inner.weight, 1.0)


def test_gradnorm_does_not_depend_on_scale():
    rows, losses, method = random_rows(4), np.array([1.0, 2.0, 3.0, 1.0]), STATEFUL["gradnorm"]
    states = {}
    for scale in (1.0, 1e-12, 1e12):
        state = method.init(4)
        for t in range(3):
            weights, state = step(method, scale * rows, state, losses=losses * (1 + t * np.arange(4)))
        states[scale] = np.asarray(weights)
    assert abs(states[1.0] - 1.0).max() > 0.01
    np.testing.assert_allclose(states[1e-12], states[1.0], rtol=1e-5)
    np.testing.assert_allclose(states[1e12], states[1.0], rtol=1e-5)
