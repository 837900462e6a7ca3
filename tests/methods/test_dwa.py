"""Tests of `dwa`."""

from __future__ import annotations

import numpy as np

from mtljax.methods.from_losses import dwa
from tests.methods.steps.history import STEPS, softmax, weights_of


def test_dwa_compares_the_last_two_periods():
    found, _ = weights_of(dwa(2, temperature=1.5), STEPS)
    for step in range(len(STEPS)):
        periods = STEPS[: 2 * (step // 2)].reshape(-1, 2, 3).mean(1)
        rates = periods[-1] / periods[-2] if len(periods) >= 2 else np.ones(3)
        np.testing.assert_allclose(found[step], 3 * softmax(rates / 1.5), rtol=1e-5)


def test_dwa_of_an_epoch_is_libmtl_s():
    """LibMTL: 1 for two epochs, then T softmax(ratio of the last two epochs' means / 2)."""
    found, _ = weights_of(dwa(3), STEPS)
    np.testing.assert_allclose(found[:6], 1, rtol=1e-6)
    rates = STEPS[3:6].mean(0) / STEPS[:3].mean(0)
    np.testing.assert_allclose(found[6:], np.tile(3 * softmax(rates / 2), (3, 1)), rtol=1e-5)
