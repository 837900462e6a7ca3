"""Arithmetic on pytrees has no scale of its own."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import trees

ROWS = jnp.array([[3.0, 4.0], [4.0, -3.0], [0.0, 0.0], [-6.0, 8.0]])


@pytest.mark.parametrize("scale", [1.0, 2.0**-80, 2.0**80])
def test_cosines_do_not_depend_on_lengths_and_are_0_where_there_is_none(scale):
    expected = [[1.0, 0.0, 0.0, 0.28], [0.0, 1.0, 0.0, -0.96], [0.0] * 4, [0.28, -0.96, 0.0, 1.0]]
    np.testing.assert_allclose(trees.cosines(scale * trees.gramian(ROWS)), expected, rtol=1e-6)
