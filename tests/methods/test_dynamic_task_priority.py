"""Tests of `dynamic_task_priority`."""

from __future__ import annotations

import numpy as np

from mtljax.methods.from_losses import dynamic_task_priority
from tests.methods.steps.history import STEPS, weights_of


def test_dynamic_task_priority_smooths_the_kpi():
    kpi = np.random.default_rng(2).uniform(0.1, 0.9, size=STEPS.shape).astype(np.float32)
    gamma = np.array([0.0, 1.0, 2.5], np.float32)
    found, _ = weights_of(dynamic_task_priority([0.0, 1.0, 2.5], smoothing=0.3), STEPS, kpi=kpi)
    running = kpi[0].astype(np.float64)
    for step in range(len(STEPS)):
        running = running if step == 0 else 0.3 * kpi[step] + 0.7 * running
        np.testing.assert_allclose(found[step], -((1 - running) ** gamma) * np.log(running), rtol=1e-4, atol=1e-6)


def test_dynamic_task_priority_estimates_the_kpi_from_losses():
    method = dynamic_task_priority(smoothing=1.0)
    np.testing.assert_allclose(weights_of(method, STEPS)[0], (1 - np.exp(-STEPS)) * STEPS, rtol=1e-5)
    own = dynamic_task_priority(smoothing=1.0, kpi=lambda losses: 1 / (1 + losses))
    kpi = 1 / (1 + STEPS)
    np.testing.assert_allclose(weights_of(own, STEPS)[0], -(1 - kpi) * np.log(kpi), rtol=1e-5)


def test_dynamic_task_priority_at_the_ends_of_the_scale_and_without_a_measurement():
    kpi = np.array([[0.0, 1.0, np.nan], [2.0, -1.0, 0.5], [np.nan, np.nan, np.nan]], np.float32)
    found, state = weights_of(dynamic_task_priority(smoothing=1.0), np.ones_like(kpi), kpi=kpi)
    bound, half = -np.log(1e-6), 0.5 * np.log(2)
    np.testing.assert_allclose(found, [[bound, 0, 1], [0, bound, half], [0, bound, half]], rtol=1e-5, atol=1e-6)
    assert state.inner.kpi.tolist() == [1.0, 0.0, 0.5]
