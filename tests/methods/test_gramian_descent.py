"""GradNorm, SDMGrad and MoDo: recurrences by hand, autodiff of their formulas, oracles."""

from __future__ import annotations

import functools

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtljax.methods.from_gramian.gradnorm import gradnorm
from mtljax.methods.from_gramian.modo import modo
from mtljax.methods.from_gramian.sdmgrad import sdmgrad
from mtljax.solvers.simplex_projection import among_active, back_among_all, project_simplex
from mtljax.solvers.towards import min_norm_towards
from tests.methods.gramian_steps import (
    PLAIN,
    ROWS,
    STATEFUL,
    direction,
    random_rows,
    step,
)

# --- GradNorm ---


@pytest.mark.parametrize("softmax", [False, True])
def test_gradnorm_follows_the_gradient_of_its_formula(softmax):
    method = gradnorm(0.7, optimizer=optax.sgd(0.03), softmax=softmax, normalize=False)
    state, parameter = method.init(3), jnp.zeros(3) if softmax else jnp.ones(3)
    first = None
    for t in range(3):
        rows = random_rows(3, t) * np.array([1.0, 3.0, 0.5])[:, None]
        losses = jnp.asarray(np.random.default_rng(t).uniform(0.5, 2.0, 3), jnp.float32)
        first = losses if first is None else first
        change = losses / first
        rate, norms = change / change.mean(), jnp.asarray(np.linalg.norm(rows, axis=1), jnp.float32)

        def weights_of(p):
            return 3 * jax.nn.softmax(p) if softmax else p

        def formula(p, rate=rate, norms=norms):
            weighted = weights_of(p) * norms
            return jnp.abs(weighted - jax.lax.stop_gradient(weighted.mean() * rate**0.7)).sum()

        weights, state = step(method, rows, state, losses=losses)
        np.testing.assert_allclose(weights, weights_of(parameter), rtol=1e-5)
        parameter = parameter - 0.03 * jax.grad(formula)(parameter)
        if not softmax:
            parameter = 3 * parameter / parameter.sum()
        assert float(jnp.min(weights_of(parameter))) > 0
        np.testing.assert_allclose(state.inner.weight, parameter, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state.inner.first_loss, first)


def test_gradnorm_two_steps_by_hand():
    # Norms 2 and 1, so N = 1.5; the gradient over N is (2, -1) / 1.5, and the step 0.3 of it.
    method = gradnorm(1.0, optimizer=optax.sgd(0.3))
    gramian = jnp.diag(jnp.array([4.0, 1.0]))
    first, state = method.update(gramian, method.init(2), losses=jnp.array([2.0, 5.0]))
    np.testing.assert_allclose(first, [1.0, 1.0])
    moved = np.array([1.0 - 0.4, 1.0 + 0.2])
    second, state = method.update(gramian, state, losses=jnp.array([1.0, 5.0]))
    np.testing.assert_allclose(second, moved * 2 / 1.8, rtol=1e-6)
    # Task 0 has halved its loss: rates 2/3 and 4/3, weighted norms 4/3 each, wanted 8/9 and 16/9.
    moved = second - 0.3 * np.array([2.0, -1.0]) / (4 / 3)
    third, _ = method.update(gramian, state, losses=jnp.array([1.0, 1.0]))
    np.testing.assert_allclose(third, moved * 2 / moved.sum(), rtol=1e-5)


def test_gradnorm_options_and_edges():
    gramian = jnp.diag(jnp.array([4.0, 1.0, 1.0]))
    known = gradnorm(initial_losses=[1.0, 2.0, 3.0])
    _, state = known.update(gramian, known.init(3), losses=jnp.ones(3))
    np.testing.assert_array_equal(state.inner.first_loss, [1.0, 2.0, 3.0])
    # A large step stops at 0, and weights that are all 0 start again.
    wild = gradnorm(optimizer=optax.sgd(100.0))
    state = wild.init(3)
    for losses in (jnp.ones(3), jnp.array([0.0, 0.0, 2.0]), jnp.zeros(3)):
        weights, state = wild.update(gramian, state, losses=losses)
        assert (np.asarray(weights) >= 0).all() and float(weights.sum()) == pytest.approx(3.0, rel=1e-5)
    # Equal norms and rates are balanced: nothing moves, whatever the rounding of the mean.
    weights, state = step(STATEFUL["gradnorm"], np.full((4, 2), 0.1), losses=np.ones(4))
    np.testing.assert_array_equal(state.inner.weight, 1.0)


def test_gradnorm_does_not_depend_on_scale():
    rows, losses, method = random_rows(4), np.array([1.0, 2.0, 3.0, 1.0]), STATEFUL["gradnorm"]
    states = {}
    for scale in (1.0, 1e-12, 1e12):
        state = method.init(4)
        for t in range(3):
            weights, state = step(method, scale * rows, state, losses=losses * (1 + t * np.arange(4)))
        states[scale] = np.asarray(weights)
    assert abs(states[1.0] - 1.0).max() > 0.01
    np.testing.assert_allclose(states[1e-12], states[1.0], rtol=1e-5)
    np.testing.assert_allclose(states[1e12], states[1.0], rtol=1e-5)


# --- SDMGrad and MoDo ---


