"""Tests of `epo`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from mtljax.methods.from_gramian.epo import epo
from tests.methods.steps.gramian import random_rows, step


def epo_oracle(gramian, losses, r, relax=False, eps=1e-4):
    """The authors' problem in float64, by scipy."""
    count, rl = len(losses), r * losses
    share = rl / rl.sum()
    mu = np.sum(share * np.log(share * count))
    a = r * (np.log(share * count) - mu)
    push = gramian @ a
    if mu > eps:
        lower = np.where(push > 0, -np.inf, push) if (push > 0).any() else np.zeros(count)
        lower[rl == rl.max()] = 0
        cost, rows = push, gramian
    else:
        cost, rows, lower = gramian.sum(0), gramian, np.zeros(count)
        if not relax:
            rows, lower = np.vstack([gramian, push]), np.append(lower, min(push.max(), 0))
    kept = np.isfinite(lower)
    found = linprog(-cost, A_ub=-rows[kept], b_ub=-lower[kept], A_eq=np.ones((1, count)), b_eq=[1.0])
    return found.x, cost


@pytest.mark.parametrize("mode", ["balance", "descend", "relax"])
def test_epo_solves_the_problem_of_its_authors(mode):
    method = epo([1.0, 2.0, 0.5, 1.0], relax=mode == "relax")
    r, solved = np.array([1.0, 2.0, 0.5, 1.0]), 0
    for seed in range(6):
        generator = np.random.default_rng(seed)
        rows = random_rows(4, seed) * generator.uniform(0.2, 3.0, (4, 1))
        noise = 1.0 if mode == "balance" else 1e-3
        losses = np.exp(noise * generator.normal(size=4)) / r
        weights, state = step(method, rows, losses=jnp.asarray(losses, jnp.float32))
        expected, cost = epo_oracle(rows @ rows.T, losses, r, relax=mode == "relax")
        found = np.asarray(weights, np.float64)
        assert found.min() >= 0 and found.sum() == pytest.approx(1.0, abs=1e-5)
        if expected is None:
            # No weights satisfy the constraints, which only the last one of the descending mode can bring about.
            assert mode == "descend" and float(state.residual) > 0
            continue
        solved += 1
        assert cost @ found == pytest.approx(cost @ expected, abs=1e-3 * np.abs(cost).max())
        np.testing.assert_allclose(found, expected, atol=2e-3)
        assert float(state.residual) < 1e-4
    assert solved >= 4


def test_epo_finds_the_point_asked_for():
    # Two parabolas whose Pareto front is the segment between their feet.
    feet, r = jnp.array([[1.0, 0.0], [-1.0, 0.0]]), jnp.array([1.0, 4.0])
    method = epo(r)

    def body(carry, _):
        x, state = carry
        losses, rows = jnp.sum((x[None, :] - feet) ** 2, axis=1), 2.0 * (x[None, :] - feet)
        weights, state = method.update(rows @ rows.T, state, losses=losses)
        return (x - 0.02 * weights @ rows, state), losses

    start = (jnp.array([0.6, 0.8]), method.init(2))
    (x, _), losses = jax.jit(lambda start: jax.lax.scan(body, start, None, length=400))(start)
    np.testing.assert_allclose(x, [-1 / 3, 0.0], atol=0.02)
    assert float(losses[-1, 0] / losses[-1, 1]) == pytest.approx(4.0, rel=0.1)
