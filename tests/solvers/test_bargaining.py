"""The bargaining fixed point against a float64 oracle."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import root

from mtljax.solvers.bargaining import bargaining
from mtljax.solvers.cone_projection import cone_projection
from tests.solvers.solver_problems import FAMILIES, gramian, jacobian, norms_of

ROUNDING = 2.0**-22


@functools.cache
def compiled(alpha):
    return jax.jit(lambda stack, shares: jax.vmap(lambda g: bargaining(g, shares=shares, alpha=alpha))(stack))


def solve(stack, alpha=1.0, shares=None):
    stack = np.stack(stack)
    shares = np.ones(stack.shape[1]) if shares is None else shares
    found = compiled(alpha)(jnp.asarray(stack, jnp.float32), jnp.asarray(shares, jnp.float32))
    return np.asarray(found.weights, np.float64), np.asarray(found.residual, np.float64)


@jax.jit
def padded(whole, mask):
    return bargaining(whole, active=mask)


def one(rows, places=None):
    """The Nash weights of up to 8 tasks, put at some places among 8 of which the others are absent and NaN."""
    places = np.arange(len(rows)) if places is None else np.asarray(places)
    whole = np.full((8, 8), np.nan, np.float32)
    whole[np.ix_(places, places)] = rows @ rows.T
    mask = np.zeros(8, bool)
    mask[places] = True
    found = padded(whole, mask)
    assert not np.asarray(found.weights)[~mask].any()
    return np.asarray(found.weights, np.float64)[places], float(found.residual)


def exact(rows, shares, alpha, limit=200):
    """Weights by Newton's method on `|sum w g|^2 / 2 - sum of utilities` with exact line searches, or None.

    Written in the weights of the unit gradients and not along the curves of the solver.
    """
    norms, _ = norms_of(rows)
    keep = norms > 0
    weights = np.zeros(len(rows))
    if not keep.any():
        return weights
    unit = rows[keep] / norms[keep, None]
    matrix, p = unit @ unit.T, 1.0 / alpha
    log_b = p * np.log(shares[keep]) + (p - 1.0) * np.log(norms[keep])
    shift = log_b.mean() / (p + 1.0)
    log_b = log_b - (p + 1.0) * shift
    z = np.exp(log_b / (p + 1.0))
    for _ in range(limit):
        demand = np.exp(log_b - p * np.log(z)) * z
        hessian = z[:, None] * matrix * z + np.diag(p * demand)
        slope = demand - z * (unit @ (unit.T @ z))
        try:
            step = np.linalg.solve(hessian, slope)
        except np.linalg.LinAlgError:
            return None
        fall = step @ slope
        if fall <= 1e-20 * demand.sum():
            weights[keep] = z / norms[keep] * np.exp(shift)
            return weights
        if fall < 0 or z.max() > 1e7:
            return None
        curve = step @ (z[:, None] * matrix * z) @ step
        low, high = 0.0, min(1.0 / max(-step.min(), 1e-3), 100.0)
        for _ in range(50):
            middle = 0.5 * (low + high)
            with np.errstate(divide="ignore", over="ignore"):
                rise = -fall + middle * curve + np.sum(demand * step * (1.0 - (1.0 + middle * step) ** -p))
            low, high = (middle, high) if rise < 0 else (low, middle)
        z = z * (1.0 + low * step)
    return None


def objective(rows, weights, shares, alpha):
    keep = weights > 0
    c, w, p = shares[keep], weights[keep], 1.0 / alpha
    utility = c @ np.log(w) if alpha == 1 else np.sum(c**p * w ** (1.0 - p)) / (1.0 - p)
    return 0.5 * np.sum((weights @ rows) ** 2) - utility


def check(problems, alpha=1.0, shares=None):
    weights, residuals = solve([gramian(rows) for rows in problems], alpha, shares)
    assert np.isfinite(weights).all() and (weights >= 0).all()
    solved = 0
    for rows, found, residual in zip(problems, weights, residuals, strict=True):
        c = np.ones(len(rows)) if shares is None else np.asarray(shares, float)
        norms, _ = norms_of(rows)
        assert (found[norms == 0] == 0).all()
        assert 0 <= residual <= 1
        best = exact(rows, c, alpha)
        direction, size = found @ rows, found @ norms
        # Bounded, stationary or not.
        assert (found * norms).max() <= 2.0**13 * np.sqrt(c.sum()) or alpha != 1
        if best is None:
            assert residual == 1
            continue
        wanted = best @ rows
        length, error = np.linalg.norm(wanted), np.linalg.norm(direction - wanted)
        noise = ROUNDING * size
        assert error <= residual * np.linalg.norm(direction) + noise or residual == 1
        if length >= 1e-3 * (best @ norms) and length > 0:
            solved += 1
            assert error <= 1e-3 * length
            gap = objective(rows, found, c, alpha) - objective(rows, best, c, alpha)
            assert gap <= 1e-5 * length**2
            assert (rows @ direction >= -1e-4 * norms * np.linalg.norm(direction)).all()
            # With very uneven shares the certificate is cautious, as documented. Gramians here are exact, but the
            # solver has to take them for rounded. An error e of the gains over lengths moves d by the root of
            # sum_i e_i^2 alpha z_i / s_i, for z = w |g| and gains s over lengths, and e is 2^-22 |z|. The solver's
            # lengths are powers of two above the norms, which make of that 4 times as much at most.
            gains = rows @ direction
            if shares is None and (gains[norms > 0] > 0).all():
                z, s = (found * norms)[norms > 0], (gains / np.where(norms > 0, norms, 1.0))[norms > 0]
                moved = 2.0**-22 * np.linalg.norm(z) * np.sqrt(alpha * np.sum(z / s))
                assert residual <= 4.0 * moved / np.linalg.norm(direction) + 2.0**-15
    return solved


@pytest.mark.parametrize("num_tasks", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 32))])
def test_nash_is_exact(num_tasks):
    solved = check([jacobian(family, num_tasks, seed) for family in FAMILIES for seed in range(3)])
    assert solved >= 30


@pytest.mark.parametrize("alpha", [2.0, pytest.param(0.5, marks=pytest.mark.slow)])
def test_other_fairness_is_exact(alpha):
    solved = check([jacobian(family, 8, seed) for family in FAMILIES for seed in range(3)], alpha)
    assert solved >= 30


@pytest.mark.parametrize("alpha", [0.1, 10.0])
def test_extreme_fairness_is_exact(alpha):
    # The oracle's steps are too short for the other families at alpha = 10.
    families = ("random", "conflict", "common", "duplicate", "zero_row", "collinear", "near_stationary")
    assert check([jacobian(family, 3, seed) for family in families for seed in range(3)], alpha) >= 15


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_many_tasks(alpha):
    check([jacobian(family, 32, seed) for family in FAMILIES for seed in range(3)], alpha)
    check([jacobian(family, 128, seed) for family in FAMILIES for seed in range(2)], alpha)


def test_any_scale():
    # As many problems as above, which is to say the same trace.
    problems = [jacobian(family, 8, 5) * 2.0**exponent for family in FAMILIES for exponent in (-40, 27, 40)]
    assert check(problems) >= 30
    assert check(problems, 2.0) >= 30


def test_shares_are_bargaining_powers():
    shares = np.array([0.25, 4.0, 1.0, 1e-3, 100.0, 1.0, 2.0, 1.0])
    problems = [jacobian(family, 8, seed) for family in FAMILIES for seed in range(3)]
    assert check(problems, 1.0, shares) >= 30
    assert check(problems, 2.0, shares) >= 30


def test_without_a_share_a_task_takes_no_part():
    rows = jacobian("random", 8, 0)
    stack = [gramian(rows)] * 57
    found = solve(stack, 1.0, np.where(np.arange(8) == 3, 0.0, 1.0))[0][0]
    assert found[3] == 0
    np.testing.assert_allclose(np.delete(found, 3), one(np.delete(rows, 3, 0))[0], rtol=1e-5)


def log_violation(log_weights, whole):
    return np.log(np.maximum(whole @ np.exp(log_weights), 1e-12)) + log_weights


def test_agrees_with_a_general_root_finder():
    for seed in range(3):
        rows = jacobian("conflict", 5, seed)
        whole = rows @ rows.T
        answer = root(log_violation, np.full(5, -1.5), args=(whole,), tol=1e-12)
        assert answer.success
        found, _ = one(rows)
        np.testing.assert_allclose(found, np.exp(answer.x), rtol=1e-4)


def test_length_of_the_nash_direction():
    for family in ("random", "spread", "duplicates"):
        rows = jacobian(family, 8, 0)
        found, _ = one(rows)
        assert np.sum((found @ rows) ** 2) == pytest.approx(8.0, rel=1e-5)


def test_the_limit_of_no_fairness():
    rows = jacobian("conflict", 5, 0)
    # Without a conflict the sum; with one, its projection on the cone of directions that conflict with no task.
    assert (rows @ rows.sum(0)).min() < 0 < (np.abs(rows) @ np.abs(rows).sum(0)).min()
    stack = np.stack([gramian(rows), gramian(np.abs(rows))])
    even, _ = solve(stack, 1e-3)
    projected = jax.jit(jax.vmap(lambda g: cone_projection(g, jnp.ones(5)).weights))(stack)
    np.testing.assert_allclose(even, projected, atol=0.02)


def test_opposed_tasks_leave_the_field_to_the_others():
    rows = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 4.0]])
    found, residual = one(rows)
    assert residual == 1
    # What remains is orthogonal to the opposed pair: |d|^2 is the number of the other tasks.
    np.testing.assert_allclose(found @ rows, [0.0, 1.0, 1.0], atol=5e-3)
    pair, residual = one(rows[:2])
    assert residual == 1 and np.linalg.norm(pair @ rows[:2]) < 1e-2 and pair.max() < 2.0**12


def test_inactive_is_absent_and_not_read():
    rows = jacobian("conflict", 8, 0)
    whole, mask = gramian(rows), np.ones(8, bool)
    np.testing.assert_allclose(one(rows)[0], solve([whole] * 57)[0][0], rtol=1e-6)
    np.testing.assert_allclose(one(rows[:4], places=[1, 2, 5, 7])[0], one(rows[:4])[0], rtol=1e-6)
    none = padded(np.full_like(whole, np.nan), ~mask)
    assert none.weights.tolist() == [0.0] * 8 and none.residual == 0
    whole[3, :] = whole[:, 3] = np.nan
    assert np.isnan(np.asarray(padded(whole, mask).weights)).any()


def test_differentiation_sees_constants():
    whole = jnp.asarray(gramian(jacobian("random", 3, 0)))
    value = jax.jit(lambda g: (jnp.sum((w := bargaining(g).weights) @ g), w))
    slope, weights = jax.grad(value, has_aux=True)(whole)
    np.testing.assert_allclose(slope, jnp.tile(weights[:, None], (1, 3)), rtol=1e-5)


@pytest.mark.parametrize(
    ("matrix", "options", "message"),
    [
        (np.eye(2), {"shares": np.ones(3)}, r"shares must have shape \(2,\) .* found \(3,\)"),
        (np.eye(2), {"alpha": 0.0}, "alpha must be a positive finite number, found 0"),
        (np.ones((2, 3)), {}, "square matrix"),
    ],
    ids=["shares", "alpha", "matrix"],
)
def test_mistakes(matrix, options, message):
    with pytest.raises(ValueError, match=message):
        bargaining(jnp.asarray(matrix, jnp.float32), **options)
