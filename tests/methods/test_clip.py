"""Tests of `clip`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.apply import aggregate
from mtljax.methods.from_gramian import pcgrad
from mtljax.methods.from_jacobian import graddrop
from mtljax.methods.wrappers import clip
from tests.methods.steps.wrapper import KEY, ROWS, picking


@pytest.mark.parametrize("method", [pcgrad(), graddrop()], ids=lambda method: method.name)
@pytest.mark.parametrize("max_norm", [0.1, 1e3])
def test_clip(method, max_norm):
    plain = aggregate(method, ROWS, key=KEY)
    expected = plain * min(1.0, max_norm / float(jnp.linalg.norm(plain)))
    np.testing.assert_allclose(aggregate(clip(method, max_norm), ROWS, key=KEY), expected, rtol=1e-5, atol=1e-6)


def test_a_picked_gradient_is_clipped_too():
    np.testing.assert_allclose(jnp.linalg.norm(aggregate(clip(picking(), 0.5), ROWS)), 0.5, rtol=1e-6)
