"""Tests of `upgrad`."""

from __future__ import annotations

import jax
import numpy as np

from mtljax.methods.from_gramian import upgrad
from tests.methods.steps.from_gramian import METHODS, random_rows, weights_of


def test_upgrad_preference():
    rows = random_rows(3)

    @jax.jit
    def weights(preference):
        method = upgrad(preference=preference)
        return method.update(rows @ rows.T, method.init(3))[0]

    shares = [weights(preference) for preference in np.eye(3, dtype=np.float32)]
    np.testing.assert_allclose(np.mean(shares, 0), weights_of(METHODS["upgrad"], rows), rtol=1e-5)
    mixed = weights(np.float32([0.5, 2.0, 0.0]))
    np.testing.assert_allclose(mixed, 0.5 * shares[0] + 2.0 * shares[1], rtol=1e-5)
