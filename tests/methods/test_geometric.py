"""Tests of `geometric`."""

from __future__ import annotations

import numpy as np

from mtljax.methods.from_losses import geometric
from tests.methods.steps.scalarization import weights_of


def test_the_geometric_weight_is_not_the_one_that_libmtl_logs():
    np.testing.assert_allclose(weights_of(geometric(), [2.0, 8.0]), [[1.0, 0.25]], rtol=1e-6)


def test_geometric_of_many_tasks_neither_over_nor_underflows():
    for scale in (1e-6, 1e6):
        losses = scale * np.linspace(0.5, 2.0, 100)
        expected = np.exp(np.log(losses).mean()) / (100 * losses)
        np.testing.assert_allclose(weights_of(geometric(), losses)[0], expected, rtol=1e-5)
