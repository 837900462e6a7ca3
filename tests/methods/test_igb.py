"""Tests of `igb`."""

from __future__ import annotations

import numpy as np

from mtljax.methods.from_losses import igb
from tests.methods.steps.history import STEPS, softmax, weights_of


def test_igb_looks_back_to_the_base_period():
    found, _ = weights_of(igb(2), STEPS)
    base = STEPS[2:4].mean(0)
    np.testing.assert_allclose(found[:4], 1 / STEPS[:4], rtol=1e-5)
    for step in range(4, len(STEPS)):
        np.testing.assert_allclose(found[step], 3 * softmax(STEPS[step] / base) / STEPS[step], rtol=1e-5)
