"""Tests of `normalize`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.apply import aggregate
from mtljax.methods.from_gramian import pcgrad
from mtljax.methods.from_jacobian import graddrop
from mtljax.methods.wrappers import normalize
from tests.methods.steps.wrapper import KEY, ROWS, picking


@pytest.mark.parametrize("method", [pcgrad(), graddrop()], ids=lambda method: method.name)
def test_normalize_feeds_unit_gradients(method):
    unit = ROWS / jnp.linalg.norm(ROWS, axis=1, keepdims=True)
    expected = aggregate(method, unit, key=KEY)
    scaled = ROWS * jnp.array([[1e-6], [3.0]])
    np.testing.assert_allclose(aggregate(normalize(method), scaled, key=KEY), expected, rtol=1e-5, atol=1e-6)


def test_normalize_leaves_a_zero_gradient_zero():
    weights, _ = normalize(pcgrad()).update(jnp.diag(jnp.array([4.0, 0.0])), normalize(pcgrad()).init(2))
    assert weights[0] == 0.5 and np.isfinite(weights[1])


def test_normalize_one_picked_gradient():
    method = normalize(picking())
    np.testing.assert_allclose(aggregate(method, ROWS), ROWS[1] / jnp.linalg.norm(ROWS[1]), rtol=1e-6)
