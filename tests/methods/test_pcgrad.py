"""Tests of `pcgrad`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.methods.from_gramian.common import random_order
from tests.methods.steps.from_gramian import METHODS, random_rows, weights_of


def test_two_tasks_of_pcgrad_are_the_sum_of_upgrad():
    for seed in range(5):
        rows = random_rows(2, seed)
        np.testing.assert_allclose(
            weights_of(METHODS["pcgrad"], rows), 2 * weights_of(METHODS["upgrad"], rows), rtol=1e-5
        )


def test_pcgrad_draws_a_uniform_order_for_each_task():
    keys = jax.random.split(jax.random.key(0), 600)
    orders = np.asarray(jax.vmap(lambda key: random_order("pcgrad", key, jnp.ones(4, bool)))(keys))
    assert (np.sort(orders, axis=2) == np.arange(4)).all()
    first = np.stack([(orders[:, :, 0] == j).mean(0) for j in range(4)])
    np.testing.assert_allclose(first, 0.25, atol=0.08)
    # Rows are drawn independently: two of them start alike a quarter of the time, not always.
    alike = (orders[:, :1, 0] == orders[:, 1:, 0]).mean(0)
    np.testing.assert_allclose(alike, 0.25, atol=0.08)


def test_pcgrad_depends_on_the_order_and_on_nothing_else():
    rows = random_rows(5, seed=5)
    keys = jax.random.split(jax.random.key(0), 12)
    draws = np.stack([weights_of(METHODS["pcgrad"], rows, key=key) for key in keys])
    assert len(np.unique(draws.round(4), axis=0)) > 5
    np.testing.assert_array_equal(draws[0], weights_of(METHODS["pcgrad"], rows, key=keys[0]))
