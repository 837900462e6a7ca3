"""MGDA with normalisations, GradVac and DualProj: golden values, recurrences, oracles."""

from __future__ import annotations

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_gramian.dualproj import dualproj
from mtljax.methods.from_gramian.gradvac import gradvac
from mtljax.methods.from_gramian.mgda import l2_norms, loss_times_l2, loss_values, mgda
from mtljax.methods.from_gramian.pcgrad import pcgrad, random_order
from mtljax.methods.from_gramian.upgrad import upgrad
from tests.methods.gramian_steps import (
    BY_LOSS_AND_NORM,
    METHODS,
    PLAIN,
    ROWS,
    STATEFUL,
    direction,
    four,
    random_rows,
    step,
)

# --- Golden values and what the options reproduce ---


def test_golden_values():
    rows, active = four(ROWS)
    for method, expected in (
        (STATEFUL["gradvac"], [0.58480, 3.80117, 3.80117]),
        (gradvac(mean=True), [0.29240, 1.90058, 1.90058]),
        (METHODS["dualproj"], [0.55556, 1.11111, 1.11111]),
        (METHODS["mgda"], [0.01526, 0.19896, 0.19896]),
    ):
        np.testing.assert_allclose(direction(method, rows, active=active), expected, atol=1e-5)


def test_mgda_normalizations_are_mgda_of_scaled_gradients():
    rows, losses = random_rows(4, 1), np.array([0.5, 2.0, 1.0, 3.0])
    norms = np.linalg.norm(rows, axis=1)
    for function, divisor in ((l2_norms, norms), (loss_values, losses), (loss_times_l2, losses * norms)):
        np.testing.assert_allclose(
            function(jnp.asarray(norms), jnp.asarray(losses)), jnp.asarray(divisor, jnp.float32), rtol=1e-6
        )
    divisor = losses * norms
    plain = np.asarray(step(PLAIN, rows / divisor[:, None])[0])
    found = step(BY_LOSS_AND_NORM, rows, losses=losses)[0]
    np.testing.assert_allclose(found, plain / divisor, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_mgda_may_apply_the_weights_of_normalized_gradients_to_the_gradients_themselves():
    rows = random_rows(4, 1)
    raw = mgda(normalization=loss_times_l2, normalized_update=False)
    divisor = np.linspace(0.5, 2.0, 4) * np.linalg.norm(rows, axis=1)
    expected = np.asarray(step(BY_LOSS_AND_NORM, rows)[0]) * divisor
    np.testing.assert_allclose(step(raw, rows)[0], expected, rtol=1e-4, atol=1e-6)


def test_mgda_divisors_that_are_no_number_to_divide_by_count_as_one():
    rows = random_rows(4)
    losses = np.array([0.0, -2.0, np.nan, np.inf])
    np.testing.assert_allclose(step(BY_LOSS_AND_NORM, rows, losses=losses)[0], step(PLAIN, rows)[0], atol=1e-6)
    rows[0] = 0
    np.testing.assert_allclose(step(BY_LOSS_AND_NORM, rows)[0], [1.0, 0.0, 0.0, 0.0], atol=1e-6)


# --- GradVac ---


def vaccinate(rows, order, target, beta, follow_all):
    """The rule on the gradients themselves, one pair after the other."""
    target, changed = target.copy(), rows.copy()
    for i in range(len(rows)):
        for j in order[i]:
            if i == j:
                continue
            a, g = changed[i], rows[j]
            phi, wanted = a @ g / np.linalg.norm(a) / np.linalg.norm(g), target[i, j]
            acts = phi < wanted
            if acts:
                gain = wanted * np.sqrt(1 - phi**2) - phi * np.sqrt(1 - wanted**2)
                changed[i] = a + np.linalg.norm(a) * gain / (np.linalg.norm(g) * np.sqrt(1 - wanted**2)) * g
            if acts or follow_all:
                target[i, j] = (1 - beta) * wanted + beta * phi
    return changed.sum(0), target


@pytest.mark.parametrize("follow_all", [True, False])
def test_gradvac_is_its_recurrence_on_the_gradients(follow_all):
    method = gradvac(beta=0.5, follow_all=follow_all)
    state, target = method.init(4), np.zeros((4, 4))
    for t in range(4):
        # Norms spread over three decades, and a common part, so that targets become positive.
        rows = (random_rows(4, t) + 0.7) * np.array([1.0, 10.0, 0.01, 1.0])[:, None]
        key = jax.random.key(t)
        weights, state = step(method, rows, state, key=key)
        order = np.asarray(random_order(key, jnp.ones(4, bool)))
        expected, target = vaccinate(rows, order, target, 0.5, follow_all)
        np.testing.assert_allclose(np.asarray(weights) @ rows, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(state.inner.target, target, atol=1e-5)
    # Corrections upwards to a positive target have taken place, or this test says nothing.
    assert follow_all == (target.max() > 0.1)


def test_gradvac_reaches_the_cosine_asked_for():
    rows, method = random_rows(2, 3), gradvac(beta=0.0)
    state = method.init(2)
    state = state._replace(inner=state.inner._replace(target=jnp.full((2, 2), 0.6)))
    weights, _ = step(method, rows, state)
    first, second = np.asarray(weights) - 1.0
    cosine = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)  # noqa: E731
    assert cosine(rows[0] + second * rows[1], rows[1]) == pytest.approx(0.6, abs=1e-5)
    assert cosine(rows[1] + first * rows[0], rows[0]) == pytest.approx(0.6, abs=1e-5)


def test_gradvac_without_memory_is_pcgrad():
    rows, key, method = random_rows(5, 2, width=4), jax.random.key(1), gradvac(beta=0.0)
    state, expected = method.init(5), step(pcgrad(), rows, key=key)[0]
    for _ in range(2):
        weights, state = step(method, rows, state, key=key)
        np.testing.assert_allclose(weights, expected, rtol=2e-4, atol=2e-4)
    np.testing.assert_array_equal(state.inner.target, 0)


def test_gradvac_survives_identical_and_opposed_tasks():
    method, rows = gradvac(beta=1.0), random_rows(1)
    for sign in (1.0, -1.0):
        state = method.init(2)
        for _ in range(4):
            weights, state = step(method, np.concatenate([rows, sign * rows]), state)
            assert np.isfinite(np.asarray(state.inner.target)).all()
            # Identical tasks stay the sum; of opposed ones nothing is left, each being turned to a right angle.
            length = np.linalg.norm(np.asarray(weights, np.float64) @ np.concatenate([rows, sign * rows]))
            assert length == pytest.approx((1.0 + sign) * np.linalg.norm(rows), abs=1e-3)


# --- DualProj ---


@pytest.mark.parametrize("preference", [None, pytest.param([0.2, 3.0, 0.0, 1.0], marks=pytest.mark.slow)])
def test_dualproj_is_the_projection(preference):
    method = METHODS["dualproj"] if preference is None else dualproj(preference=preference)
    for seed in range(3):
        rows = random_rows(4, seed)
        target = (np.full(4, 0.25) if preference is None else np.asarray(preference)) @ rows
        x = cp.Variable(8)
        cp.Problem(cp.Minimize(cp.sum_squares(x - target)), [rows @ x >= 0]).solve(solver="CLARABEL")
        np.testing.assert_allclose(direction(method, rows), x.value, atol=2e-4)


def test_dualproj_leaves_a_mean_that_hurts_nobody():
    rows = np.abs(random_rows(4))
    np.testing.assert_allclose(direction(METHODS["dualproj"], rows), rows.mean(0), rtol=1e-5)


@pytest.mark.slow
def test_dualproj_of_one_task_is_its_part_of_upgrad():
    rows, second = random_rows(4), np.eye(4)[1]
    expected = direction(upgrad(preference=second), rows)
    np.testing.assert_allclose(direction(dualproj(preference=second), rows), expected, atol=1e-5)


@pytest.mark.parametrize("make", [pcgrad, gradvac])
def test_the_mean_is_over_the_tasks_that_take_part(make):
    method = make(mean=True)
    active = jnp.array([True, True, False])
    weights, _ = method.update(jnp.eye(3), method.init(3), active=active, key=jax.random.key(0))
    np.testing.assert_allclose(weights, [0.5, 0.5, 0.0], atol=1e-6)
