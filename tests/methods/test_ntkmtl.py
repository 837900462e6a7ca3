"""Tests of `ntkmtl`."""

from __future__ import annotations

import numpy as np
import pytest

from mtljax.methods.from_gramian.ntkmtl import ntkmtl
from tests.methods.steps.padded import weights_of
from tests.methods.steps.spectral import METHODS, random_rows


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_ntkmtl_by_hand(exponent):
    rows = random_rows(4) * np.array([1.0, 1e-3, 10.0, 1.0], np.float32)[:, None]
    squares = np.sum(rows.astype(float) ** 2, axis=1)
    np.testing.assert_allclose(weights_of(ntkmtl(exponent), rows), (squares.sum() / squares) ** exponent, rtol=1e-5)
    balanced = weights_of(METHODS["ntkmtl"], rows) * np.sqrt(squares)
    np.testing.assert_allclose(balanced, balanced[0], rtol=1e-5)
