"""Tests of `imtl_l`."""

from __future__ import annotations

import numpy as np
import optax

from mtljax.methods.from_losses import imtl_l, uncertainty
from tests.methods.steps.learned import STEPS, Adam, history


def test_imtl_l_is_twice_uncertainty_at_the_opposite_sign():
    scales, states = history(imtl_l(optimizer=optax.sgd(0.1)))
    noises, other = history(uncertainty(optimizer=optax.sgd(0.2)))
    np.testing.assert_allclose(scales, 2 * noises, rtol=1e-6)
    np.testing.assert_allclose(states.inner.log_scale, -other.inner.log_variance, rtol=1e-5, atol=1e-7)


def test_imtl_l_by_hand_with_adam():
    found, _ = history(imtl_l(optimizer=optax.adam(0.05)))
    s, adam = np.zeros(3), Adam(0.05)
    for step, losses in enumerate(STEPS.astype(np.float64)):
        np.testing.assert_allclose(found[step], np.exp(s), rtol=1e-5)
        s = s + adam(np.exp(s) * losses - 1)
