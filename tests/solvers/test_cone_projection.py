"""Projections on the dual cone against a float64 oracle."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.solvers import TRUSTED, cone_projection
from tests.solvers import references
from tests.solvers.solver_problems import FAMILIES, HARD, gramian, jacobian, norms_of, rounding

solve = jax.jit(cone_projection)
# Of the sum of |v_i g_i|: what the rounding of a Gramian may do to a direction.
ROUNDING = 2.0**-11


def check(rows, lower, scale=1.0):
    rows = rows * scale
    weights, residual = map(np.asarray, solve(gramian(rows), lower.astype(np.float32)))
    assert weights.shape == lower.shape and np.isfinite(weights).all()
    norms, _ = norms_of(rows)
    for found, bound, uncertain in zip(weights.astype(float), lower, residual, strict=True):
        assert (found >= bound.astype(np.float32)).all()
        best = references.projection(rows, bound)
        direction, exact = found @ rows, best @ rows
        size, length, error = (np.linalg.norm(x) for x in (direction, exact, direction - exact))
        noise = ROUNDING * np.abs(best) @ norms
        conflict = -np.min(rows @ direction / np.where(norms > 0, norms, 1.0))
        assert error <= max(1e-3 * length, noise)
        assert conflict <= 1e-4 * size + 2.0**-21 * np.abs(found) @ norms
        assert uncertain == 1 or error <= (uncertain + 1e-9) * size
        if uncertain <= TRUSTED:
            # Only here: of a direction that has all but cancelled, the ridge takes more than rounding the weights does.
            assert error <= 1e-3 * length + rounding(found, norms)
            assert size <= length * (1 + 5e-6) + rounding(found, norms)
        assert uncertain == 1 or size == 0 or size >= 2.0**-9 * np.abs(found) @ norms
        assert size <= np.linalg.norm(bound @ rows) * (1 + 1e-6) + ROUNDING * np.abs(bound) @ norms


@pytest.mark.parametrize("family", FAMILIES + HARD)
@pytest.mark.parametrize("num_tasks", [2, 8])
def test_projected_rows_are_exact(family, num_tasks):
    for seed in range(3):
        check(jacobian(family, num_tasks, seed), np.eye(num_tasks))


@pytest.mark.parametrize("family", FAMILIES + HARD)
def test_projected_mean_is_exact(family):
    for seed in range(3):
        check(jacobian(family, 32, seed), np.full((1, 32), 1 / 32))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES + HARD)
def test_many_tasks(family):
    check(jacobian(family, 32, 0), np.eye(32))
    for seed in range(3):
        check(jacobian(family, 128, seed), np.full((1, 128), 1 / 128))


@pytest.mark.slow
def test_more_tasks_than_dimensions():
    rows = np.random.default_rng(0).integers(-40, 41, size=(100, 11)).astype(float)
    check(rows, np.eye(100))


@pytest.mark.parametrize("exponent", [-40, 40])
def test_any_scale(exponent):
    for family in FAMILIES + HARD:
        check(jacobian(family, 8, 5), np.eye(8), 2.0**exponent)


def test_golden_values():
    rows = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    upgrad = solve(gramian(rows), jnp.eye(2)).weights.mean(0) @ rows
    np.testing.assert_allclose(upgrad, [0.29240, 1.90058, 1.90058], atol=1e-5)
    dualproj = solve(gramian(rows), jnp.full(2, 0.5)).weights @ rows
    np.testing.assert_allclose(dualproj, [0.55556, 1.11111, 1.11111], atol=1e-5)


def test_no_conflict_leaves_lower_alone():
    lower = jnp.array([0.25, 0.5, 0.75])
    assert solve(jnp.eye(3) + 0.5, lower).weights.tolist() == lower.tolist()
    assert solve(jnp.zeros((3, 3)), lower).weights.tolist() == lower.tolist()
    assert solve(jnp.zeros((3, 3)), lower).residual == 0
    # A residual for each projection.
    assert solve(jnp.eye(3), jnp.eye(3)).residual.shape == (3,)


def test_inactive_is_absent_and_not_read():
    rows = jacobian("conflict", 6, 0)
    keep = np.array([True, False, True, True, False, True])
    whole = gramian(rows)
    whole[~keep] = np.nan
    whole[:, ~keep] = np.nan
    found = np.asarray(solve(whole, jnp.eye(6), active=keep).weights)
    alone = solve(gramian(rows[keep]), jnp.eye(4)).weights
    np.testing.assert_allclose(found[keep][:, keep], alone, atol=1e-6)
    assert (found[:, ~keep] == 0).all() and (found[~keep] == 0).all()


def test_transformations():
    stack = jnp.stack([gramian(jacobian(family, 8, 0)) for family in ("random", "conflict", "spread", "zero_row")])
    lower = jnp.eye(8)
    one_by_one = jnp.stack([solve(matrix, lower).weights for matrix in stack])

    def both(matrix):
        weights = cone_projection(matrix, lower).weights
        return jnp.sum(weights @ matrix), weights

    slopes, weights = jax.jit(jax.vmap(jax.grad(both, has_aux=True)))(stack)
    np.testing.assert_allclose(weights, one_by_one, rtol=1e-4, atol=1e-5)
    assert jnp.isfinite(slopes).all()
    row = solve(stack[1], lower[0])
    assert row.weights.shape == (8,)
    np.testing.assert_allclose(row.weights, one_by_one[1, 0], rtol=1e-5)


def test_mistakes():
    with pytest.raises(ValueError, match=r"lower must have shape \[T\] or \[K, T\] .* found \(3,\)"):
        cone_projection(jnp.eye(2), jnp.ones(3))
