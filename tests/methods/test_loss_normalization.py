"""Tests of `loss_normalization`."""

from __future__ import annotations

import numpy as np

from mtljax.methods.from_losses import loss_normalization
from tests.methods.steps.history import STEPS, weights_of


def test_loss_normalization_divides_by_the_running_deviation():
    b = 0.2
    found, state = weights_of(loss_normalization(step_size=b), STEPS)
    losses = STEPS.astype(np.float64)
    mean, second = np.zeros(3), losses[0] ** 2
    for step in range(len(losses)):
        mean, second = (1 - b) * mean + b * losses[step], (1 - b) * second + b * losses[step] ** 2
        np.testing.assert_allclose(found[step], 1 / np.sqrt(second - mean**2), rtol=1e-5)
    np.testing.assert_allclose(state.inner.mean, mean, rtol=1e-5)


def test_loss_normalization_has_no_scale_of_its_own():
    method = loss_normalization(step_size=0.2)
    plain, _ = weights_of(method, STEPS)
    for scale in (2.0**-40, 2.0**40, 2.0**-110, 2.0**110):
        np.testing.assert_allclose(weights_of(method, STEPS * np.float32(scale))[0] * scale, plain, rtol=1e-5)


def test_loss_normalization_of_losses_without_spread_is_bounded():
    constant, _ = weights_of(loss_normalization(step_size=1.0), np.full((3, 2), [2.0, 0.0], np.float32))
    np.testing.assert_allclose(constant, [[1e4 / 2, 1.0]] * 3, rtol=1e-5)
