"""The linear program of EPO against scipy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from mtljax.solvers.simplex_lp import simplex_lp


def test_simplex_lp_against_scipy():
    solve = jax.jit(lambda *a: simplex_lp(*a))
    for seed in range(20):
        generator = np.random.default_rng(seed)
        cost, rows = generator.normal(size=7), generator.normal(size=(5, 7))
        lower = rows @ generator.dirichlet(np.ones(7)) - generator.uniform(0, 0.1, 5)
        expected = linprog(-cost, A_ub=-rows, b_ub=-lower, A_eq=np.ones((1, 7)), b_eq=[1.0]).x
        found = solve(*(jnp.asarray(x, jnp.float32) for x in (cost, rows, lower)))
        np.testing.assert_allclose(found.weights, expected, atol=2e-4)
        assert float(found.residual) < 1e-4
    # Nothing satisfies this: the worst violation is shared.
    impossible = solve(jnp.zeros(7), jnp.eye(5, 7), jnp.full(5, 0.8))
    np.testing.assert_allclose(impossible.weights, [0.2] * 5 + [0.0] * 2, atol=1e-5)
    assert float(impossible.residual) > 0.1
    with pytest.raises(ValueError, match=r"found \(2,\), \(3, 3\), \(3,\)"):
        simplex_lp(jnp.ones(2), jnp.eye(3), jnp.ones(3))
