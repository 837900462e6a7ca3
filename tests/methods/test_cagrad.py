"""Tests of `cagrad`."""

from __future__ import annotations

import numpy as np
import pytest

from mtljax.methods.from_gramian.cagrad import cagrad
from tests.methods.steps.gramian import direction, random_rows


@pytest.mark.slow
def test_cagrad_of_radius_zero_is_the_mean():
    rows = random_rows(4, 3)
    np.testing.assert_allclose(direction(cagrad(0.0), rows), rows.mean(0), rtol=1e-5)
