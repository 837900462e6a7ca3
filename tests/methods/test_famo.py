"""Tests of `famo`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.methods.from_losses import famo
from tests.methods.steps.learned import AFTER, STEPS, Adam, history


def test_famo_by_hand():
    """Coupled decay: the decayed logits enter the gradient before Adam's moments, as in PyTorch's Adam."""
    bounds = np.array([0.1, 0.0, -0.2])
    found, states = history(famo(gamma=0.3, learning_rate=0.05, min_losses=bounds))
    logits, adam = np.zeros(3), Adam(0.05)
    for step in range(len(STEPS)):
        z = np.exp(logits) / np.exp(logits).sum()
        before, after = STEPS[step].astype(np.float64) - bounds + 1e-8, AFTER[step].astype(np.float64) - bounds + 1e-8
        np.testing.assert_allclose(found[step], (z / before) / (z / before).sum(), rtol=1e-5)
        fall = np.log(before) - np.log(after)
        logits = logits + adam(z * (fall - z @ fall) + 0.3 * logits)
        np.testing.assert_allclose(states.inner.logits[step], logits, rtol=1e-3, atol=1e-5)


def test_famo_s_weights_are_the_gradient_of_its_loss():
    method = famo()
    state = method.init(3)
    state = state._replace(inner=state.inner._replace(logits=jnp.array([0.3, -0.2, 0.7])))

    def loss(x):
        z = jax.nn.softmax(state.inner.logits)
        return jnp.sum(z * jnp.log(x + 1e-8)) / jax.lax.stop_gradient(jnp.sum(z / (x + 1e-8)))

    np.testing.assert_allclose(
        method.update(jnp.asarray(STEPS[0]), state)[0], jax.grad(loss)(jnp.asarray(STEPS[0])), rtol=1e-5
    )


def test_famo_moves_by_what_it_observed_once():
    method = famo()
    _, state = method.update(jnp.asarray(STEPS[0]), method.init(3))
    seen = method.observe(jnp.asarray(AFTER[0]), state)
    again = method.observe(jnp.asarray(AFTER[1]), seen)
    np.testing.assert_array_equal(again.inner.logits, seen.inner.logits)
    first = method.observe(jnp.asarray(AFTER[0]), method.init(3))
    np.testing.assert_array_equal(first.inner.logits, 0)
    # The task that fell fastest loses weight, the slowest gains.
    fall = np.log(STEPS[0] / AFTER[0])
    assert seen.inner.logits[fall.argmax()] < 0 < seen.inner.logits[fall.argmin()]


def test_famo_leaves_a_task_whose_loss_after_the_step_is_not_finite():
    broken = AFTER.copy()
    broken[:, 1] = [np.nan, np.inf, np.nan, -np.inf, np.nan, np.nan]
    _, states = history(famo(), after=broken)
    np.testing.assert_array_equal(states.inner.logits[:, 1], 0)
    gone = np.tile([True, False, True], (len(STEPS), 1))
    _, without = history(famo(), active=gone)
    np.testing.assert_allclose(states.inner.logits[:, [0, 2]], without.inner.logits[:, [0, 2]], rtol=1e-5, atol=1e-7)


def test_famo_at_and_below_the_bound():
    """A task without anything left to lose gets no weight, and leaves the others what they have without it."""
    method = famo(min_losses=1.0)
    weights, state = jax.jit(method.update)(jnp.array([1.0, 0.2, 3.0]), method.init(3))
    np.testing.assert_allclose(weights, [0.0, 0.0, 1.0], atol=1e-6)
    assert method.observe(jnp.array([5.0, 5.0, 2.0]), state).inner.logits[:2].tolist() == [0, 0]
    weights, _ = famo(epsilon=1e-30).update(jnp.array([0.0, 1e30, 1.0]), method.init(3))
    np.testing.assert_allclose(weights, [0.0, 0.0, 1.0], atol=1e-6)


def test_famo_does_not_remember_one_enormous_change():
    losses, after = np.full((300, 2), 2.0, np.float32), np.full((300, 2), [1.9, 1.99], np.float32)
    usual = history(famo(), losses, after=after)[1].inner.logits[-1, 1]
    after[5] = [1e30, 1.9]
    assert history(famo(), losses, after=after)[1].inner.logits[-1, 1] > 0.4 * usual > 0
