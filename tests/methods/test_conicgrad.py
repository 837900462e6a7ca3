"""Tests of `conicgrad`."""

from __future__ import annotations

import functools

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_gramian.cagrad import cagrad
from mtljax.solvers.cone_around_mean import max_min_around_mean
from tests.methods.steps.gramian import METHODS, PLAIN, direction, random_rows


@functools.cache
def in_cone():
    return jax.jit(lambda gramian, c: max_min_around_mean(gramian, c))


def conic(rows, c):
    """The direction for any c without a compilation of its own."""
    weights, residual = in_cone()(jnp.asarray(rows @ rows.T, jnp.float32), jnp.float32(c))
    assert 0 <= float(residual) <= 1
    return np.asarray(weights, np.float64) @ rows


def test_conicgrad_is_the_optimum():
    kinds = set()
    for seed in range(4):
        for c in (0.5, 0.9, 0.99):
            rows = random_rows(4, seed, width=10) * np.exp(random_rows(4, seed + 7, width=1))
            mean = rows.mean(0)
            length = np.linalg.norm(mean)
            found = conic(rows, c)
            assert np.linalg.norm(found) == pytest.approx(length, rel=1e-5)
            cosine = found @ mean / length**2
            assert cosine >= c - 2e-6
            kinds.add(cosine > c + 1e-5)
            if cosine > c + 1e-5:
                # Inside the cone the constraint does not matter.
                free = direction(PLAIN, rows)
                np.testing.assert_allclose(found, free * length / np.linalg.norm(free), atol=2e-4 * length)
                continue
            across = cp.Variable(10)
            ball = [cp.norm(across) <= np.sqrt(1 - c * c) * length, mean @ across == 0]
            cp.Problem(cp.Maximize(cp.min(rows @ (c * mean + across))), ball).solve(solver="CLARABEL")
            best = (rows @ (c * mean + across.value)).min()
            assert (rows @ found).min() >= best - 1e-5 * length * np.linalg.norm(rows, axis=1).max()
            np.testing.assert_allclose(found, c * mean + across.value, atol=1e-3 * length)
    assert kinds == {True, False}


@pytest.mark.slow
def test_conicgrad_limits_and_its_relation_to_cagrad():
    rows = random_rows(4, 3)
    mean, unit = rows.mean(0), lambda d: d / np.linalg.norm(d)
    np.testing.assert_allclose(conic(rows, 1.0), mean, rtol=1e-5)
    np.testing.assert_allclose(unit(conic(rows, 0.0)), unit(direction(PLAIN, rows)), atol=1e-4)
    near = direction(cagrad(0.6), rows)
    np.testing.assert_allclose(unit(conic(rows, unit(near) @ unit(mean))), unit(near), atol=1e-4)
    np.testing.assert_allclose(direction(METHODS["conicgrad"], rows), conic(rows, 0.8), rtol=1e-5)


def test_conicgrad_where_no_direction_helps_all():
    line = np.array([[1.0, 2.0]])
    for rows in (random_rows(4, 1, width=2), line * np.array([[1], [-1], [2], [-2]]), line * [[1], [-0.4], [1], [-1]]):
        for c in (0.0, 0.8):
            found, mean = conic(rows, c), rows.mean(0)
            assert np.isfinite(found).all()
            assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(mean), rel=0.05, abs=1e-5)
            assert found @ mean >= (c - 0.01) * np.linalg.norm(mean) ** 2 - 1e-5
