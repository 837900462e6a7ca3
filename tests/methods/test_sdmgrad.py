"""Tests of `sdmgrad`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_gramian.sdmgrad import sdmgrad
from tests.methods.steps.descent import onto_simplex, towards
from tests.methods.steps.gramian import direction, random_rows


def test_sdmgrad_is_its_recurrence():
    preference = np.array([0.5, 1.0, 2.5])
    method = sdmgrad(pull=0.4, steps=3, rate=0.3, preference=preference)
    state, w, p = method.init(3), np.full(3, 1 / 3), preference / 4
    for t in range(3):
        # Two independent batches: what is given need not be symmetric.
        gramian = random_rows(3, t) @ random_rows(3, t + 10).T + 2 * np.eye(3)
        unit = np.mean(np.sqrt(np.abs(np.diag(gramian)))) ** 2
        velocity = np.zeros(3)
        for _ in range(3):
            velocity = 0.5 * velocity + gramian / unit @ (w + 0.4 * p)
            w = onto_simplex(w - 0.3 * velocity)
        weights, state = method.update(jnp.asarray(gramian, jnp.float32), state)
        np.testing.assert_allclose(weights, (w + 0.4 * p) / 1.4, atol=1e-5)
        np.testing.assert_allclose(state.inner.share, w, atol=1e-5)


@pytest.mark.slow
def test_sdmgrad_exact_is_that_and_many_steps_go_there():
    rows = random_rows(4, 5)
    gramian = jnp.asarray(rows @ rows.T, jnp.float32)
    expected = np.asarray(towards()(gramian, jnp.full(4, 0.25), jnp.float32(0.3 / 1.3))) @ rows
    np.testing.assert_allclose(direction(sdmgrad(pull=0.3, steps=None), rows), expected, atol=1e-5)
    np.testing.assert_allclose(direction(sdmgrad(pull=0.3, steps=500, rate=0.1), rows), expected, atol=1e-3)
