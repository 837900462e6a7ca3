"""Tests of `uncertainty`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtljax.methods.from_losses import uncertainty
from mtljax.methods.from_losses.uncertainty import gaussian, laplace, softmax
from tests.methods.steps.learned import STEPS, history

FORMS = {
    gaussian: lambda s, x: (0.5 * np.exp(-s), 0.5 - 0.5 * np.exp(-s) * x),
    laplace: lambda s, x: (np.exp(-s), 1 - np.exp(-s) * x),
    softmax: lambda s, x: (np.exp(-s), 0.5 - np.exp(-s) * x),
}


@pytest.mark.parametrize("form", FORMS)
def test_uncertainty_by_hand(form):
    found, states = history(uncertainty(forms=form, optimizer=optax.sgd(0.1), log_variance=-0.5))
    s = np.full(3, -0.5)
    for step, losses in enumerate(STEPS.astype(np.float64)):
        weights, gradient = FORMS[form](s, losses)
        np.testing.assert_allclose(found[step], weights, rtol=1e-5)
        s = s - 0.1 * gradient
        np.testing.assert_allclose(states.inner.log_variance[step], s, rtol=1e-5, atol=1e-6)


def test_a_form_for_each_task():
    sgd = optax.sgd(0.1)
    mixed, _ = history(uncertainty(forms=[gaussian, laplace, softmax], optimizer=sgd))
    for index, form in enumerate(FORMS):
        pure, _ = history(uncertainty(forms=form, optimizer=sgd))
        np.testing.assert_allclose(mixed[:, index], pure[:, index], rtol=1e-6)
    own, _ = history(uncertainty(forms=lambda s: (0.5 * jnp.exp(-s), 0.5 * s), optimizer=sgd))
    np.testing.assert_allclose(own[:, 0], mixed[:, 0], rtol=1e-6)


@pytest.mark.parametrize(("form", "optimum"), [(gaussian, 1.0), (laplace, 1.0), (softmax, 2.0)])
def test_the_optimum_of_uncertainty_is_the_loss(form, optimum):
    losses = np.broadcast_to(np.array([0.5, 1.0, 3.0], np.float32), (300, 3))
    _, states = history(uncertainty(forms=form, optimizer=optax.sgd(0.3)), losses, after=losses)
    np.testing.assert_allclose(np.exp(states.inner.log_variance[-1]), optimum * losses[0], rtol=1e-4)
