"""Tests of `cov_weighting`."""

from __future__ import annotations

import numpy as np

from mtljax.methods.from_losses import cov_weighting
from tests.methods.steps.history import STEPS, weights_of


def test_cov_weighting_is_the_authors_recurrence():
    found, _ = weights_of(cov_weighting(), STEPS)
    losses = STEPS.astype(np.float64)
    ratios = np.stack([losses[t] / (losses[:t].mean(0) if t else losses[0]) for t in range(len(losses))])
    np.testing.assert_allclose(found[:2], 1 / 3, rtol=1e-6)
    for step in range(2, len(losses)):
        past = ratios[:step]
        variation = np.sqrt(past.var(0) + 1e-8) / past.mean(0)
        np.testing.assert_allclose(found[step], variation / variation.sum(), rtol=1e-4)


def test_cov_weighting_of_losses_that_stand_still_is_equal():
    for method in (cov_weighting(), cov_weighting(epsilon=0.0)):
        found, _ = weights_of(method, np.full((4, 3), [1.0, 2.0, 4.0], np.float32))
        np.testing.assert_allclose(found, 1 / 3, rtol=1e-6)


def test_cov_weighting_shares_with_a_newcomer():
    active = np.ones(STEPS.shape, bool)
    active[:4, 2] = False
    found, _ = weights_of(cov_weighting(), STEPS, active)
    two, _ = weights_of(cov_weighting(), STEPS[:, :2])
    np.testing.assert_allclose(found[4:6, 2], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(found[4:6, :2], 2 / 3 * two[4:6], rtol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
