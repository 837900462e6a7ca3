"""The shortest vector of the convex hull against a float64 oracle."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.solvers import TRUSTED, min_norm
from tests.solvers import references
from tests.solvers.solver_problems import FAMILIES, HARD, gramian, jacobian, norms_of, rounding

solve = jax.jit(min_norm)
# Of the sum of |w_i g_i|: what the rounding of a Gramian may do to a direction.
ROUNDING = 2.0**-11


def check(rows, scale=1.0):
    rows = rows * scale
    weights, residual = map(np.asarray, solve(gramian(rows)))
    assert weights.dtype == residual.dtype == np.float32
    assert (weights >= 0).all() and abs(weights.sum() - 1) < 1e-6
    weights = weights.astype(float)
    best = references.mgda(rows)
    direction, exact = weights @ rows, best @ rows
    norms, least = norms_of(rows)
    size, length, error = (np.linalg.norm(x) for x in (direction, exact, direction - exact))
    noise = ROUNDING * best @ norms
    assert error <= max(1e-3 * length, noise)
    assert size <= least * (1 + 1e-6) and size <= length * (1 + 5e-6) + noise
    assert np.min(rows @ direction + (1e-4 * size + noise) * norms) >= 0
    assert residual == 1 or error <= (residual + 1e-9) * size
    if residual <= TRUSTED:
        # Only here: of a direction that has all but cancelled, the ridge takes more than rounding the weights does.
        assert error <= 1e-3 * length + rounding(weights, norms)
        assert size <= length * (1 + 5e-6) + rounding(weights, norms)
        assert np.min(rows @ direction + (1e-4 * size + rounding(weights, norms)) * norms) >= 0
    assert residual == 1 or size == 0 or size >= 2.0**-9 * weights @ norms


@pytest.mark.parametrize("family", FAMILIES + HARD)
@pytest.mark.parametrize("num_tasks", [2, 8, 32])
def test_direction_is_exact(family, num_tasks):
    for seed in range(4):
        check(jacobian(family, num_tasks, seed))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES + HARD)
@pytest.mark.parametrize("num_tasks", [3, 16, 64, 128])
def test_direction_is_exact_with_many_tasks(family, num_tasks):
    for seed in range(4):
        check(jacobian(family, num_tasks, seed))


@pytest.mark.parametrize("exponent", [-40, 40])
def test_direction_is_exact_at_any_scale(exponent):
    for family in FAMILIES + HARD:
        check(jacobian(family, 8, 11), 2.0**exponent)


@pytest.mark.parametrize("scale", [1e-12, 1e-8, 1e-3, 1e3, 1e8, 1e12])
def test_weights_do_not_depend_on_scale(scale):
    rows = jacobian("conflict", 8, 0)
    plain = solve(jnp.asarray(rows @ rows.T, jnp.float32)).weights
    scaled = solve(jnp.asarray(scale**2 * rows @ rows.T, jnp.float32)).weights
    np.testing.assert_allclose(scaled, plain, atol=2e-6)


def test_golden_values():
    rows = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    np.testing.assert_allclose(solve(gramian(rows)).weights @ rows, [0, 1, 1], atol=1e-6)
    np.testing.assert_allclose(solve(jnp.diag(jnp.array([1.0, 2.0, 4.0]))).weights, np.array([4, 2, 1]) / 7, atol=1e-6)
    assert solve(jnp.array([[1.0, 2.0], [2.0, 9.0]])).weights.tolist() == [1.0, 0.0]


def test_zero_gradients_take_the_weight():
    assert solve(jnp.diag(jnp.array([0.0, 2.0, 0.0]))).weights.tolist() == [0.5, 0.0, 0.5]
    assert solve(jnp.zeros((4, 4))).weights.tolist() == [0.25] * 4
    assert solve(jnp.array([[3.0]])).weights.tolist() == [1.0]
    assert solve(jnp.eye(2), active=jnp.zeros(2, bool)).weights.tolist() == [0.0, 0.0]


def test_kkt():
    rows = jacobian("conflict", 8, 3)
    weights = np.asarray(solve(gramian(rows)).weights, float)
    pull = rows @ (weights @ rows)
    least = weights @ pull
    assert (pull >= least * (1 - 1e-5)).all()
    np.testing.assert_allclose(pull[weights > 0], least, rtol=1e-5)


def test_inactive_is_absent_and_not_read():
    rows = jacobian("conflict", 6, 0)
    keep = np.array([True, False, True, True, False, True])
    whole = gramian(rows)
    whole[~keep] = np.nan
    whole[:, ~keep] = np.nan
    found = solve(whole, active=keep)
    alone = solve(gramian(rows[keep]))
    np.testing.assert_allclose(found.weights[keep], alone.weights, atol=1e-6)
    assert (np.asarray(found.weights)[~keep] == 0).all()


def test_transformations():
    stack = jnp.stack([gramian(jacobian(family, 8, 0)) for family in ("random", "conflict", "spread", "zero_row")])
    one_by_one = jnp.stack([solve(matrix).weights for matrix in stack])

    def both(matrix):
        weights = min_norm(matrix).weights
        return jnp.sum(weights @ matrix), weights

    slopes, weights = jax.jit(jax.vmap(jax.grad(both, has_aux=True)))(stack)
    np.testing.assert_allclose(weights, one_by_one, atol=1e-5)
    assert jnp.isfinite(slopes).all()
    assert solve(stack[0].astype(jnp.bfloat16)).weights.dtype == jnp.float32


def test_nothing_calls_the_host():
    assert "callback" not in str(jax.make_jaxpr(min_norm)(jnp.eye(3)))


def test_mistakes():
    with pytest.raises(ValueError, match=r"gramian must be a square matrix .* found shape \(2, 3\)"):
        min_norm(jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"active must have shape \(2,\) .* found \(3,\)"):
        min_norm(jnp.eye(2), active=jnp.ones(3, bool))
