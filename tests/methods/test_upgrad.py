"""Tests of `upgrad`."""

from __future__ import annotations

import numpy as np

from mtljax.methods.from_gramian import upgrad
from tests.methods.steps.from_gramian import METHODS, random_rows, weights_of


def test_upgrad_preference():
    rows = random_rows(3)
    shares = [weights_of(upgrad(preference=np.eye(3)[k]), rows) for k in range(3)]
    np.testing.assert_allclose(np.mean(shares, 0), weights_of(METHODS["upgrad"], rows), rtol=1e-5)
    mixed = weights_of(upgrad(preference=[0.5, 2.0, 0.0]), rows)
    np.testing.assert_allclose(mixed, 0.5 * shares[0] + 2.0 * shares[1], rtol=1e-5)
