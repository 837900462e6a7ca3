"""Methods that remember losses: their recurrences by hand, in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_losses import cov_weighting, dwa, dynamic_task_priority, go4align, igb, loss_normalization
from tests.methods.steps.history import STEPS, weights_of


@pytest.mark.parametrize("method", [igb(1), go4align()], ids=["igb", "go4align"])
def test_a_loss_that_is_not_positive_sits_out(method):
    losses = STEPS[:5].copy()
    losses[:, 1] = [0.0, -1.0, 0.0, -2.0, 0.0]
    found, state = weights_of(method, losses)
    expected, other = weights_of(method, losses, np.tile([True, False, True], (5, 1)))
    np.testing.assert_array_equal(found, expected)
    jax.tree.map(np.testing.assert_array_equal, state.inner, other.inner)


@pytest.mark.parametrize("method", [dwa(1), cov_weighting(), loss_normalization()], ids=["dwa", "cov", "normalized"])
def test_losses_of_zero_and_below_give_finite_weights(method):
    losses = np.array([[0.0, -1.0, 1.0], [0.0, 1.0, -1.0], [1.0, -1.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
    found, _ = weights_of(method, losses)
    assert np.isfinite(found).all() and (found >= 0).all()


LATE = {
    "dwa": (dwa(2), 3.0),
    "igb": (igb(2), 3.0),
    "cov_weighting": (cov_weighting(), 1.0),
    "dynamic_task_priority": (dynamic_task_priority(), None),
    "loss_normalization": (loss_normalization(), None),
}


@pytest.mark.parametrize("name", LATE)
def test_a_task_starts_at_the_step_at_which_it_is_first_active(name):
    """Five steps late, with NaN before: its own state is what it would be had it been there alone from its start."""
    method, _ = LATE[name]
    losses = np.concatenate([STEPS, STEPS])
    losses[:5, 1] = np.nan
    active = np.isfinite(losses)
    _, late = weights_of(method, losses, active)
    alone = np.full_like(losses, np.nan)
    alone[: len(losses) - 5, 1] = losses[5:, 1]
    _, early = weights_of(method, alone, np.isfinite(alone))
    for found, expected in zip(late.inner, early.inner, strict=True):
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "neutral"),
    [("dwa", lambda losses: 1.0), ("igb", lambda losses: 1 / losses), ("cov_weighting", lambda losses: 1 / 3)],
)
def test_a_task_without_a_history_has_its_neutral_weight_or_score(name, neutral):
    """Where nobody has a history yet, a step is as the first one."""
    method, _ = LATE[name]
    np.testing.assert_allclose(weights_of(method, STEPS[:1])[0], np.broadcast_to(neutral(STEPS[:1]), (1, 3)), rtol=1e-5)


def test_histories_over_many_decades_give_finite_weights():
    losses = np.array([[1e-30, 1e30, 1.0], [1.0, 1.0, 1e30], [1e30, 1e-30, 1e-30], [1e-30, 1.0, 1e30]], np.float32)
    for method in (dwa(1), igb(1), go4align(), dynamic_task_priority(), loss_normalization(), cov_weighting()):
        assert np.isfinite(weights_of(method, losses)[0]).all(), method.name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dwa(0), "dwa: period must be at least 1, found 0"),
        (lambda: dwa(temperature=0.0), "dwa: temperature must be above 0"),
        (lambda: igb(0), "igb: period must be at least 1, found 0"),
        (lambda: igb(start=-1), "igb: start must be at least 0, found -1"),
        (lambda: go4align(0), "go4align: num_groups must be at least 1, found 0"),
        (lambda: go4align(step_size=-1), "go4align: step_size must be at least 0, found -1"),
        (lambda: cov_weighting(epsilon=-1), "cov_weighting: epsilon must be at least 0"),
        (lambda: loss_normalization(step_size=2), "loss_normalization: step_size must be above 0"),
        (lambda: loss_normalization(floor=-1), "loss_normalization: floor must be at least 0"),
        (lambda: dynamic_task_priority(-1), "dynamic_task_priority: gamma must be at least 0, found -1"),
        (lambda: dynamic_task_priority([1.0]).init(2), "dynamic_task_priority: gamma must have an entry for each"),
        (lambda: dynamic_task_priority(smoothing=1.5), "dynamic_task_priority: smoothing must be above 0"),
        (lambda: dynamic_task_priority(floor=0), "dynamic_task_priority: floor must be above 0"),
        (
            lambda: dynamic_task_priority().update(jnp.ones(2), dynamic_task_priority().init(2), kpi=jnp.ones(3)),
            r"dynamic_task_priority: kpi must be of shape .*found shape \(3,\)",
        ),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_period_is_an_integer():
    with pytest.raises(TypeError, match=r"dwa: period must be an integer, found 2\.5"):
        dwa(2.5)
