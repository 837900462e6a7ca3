"""What the bargaining methods promise for a rounded Gramian, over the families of `tests.solvers.families`.

The direction solves `<g_i, d> = w_i^(-p), d = sum_i w_i g_i` with p = 1 / alpha: 1 for Nash and FairGrad, 1/2 for
PIVRG and ConsMTL. With m the length of the shortest convex combination, `|d| >= m sum(w)` and Hoelder's inequality give
`|d|^(1 + p) <= T^p m^(p - 1)`, which is `sqrt(T)` at p = 1 whatever m is.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import methods
from mtljax.solvers import TRUSTED
from tests.solvers import references
from tests.solvers.families import FAMILIES, rounded, rows_of
from tests.solvers.references import norms_of

ROUNDING = 2.0**-11
# The ridge of the solver, of |g_i|^2.
RIDGE = 2.0**-21
POWERS = {"nash_mtl": 1.0, "fairgrad": 1.0, "pivrg": 0.5, "consmtl": 0.5}


@functools.cache
def solver(name, num_tasks):
    method = getattr(methods, name)()

    def solve(gramian):
        weights, after = method.update(gramian, method.init(num_tasks))
        return weights, after.residual

    return jax.jit(jax.vmap(solve))


def longest(rows, power):
    """The bound above for the Gramian with the ridge, whose gradients are `(g_i, sqrt(ridge) |g_i| e_i)`."""
    kept = rows[norms_of(rows) > 0]
    lifted = np.hstack([kept, np.sqrt(RIDGE) * np.diag(norms_of(kept))])
    shortest = np.linalg.norm(references.mgda(lifted) @ lifted)
    return (len(kept) ** power * shortest ** (power - 1.0)) ** (1.0 / (1.0 + power))


def check(name, num_tasks, seeds):
    power = POWERS[name]
    rng = np.random.default_rng(num_tasks)
    draws = [(family, seed, rows_of(family, num_tasks, seed)) for family in FAMILIES for seed in seeds]
    draws = [(family, seed, rows * 10.0 ** rng.uniform(-12, 12)) for family, seed, rows in draws]
    weights, residuals = map(np.asarray, solver(name, num_tasks)(jnp.asarray([rounded(rows) for *_, rows in draws])))
    assert np.isfinite(weights).all() and (weights >= 0).all() and (residuals >= 0).all() and (residuals <= 1).all()
    trusted = 0
    for (family, seed, rows), found, residual in zip(draws, weights.astype(float), residuals, strict=True):
        case = f"{name} {family} T={num_tasks} seed={seed} residual={residual}"
        norms, direction = norms_of(rows), found @ rows
        there, length, size = norms > 0, np.linalg.norm(direction), found @ norms
        # The Gramian knows the square of d to the rounding of its entries.
        bound = np.hypot(longest(rows, power), ROUNDING * size)
        assert not found[~there].any(), case
        assert length <= (1 + 1e-3) * bound, case
        # Also where nothing of the direction is certain: no task is made worse beyond rounding.
        assert (rows @ direction >= -(2.0**-20) * norms * size).all(), case
        if residual > TRUSTED:
            continue
        trusted += 1
        gains = rows[there] @ direction
        # The equation, as far as a task's own gain is known.
        off = np.abs(gains - found[there] ** -power)
        assert (off <= 1e-3 * found[there] ** -power + 2.0**-22 * norms[there] * size).all(), case
        exact = references.bargaining(rows, power)
        if exact is not None:
            error = np.linalg.norm(direction - exact @ rows)
            assert error <= max(1e-3 * np.linalg.norm(exact @ rows), ROUNDING * exact @ norms), case
            assert error <= residual * length, case
    assert trusted >= 0.3 * len(draws)


@pytest.mark.parametrize("name", ["nash_mtl", "consmtl"])
def test_bounds_and_errors(name):
    check(name, 6, range(2))


@pytest.mark.slow
@pytest.mark.parametrize("num_tasks", [2, 3, 9, 16, 33])
@pytest.mark.parametrize("name", POWERS)
def test_bounds_and_errors_of_many(name, num_tasks):
    check(name, num_tasks, range(7 if num_tasks < 33 else 2))
