"""Tests of `log_losses`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.apply import aggregate, reconcile
from mtljax.methods.from_gramian import mgda, pcgrad
from mtljax.methods.from_jacobian import graddrop
from mtljax.methods.from_losses import equal
from mtljax.methods.wrappers import log_losses
from tests.methods.steps.wrapper import KEY, ROWS, counting


@pytest.mark.parametrize("eps", [0.0, 1e-8, 0.5])
def test_log_losses_of_equal_is_the_gradient_of_the_sum_of_logarithms(eps):
    losses = jnp.array([0.3, 2.0, 7.0])
    expected = jax.grad(lambda values: jnp.sum(jnp.log(values + eps)))(losses)
    method = log_losses(equal(), eps=eps)
    np.testing.assert_allclose(method.update(losses, method.init(3))[0], expected, rtol=1e-6)


@pytest.mark.parametrize("method", [pcgrad(), graddrop()], ids=lambda method: method.name)
def test_log_losses_reconciles_the_gradients_of_logarithms(method):
    losses = jnp.array([0.5, 4.0])
    found = aggregate(log_losses(method), ROWS, losses=losses, key=KEY)
    expected = aggregate(method, ROWS / (losses[:, None] + 1e-8), losses=jnp.log(losses), key=KEY)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_log_losses_does_not_care_for_units_and_shows_logarithms():
    method = log_losses(counting("losses"), eps=0.0)
    losses = jnp.array([1.0, 2.0, 4.0])
    weights, state = method.update(losses, method.init(3), losses=losses)
    np.testing.assert_allclose(weights, [1.0, 1.0, 0.75])
    np.testing.assert_allclose(state.inner.method.inner["seen"], np.log(losses), rtol=1e-6)
    state = method.observe(2.0 * losses, state)
    np.testing.assert_allclose(state.inner.method.inner["after"], np.log(2.0 * losses), rtol=1e-6)
    other, _ = method.update(1e3 * losses, method.init(3), losses=1e3 * losses)
    np.testing.assert_allclose(1e3 * other, weights, rtol=1e-6)


def test_a_loss_without_logarithm_sits_out():
    method = log_losses(equal())
    losses, active = jnp.array([2.0, -1.0, jnp.nan]), jnp.array([True, True, False])
    weights, _ = jax.jit(method.update)(losses, method.init(3), active=active)
    np.testing.assert_allclose(weights, [0.5, 0.0, 0.0])


def test_log_losses_gives_heads_of_task_gradient_methods_the_logarithms_gradient():
    method = log_losses(graddrop())
    assert method.weigh_tasks and not log_losses(mgda()).weigh_tasks
    losses = jnp.array([0.5, 4.0])
    _, state, _ = reconcile(method, method.init(2), ROWS, losses=losses, active=jnp.array([True, True]), key=KEY)
    np.testing.assert_allclose(state.weights, 1 / losses, rtol=1e-6)
