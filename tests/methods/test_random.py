"""Tests of `random`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.methods.from_losses import random


def test_random_weights_are_a_softmax_of_normal_draws():
    method = random()
    keys = jax.random.split(jax.random.key(0), 4000)
    draw = jax.jit(jax.vmap(lambda key: method.update(jnp.ones(3), method.init(3), key=key)[0]))
    weights = np.asarray(draw(keys))
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert len(np.unique(weights, axis=0)) == 4000
    # log(w_i / w_j) is the difference of two standard normal numbers.
    gaps = np.log(weights[:, 0] / weights[:, 1])
    assert abs(gaps.mean()) < 4 * np.sqrt(2 / 4000) and abs(gaps.var() - 2) < 0.25
    np.testing.assert_allclose(weights.mean(0), 1 / 3, atol=0.02)


def test_random_draws_pass_over_inactive_tasks():
    key = jax.random.key(5)
    for method, whole in ((random(), 1.0), (random(rescale=True), 3.0)):
        found, _ = method.update(
            jnp.array([1.0, jnp.nan, 1.0, 1.0]),
            method.init(4),
            active=jnp.array([True, False, True, True]),
            key=key,
        )
        expected, _ = method.update(jnp.ones(3), method.init(3), key=key)
        np.testing.assert_allclose(np.delete(found, 1), expected, rtol=1e-6)
        np.testing.assert_allclose(found.sum(), whole, rtol=1e-6)
    assert random().update(jnp.ones(1), random().init(1))[0].tolist() == [1.0]
