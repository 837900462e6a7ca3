"""Tests of `nash_mtl`."""

from __future__ import annotations

import numpy as np
import pytest

from mtljax.methods.from_gramian.nash_mtl import nash_mtl
from tests.methods.steps.bargaining import CLIPPED, METHODS, random_rows
from tests.methods.steps.padded import weights_of


def test_nash_does_not_see_the_scale_of_a_loss():
    rows = random_rows(4, seed=5)
    scales = np.array([1e-3, 1.0, 7.0, 1e3], np.float32)
    direction = weights_of(METHODS["nash_mtl"], rows) @ rows
    np.testing.assert_allclose(
        weights_of(METHODS["nash_mtl"], scales[:, None] * rows) @ (scales[:, None] * rows), direction, atol=1e-5
    )
    assert np.linalg.norm(direction) == pytest.approx(2.0, rel=1e-5)


def test_clipping():
    rows = random_rows(4, seed=1)
    for scale in (1e-10, 1.0, 1e10):
        scaled = np.float32(scale) * rows
        found = weights_of(CLIPPED, scaled) @ scaled.astype(float)
        assert np.linalg.norm(found) == pytest.approx(1.0, rel=1e-4)
    roomy = nash_mtl(max_norm=2.5)
    np.testing.assert_array_equal(weights_of(roomy, rows), weights_of(METHODS["nash_mtl"], rows))
