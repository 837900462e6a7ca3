"""Tests of `gradvac`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_gramian.common import random_order
from mtljax.methods.from_gramian.gradvac import gradvac
from mtljax.methods.from_gramian.pcgrad import pcgrad
from tests.methods.steps.gramian import random_rows, step


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
    method = gradvac(beta=0.4, follow_all=follow_all)
    state, target = method.init(4), np.zeros((4, 4))
    for t in range(4):
        # Norms spread over three decades, and a common part, so that targets become positive.
        rows = (random_rows(4, t) + 0.7) * np.array([1.0, 10.0, 0.01, 1.0])[:, None]
        key = jax.random.key(t)
        weights, state = step(method, rows, state, key=key)
        order = np.asarray(random_order("gradvac", key, jnp.ones(4, bool)))
        expected, target = vaccinate(rows, order, target, 0.4, follow_all)
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
