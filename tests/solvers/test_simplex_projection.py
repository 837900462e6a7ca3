"""Projection onto the simplex, shares of tasks that come and go, and the shortest combination near a direction."""

from __future__ import annotations

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np

from mtljax.solvers.simplex_projection import among_active, back_among_all, project_simplex
from tests.methods.steps.descent import onto_simplex, towards
from tests.methods.steps.gramian import (
    random_rows,
)


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
