"""Tests of `excess_mtl`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_jacobian import excess_mtl
from tests.methods.steps.jacobian import STATEFUL, draw, run


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("raw", [True, False])
def test_excess_mtl_by_hand(mean, raw):
    rows = draw(4, 3, 5).astype(np.float64)
    method = excess_mtl(step_size=0.3, eps=0.01, relative_from_first=not raw, mean=mean)
    found, weights, _ = run(method, rows.astype(np.float32))
    squares, share, first = np.zeros((3, 5)), np.full(3, 1 / 3), None
    for step in range(4):
        squares += rows[step] ** 2
        excess = (rows[step] ** 2 / np.sqrt(squares + 0.01)).sum(axis=1)
        first = excess if first is None else first
        ratio = excess if raw and step == 0 else excess / first
        share = share * np.exp(0.3 * ratio)
        share /= share.sum()
        expected = share if mean else 3 * share
        np.testing.assert_allclose(weights[step], expected, rtol=1e-5)
        np.testing.assert_allclose(found[step], expected @ rows[step], rtol=1e-4, atol=1e-6)


def test_excess_mtl_does_not_know_units():
    rows = draw(4, 3, 6)
    method = STATEFUL["excess_mtl"]
    _, weights, _ = run(method, rows)
    for scale in (1e-24, 1e12):
        scaled = rows * np.array([1.0, 1e-3, 1e2], np.float32)[:, None] * np.float32(scale)
        np.testing.assert_allclose(run(method, scaled)[1], weights, rtol=1e-4)


def test_excess_mtl_holds_an_absent_tasks_share():
    rows, active, method = draw(3, 3, 6), np.ones((3, 3), bool), STATEFUL["excess_mtl"]
    active[1, 2] = False
    _, weights, state = run(method, rows, active=active)
    np.testing.assert_allclose(weights[0], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(weights[1].sum(), 1.0, rtol=1e-6)
    middle = run(method, rows[:2], active=active[:2])[2].inner.log_weights
    np.testing.assert_allclose(middle[2], 0.0)
    np.testing.assert_allclose(np.exp(middle[:2]).sum(), 2.0, rtol=1e-5)
    assert np.isfinite(state.inner.log_weights).all()


def test_excess_mtl_waits_for_the_first_gradient():
    rows = draw(3, 2, 5)
    rows[0, 1] = 0
    _, weights, state = run(STATEFUL["excess_mtl"], rows)
    np.testing.assert_allclose(weights[0], 0.5)
    np.testing.assert_allclose(state.inner.first, np.abs([rows[0, 0], rows[1, 1]]).sum(axis=1), rtol=1e-5)


def test_excess_mtl_does_not_starve_the_others_after_one_enormous_gradient():
    method = excess_mtl()
    update, rows = jax.jit(method.update), jnp.asarray(draw(3, 4))
    state = method.init(3, rows[0])
    for step in range(4):
        _, state = update(rows.at[0].multiply(1e18 if step == 2 else 1.0), state)
    assert (state.weights > 0.1).all()
