"""Tests of `modo`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_gramian.modo import modo
from tests.methods.steps.descent import onto_simplex
from tests.methods.steps.gramian import PLAIN, ROWS, direction, random_rows, step


def test_modo_is_its_recurrence():
    method = modo(gamma=0.05, rho=0.2)
    state, share = method.init(3), np.full(3, 1 / 3)
    for t in range(3):
        gramian = random_rows(3, t) @ random_rows(3, t + 10).T + 2 * np.eye(3)
        share = onto_simplex(share - 0.05 * (gramian @ share + 0.2 * share))
        weights, state = method.update(jnp.asarray(gramian, jnp.float32), state)
        np.testing.assert_allclose(weights, share, atol=1e-5)
    np.testing.assert_allclose(step(modo(gamma=0.0), ROWS)[0], [0.5, 0.5])


@pytest.mark.slow
def test_modo_goes_to_the_shortest_combination():
    rows, method = random_rows(4, 2), modo(gamma=0.1, normalize=True)
    gramian = jnp.asarray(rows @ rows.T, jnp.float32)
    _, weights = jax.lax.scan(lambda s, _: method.update(gramian, s)[::-1], method.init(4), None, length=400)
    np.testing.assert_allclose(np.asarray(weights[-1]) @ rows, direction(PLAIN, rows), atol=1e-3)
