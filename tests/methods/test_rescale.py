"""Tests of `rescale`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.apply import aggregate
from mtljax.methods.from_gramian import mgda, pcgrad
from mtljax.methods.from_jacobian import graddrop
from mtljax.methods.wrappers import mean_norm, rescale, sum_norm
from tests.methods.steps.wrapper import KEY, ROWS


@pytest.mark.parametrize("method", [pcgrad(), graddrop()], ids=lambda method: method.name)
def test_rescale_sets_the_length_and_nothing_else(method):
    plain = aggregate(method, ROWS, key=KEY)
    total = float(jnp.linalg.norm(ROWS.sum(axis=0)))
    for to, length in [(sum_norm, total), (mean_norm, total / 2), (0.25, 0.25)]:
        found = aggregate(rescale(method, to), ROWS, key=KEY)
        np.testing.assert_allclose(found, length * plain / jnp.linalg.norm(plain), rtol=1e-5, atol=1e-6)
        alone = aggregate(rescale(method, to), ROWS, key=KEY, active=jnp.array([True, False]))
        assert jnp.linalg.norm(alone) == pytest.approx(
            0.25 if to == 0.25 else float(jnp.linalg.norm(ROWS[0])), rel=1e-5
        )


def test_rescale_does_not_blow_up_rounding():
    opposed = jnp.array([[1.0, 2.0, 0.3], [-1.0, -2.0, -0.3]])
    assert jnp.linalg.norm(aggregate(rescale(mgda(), 1.0), opposed)) < 1e-5
