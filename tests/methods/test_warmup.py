"""Tests of `warmup`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from mtljax.methods.apply import aggregate, reconcile
from mtljax.methods.from_gramian import pcgrad
from mtljax.methods.from_jacobian import graddrop
from mtljax.methods.from_losses import fixed
from mtljax.methods.wrappers import warmup
from tests.methods.steps.wrapper import KEY, ROWS, counting, steps


def test_warmup_then_the_method_from_its_beginning():
    method = warmup(counting(), 2)
    found, _ = steps(method, 4, masks=[[True, True, False], *[[True] * 3] * 3])
    np.testing.assert_allclose(found, [[1, 1, 0], [1, 1, 1], [1, 2, 3], [2, 3, 4]])


def test_warmup_asks_for_no_jacobian_and_hides_its_losses():
    method = warmup(counting(), 2)
    state = method.init(3)
    for _ in range(2):
        assert not method.due(state)
        weights, state = method.reuse(state)
        np.testing.assert_array_equal(weights, 1.0)
        state = method.observe(jnp.ones(3), state)
        np.testing.assert_array_equal(state.inner.method.inner["after"], 0.0)
    assert method.due(state)
    _, state = method.update(jnp.eye(3), state)
    state = method.observe(jnp.ones(3), state)
    np.testing.assert_array_equal(state.inner.method.inner["after"], 1.0)


def test_warmup_with_another_method_first():
    method = warmup(graddrop(), 1, fixed([1.0, 0.5]))
    state = method.init(2)
    update, state, _ = reconcile(method, state, ROWS, losses=jnp.ones(2), key=KEY)
    np.testing.assert_allclose(update, ROWS[0] + 0.5 * ROWS[1])
    update, state, _ = reconcile(method, state, ROWS, losses=jnp.ones(2), key=KEY)
    np.testing.assert_allclose(update, aggregate(graddrop(), ROWS, key=KEY))
    method = warmup(graddrop(), 1, pcgrad())
    np.testing.assert_allclose(aggregate(method, ROWS, key=KEY), aggregate(pcgrad(), ROWS), rtol=1e-5)
    assert method.due is None
