"""Tests of `aligned_mtl`."""

from __future__ import annotations

import numpy as np
import pytest

from mtljax.methods.from_gramian.aligned_mtl import aligned_mtl
from mtljax.solvers.spectral import mean, median
from tests.methods.steps.padded import weights_of
from tests.methods.steps.spectral import MEAN, METHODS, random_rows


@pytest.mark.parametrize(("level", "size"), [(median, np.median), (mean, np.mean)])
def test_levels_of_aligned_mtl(level, size):
    rows = random_rows(5, seed=3)
    values, vectors = np.linalg.eigh(rows.astype(float) @ rows.T.astype(float))
    expected = np.sqrt(size(values)) * (vectors / np.sqrt(values)) @ vectors.T @ np.ones(5)
    np.testing.assert_allclose(weights_of(aligned_mtl(level=level), rows), expected, rtol=1e-4)


def test_preference_of_aligned_mtl_and_mean():
    rows, share = random_rows(3), [1.0, 0.0, 3.0]
    shares = [*share, 9.0, 9.0, 9.0, 9.0, 9.0]
    values, vectors = np.linalg.eigh(rows.astype(float) @ rows.T.astype(float))
    expected = np.sqrt(values[0]) * (vectors / np.sqrt(values)) @ vectors.T @ np.array(share)
    np.testing.assert_allclose(weights_of(aligned_mtl(preference=shares), rows), expected, rtol=1e-4)
    active = [True, False, True]
    halves = weights_of(MEAN, rows, active=active)
    np.testing.assert_allclose(2 * halves, weights_of(METHODS["aligned_mtl"], rows, active=active), rtol=1e-6)
