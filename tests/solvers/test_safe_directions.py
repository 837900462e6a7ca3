"""Where a residual says that a direction is not to be trusted: it is finite and bounded, and harmless if that is said.

`tests.solvers.test_promises_of_bargaining` holds the same for the bargaining methods, trusted or not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import methods
from mtljax.solvers import TRUSTED
from tests.solvers.families import FAMILIES, rounded, rows_of
from tests.solvers.references import norms_of

# Of the sum of |w_i g_i|, and of the mean length: what the rounding of a Gramian may do to a direction's length.
ROUNDING = 2.0**-11
# Of the sum of |w_i g_i|: what may be left of a gain, which is right to rounding where the equations are solved.
GAIN_ROUNDING = 2.0**-17
# Methods at whose direction no task is made worse.
HARMLESS = ("mgda", "upgrad", "dualproj")


def length_of_mean(rows):
    return np.linalg.norm(rows.mean(0))


def longest_row(rows):
    return norms_of(rows).max()


# The length that no direction exceeds. IMTL-G's weights are v / sum(v), or 0 where |sum(v)| is below 2^-18 of sum(|v|):
# so the length, at most sum(|v_k| |g_k|) / |sum(v)|, is at most 2^18 times that of the longest gradient.
LONGEST: dict[str, Callable[[np.ndarray], float]] = {
    "mgda": lambda rows: norms_of(rows).min(),
    "upgrad": lambda rows: norms_of(rows).mean(),
    "dualproj": length_of_mean,
    "cagrad": lambda rows: 1.5 * length_of_mean(rows),
    "conicgrad": length_of_mean,
    "config": lambda rows: norms_of(rows).sum(),
    "imtl_g": lambda rows: 2.0**18 * longest_row(rows),
    "epo": longest_row,
    "pcd": lambda rows: norms_of(rows)[np.argmax(norms_of(rows) > 0)],
}


@functools.cache
def solver(name, num_tasks):
    method = getattr(methods, name)()

    def solve(gramian, losses):
        weights, after = method.update(gramian, method.init(num_tasks), losses=losses)
        return weights, after.residual

    return jax.jit(jax.vmap(solve))


def check(name, num_tasks, seeds):
    rng = np.random.default_rng(num_tasks + 1)
    draws = [(family, seed, rows_of(family, num_tasks, seed)) for family in FAMILIES for seed in seeds]
    draws = [(family, seed, rows * 10.0 ** rng.uniform(-12, 12)) for family, seed, rows in draws]
    losses = np.exp(rng.normal(size=(len(draws), num_tasks))).astype(np.float32)
    gramians = jnp.asarray([rounded(rows) for *_, rows in draws])
    weights, residuals = map(np.asarray, solver(name, num_tasks)(gramians, losses))
    assert np.isfinite(weights).all()
    for (family, seed, rows), found, residual in zip(draws, weights.astype(float), residuals, strict=True):
        if residual <= TRUSTED:
            continue
        case = f"{name} {family} T={num_tasks} seed={seed} residual={residual}"
        norms, direction = norms_of(rows), found @ rows
        bound = LONGEST[name](rows) * (1 + 1e-3) + ROUNDING * norms.mean()
        assert np.linalg.norm(direction) <= bound, case
        if name in HARMLESS:
            assert (rows @ direction >= -GAIN_ROUNDING * norms * (np.abs(found) @ norms)).all(), case


@pytest.mark.parametrize("name", ["upgrad", "conicgrad", "config"])
def test_untrusted(name):
    check(name, 6, range(3))


@pytest.mark.slow
@pytest.mark.parametrize("num_tasks", [3, 6, 16, 33])
@pytest.mark.parametrize("name", LONGEST)
def test_untrusted_of_many(name, num_tasks):
    check(name, num_tasks, range(7 if num_tasks < 33 else 2))
