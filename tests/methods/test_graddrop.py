"""Tests of `graddrop`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.methods import aggregate
from mtljax.methods.from_jacobian import graddrop
from tests.methods.steps.jacobian import KEY, draw


def test_graddrop_by_hand_with_a_leak_for_each_task():
    rows = draw(3, 50)
    leak = np.array([0.0, 0.25, 1.0])
    above = np.maximum(rows, 0).sum(axis=0)
    drawn = jax.random.uniform(jax.random.split(KEY, 1)[0], (50,))
    positive = above / np.abs(rows).sum(axis=0) > drawn
    kept = np.where(positive, rows > 0, rows < 0)
    expected = ((leak[:, None] + (1 - leak[:, None]) * kept) * rows).sum(axis=0)
    np.testing.assert_allclose(aggregate(graddrop(leak=leak), rows, key=KEY), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        aggregate(graddrop(leak=[0.3] * 3), rows, key=KEY), aggregate(graddrop(leak=0.3), rows, key=KEY), rtol=1e-6
    )
    np.testing.assert_allclose(aggregate(graddrop(leak=1.0), rows, key=KEY), rows.sum(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(aggregate(graddrop(), rows, key=KEY), (kept * rows).sum(axis=0), rtol=1e-6, atol=1e-7)


def test_graddrop_draws_signs_by_their_purity():
    rows = jnp.broadcast_to(jnp.array([[3.0], [-1.0]]), (2, 20_000))
    update = aggregate(graddrop(), rows, key=KEY)
    assert set(np.unique(update)) == {3.0, -1.0}
    assert abs(float(jnp.mean(update > 0)) - 0.75) < 0.01
    squared = aggregate(graddrop(monotone=jnp.square), rows, key=KEY)
    assert abs(float(jnp.mean(squared > 0)) - 0.5625) < 0.01
    leaves = aggregate(graddrop(), {"a": rows[:, :64], "b": rows[:, :64]}, key=KEY)
    assert not jnp.array_equal(leaves["a"], leaves["b"])
