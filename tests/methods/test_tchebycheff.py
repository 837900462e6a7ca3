"""Tests of `tchebycheff`."""

from __future__ import annotations

import numpy as np

from mtljax.methods.from_losses import tchebycheff
from tests.methods.steps.scalarization import weights_of


def test_ties_share_the_tchebycheff_weight():
    found = weights_of(tchebycheff(preference=[1.0, 1.0, 2.0, 1.0]), [[1.0, 2.0, 1.0, 0.5]])
    np.testing.assert_array_equal(found, [[0.0, 0.5, 1.0, 0.0]])
