"""Tests of `ema`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from mtljax.methods.wrappers import cr_mogm, ema, every
from tests.methods.steps.wrapper import counting, steps


def test_ema_by_hand():
    found, _ = steps(ema(counting(), 0.9), 3)
    first = np.array([1.0, 2.0, 3.0])
    second = 0.9 * first + 0.1 * (first + 1)
    third = 0.9 * second + 0.1 * (first + 2)
    np.testing.assert_allclose(found, [first, second, third], rtol=1e-6)
    assert cr_mogm is ema


def test_ema_holds_absent_tasks_and_starts_each_at_its_own_first_step():
    masks = [[True, False, True], [True, True, False], [True, True, True]]
    found, _ = steps(ema(counting(), 0.5), 3, masks=masks)
    np.testing.assert_allclose(found[:, 0], [1.0, 1.5, 2.25])
    np.testing.assert_allclose(found[:, 1], [0.0, 3.0, 3.5])
    np.testing.assert_allclose(found[:, 2], [3.0, 0.0, 4.0])


def test_ema_from_given_weights_and_with_a_schedule():
    found, _ = steps(ema(counting(), 0.5, initial=[3.0, 0.0, 1.0]), 1)
    np.testing.assert_allclose(found[0], [2.0, 1.0, 2.0])
    found, _ = steps(ema(counting(), lambda count: count / (count + 1.0)), 3)
    np.testing.assert_allclose(found[2], [2.0, 3.0, 4.0], rtol=1e-6)  # the plain mean of three


def test_ema_over_every_averages_the_kept_weights():
    method = ema(every(counting(), 2), 0.5)
    state = method.init(3)
    gramian = jnp.eye(3)
    _, state = method.update(gramian, state)
    assert not method.due(state)
    _, state = method.reuse(state)
    assert method.due(state)
    weights, state = method.update(gramian, state)
    np.testing.assert_allclose(weights, [1.5, 2.5, 3.5])
