"""Tests of `imtl_g`."""

from __future__ import annotations

import numpy as np
import pytest

from tests.methods.steps.padded import step, weights_of
from tests.methods.steps.spectral import METHODS, random_rows


def test_imtl_g_projects_alike_and_sums_to_one():
    for seed in range(3):
        rows = random_rows(5, seed) * np.array([5.0, 1.0, 1.0, 1.0, 1.0], np.float32)[:, None]
        weights = weights_of(METHODS["imtl_g"], rows)
        gains = rows @ (weights @ rows) / np.linalg.norm(rows, axis=1)
        assert weights.sum() == pytest.approx(1.0, abs=1e-4)
        np.testing.assert_allclose(gains, gains.mean(), rtol=1e-3)


def test_imtl_g_without_a_sum():
    """Weights that cancel cannot be scaled to sum 1, nor may what rounding left of their sum be."""
    unit = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.6, np.sqrt(0.28)]])
    amounts = np.linalg.solve(unit @ unit.T, np.ones(3))
    lengths_of = np.array([1.0, 1.0, 0.25])
    assert np.sum(amounts / lengths_of) == pytest.approx(0.0, abs=1e-12)
    weights, state = step(METHODS["imtl_g"], lengths_of[:, None] * unit)
    assert weights.tolist() == [0.0] * 3 and state.residual == 1