def onto_simplex(y):
    """By the threshold at which the positive parts sum to 1, found by bisection."""
    low, high = y.min() - 1.0, y.max()
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.maximum(y - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(y - low, 0)


def test_projection_onto_the_simplex():
    project = jax.jit(lambda y, active: project_simplex(y, active=active))
    everyone = jnp.ones(5, bool)
    for seed in range(5):
        y = np.random.default_rng(seed).normal(size=5) * 10.0 ** (seed - 2)
        np.testing.assert_allclose(project(jnp.asarray(y, jnp.float32), everyone), onto_simplex(y), atol=2e-5)
    y = jnp.array([jnp.nan, 0.3, -1e30, 0.5, 1e20])
    active = jnp.array([False, True, True, True, False])
    np.testing.assert_allclose(project(y, active), [0, 0.4, 0, 0.6, 0], atol=1e-6)
    np.testing.assert_array_equal(project(y, ~everyone), 0.0)
    np.testing.assert_allclose(project(jnp.array([1e9, 1e9, 0.0, 0.0, 0.0]), everyone), [0.5, 0.5, 0.0, 0.0, 0.0])


def test_shares_of_tasks_that_come_and_go():
    share, active = jnp.array([0.5, 0.0, 0.5]), jnp.array([False, True, True])
    np.testing.assert_array_equal(among_active(share, active), [0.0, 0.0, 1.0])
    moved = jnp.array([0.0, 0.5, 0.5])
    np.testing.assert_array_equal(back_among_all(moved, share, active), [0.5, 0.25, 0.25])
    lost = jnp.array([1.0, 0.0, 0.0])
    np.testing.assert_array_equal(among_active(lost, active), [0.0, 0.5, 0.5])
    again = among_active(back_among_all(moved, lost, active), active)
    np.testing.assert_allclose(again, moved)


def test_sdmgrad_is_its_recurrence():
    preference = np.array([0.5, 1.0, 2.5])
    method = sdmgrad(pull=0.4, steps=3, rate=0.3, preference=preference)
    state, w, p = method.init(3), np.full(3, 1 / 3), preference / 4
    for t in range(3):
        # Two independent batches: what is given need not be symmetric.
        gramian = random_rows(3, t) @ random_rows(3, t + 10).T + 2 * np.eye(3)
        unit = np.mean(np.sqrt(np.abs(np.diag(gramian)))) ** 2
        velocity = np.zeros(3)
        for _ in range(3):
            velocity = 0.5 * velocity + gramian / unit @ (w + 0.4 * p)
            w = onto_simplex(w - 0.3 * velocity)
        weights, state = method.update(jnp.asarray(gramian, jnp.float32), state)
        np.testing.assert_allclose(weights, (w + 0.4 * p) / 1.4, atol=1e-5)
        np.testing.assert_allclose(state.inner.share, w, atol=1e-5)


@functools.cache
def towards():
    return jax.jit(lambda gramian, reference, share: min_norm_towards(gramian, reference, share).weights)


def test_min_norm_towards_is_the_optimum():
    rows, p = random_rows(4, 5) * np.array([1.0, 2.0, 0.5, 1.0])[:, None], np.array([0.1, 0.2, 0.3, 0.4])
    gramian = jnp.asarray(rows @ rows.T, jnp.float32)
    for share in (0.0, 0.2, 0.8, 1.0):
        w = cp.Variable(4)
        objective = cp.sum_squares((1 - share) * rows.T @ w + share * p @ rows)
        cp.Problem(cp.Minimize(objective), [w >= 0, cp.sum(w) == 1]).solve(solver="CLARABEL")
        found = towards()(gramian, jnp.asarray(p, jnp.float32), jnp.float32(share))
        expected = (1 - share) * rows.T @ w.value + share * p @ rows
        np.testing.assert_allclose(np.asarray(found) @ rows, expected, atol=1e-4)


@pytest.mark.slow
def test_sdmgrad_exact_is_that_and_many_steps_go_there():
    rows = random_rows(4, 5)
    gramian = jnp.asarray(rows @ rows.T, jnp.float32)
    expected = np.asarray(towards()(gramian, jnp.full(4, 0.25), jnp.float32(0.3 / 1.3))) @ rows
    np.testing.assert_allclose(direction(sdmgrad(pull=0.3, steps=None), rows), expected, atol=1e-5)
    np.testing.assert_allclose(direction(sdmgrad(pull=0.3, steps=500, rate=0.1), rows), expected, atol=1e-3)


def test_modo_is_its_recurrence():
    method = modo(gamma=0.05, rho=0.2)
    state, share = method.init(3), np.full(3, 1 / 3)
    for t in range(3):
        gramian = random_rows(3, t) @ random_rows(3, t + 10).T + 2 * np.eye(3)
        share = onto_simplex(share - 0.05 * (gramian @ share + 0.2 * share))
        weights, state = method.update(jnp.asarray(gramian, jnp.float32), state)
        np.testing.assert_allclose(weights, share, atol=1e-5)
    np.testing.assert_allclose(step(modo(gamma=0.0), ROWS)[0], [0.5, 0.5])


@pytest.mark.slow
def test_modo_goes_to_the_shortest_combination():
    rows, method = random_rows(4, 2), modo(gamma=0.1, normalize=True)
    gramian = jnp.asarray(rows @ rows.T, jnp.float32)
    _, weights = jax.lax.scan(lambda s, _: method.update(gramian, s)[::-1], method.init(4), None, length=400)
    np.testing.assert_allclose(np.asarray(weights[-1]) @ rows, direction(PLAIN, rows), atol=1e-3)
