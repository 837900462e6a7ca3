"""Tests of `ldc_mtl`."""

from __future__ import annotations

import numpy as np
import optax
import pytest

from mtljax.methods.from_losses import ldc_mtl
from mtljax.methods.from_losses.ldc_mtl import logarithmic, rescaled, unscaled
from tests.methods.steps.learned import AFTER, STEPS, history

SCALINGS = {
    unscaled: lambda x, first: (x, np.ones(3)),
    rescaled: lambda x, first: (x * first.min() / first, first.min() / first),
    logarithmic: lambda x, first: (np.log(x / first), 1 / x),
}


@pytest.mark.parametrize("scaling", SCALINGS)
def test_ldc_mtl_by_hand(scaling):
    """Derivatives of its objective written out, by the losses and by the router's logits."""
    penalty = 0.2
    found, states = history(ldc_mtl(penalty, scaling=scaling, optimizer=optax.sgd(0.5)))
    logits, first = np.ones(3), STEPS[0].astype(np.float64)
    for step, losses in enumerate(STEPS.astype(np.float64)):
        router = 1 / (1 + np.exp(-logits))
        scaled, slope = SCALINGS[scaling](losses, first)
        sign = np.sign(router[:-1] * scaled[:-1] - router[1:] * scaled[1:])
        pull = penalty * (np.append(sign, 0) - np.append(0, sign)) + 1 / router.sum()
        np.testing.assert_allclose(found[step], router * pull * slope, rtol=1e-5, atol=1e-6)
        logits = logits - 0.5 * scaled * pull * router * (1 - router)
        np.testing.assert_allclose(states.inner.logits[step], logits, rtol=1e-5)


def test_ldc_mtl_compares_the_neighbors_that_are_there():
    losses = np.insert(STEPS, 1, np.nan, axis=1)
    found, _ = history(ldc_mtl(0.5), losses, np.isfinite(losses), np.insert(AFTER, 1, np.nan, axis=1))
    expected, _ = history(ldc_mtl(0.5))
    np.testing.assert_allclose(np.delete(found, 1, axis=1), expected, rtol=1e-5)


def test_ldc_mtl_of_losses_that_are_not_positive():
    losses = np.array([[0.0, 1.0, 2.0], [0.5, -1.0, 2.0], [1.0, 1.0, 0.0]], np.float32)
    found, states = history(ldc_mtl(scaling=logarithmic), losses, after=losses)
    assert np.isfinite(found).all()
    assert (found[losses <= 0] == 0).all()
    assert states.inner.first[-1].tolist() == [0.5, 1.0, 2.0]
