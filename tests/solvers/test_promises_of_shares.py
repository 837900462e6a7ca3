"""What the methods without a quadratic problem of their own promise over the families of `tests.solvers.families`."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from mtljax import methods
from mtljax.solvers import TRUSTED
from tests.solvers import references
from tests.solvers.families import FAMILIES, rounded, rows_of
from tests.solvers.references import norms_of

ROUNDING = 2.0**-11
METHODS = {
    "epo": methods.epo,
    "sdmgrad": methods.sdmgrad,
    "sdmgrad_exact": lambda: methods.sdmgrad(steps=None),
    "modo": methods.modo,
    "krum": methods.krum,
    "pcd": methods.pcd,
    "pcgrad": methods.pcgrad,
    "gradvac": methods.gradvac,
    "ntkmtl": methods.ntkmtl,
    "gradnorm": methods.gradnorm,
}
SIMPLEX = ("epo", "sdmgrad", "sdmgrad_exact", "modo", "krum")


@functools.cache
def solver(name, num_tasks):
    method = METHODS[name]()

    def solve(gramian, losses, key):
        weights, after = method.update(gramian, method.init(num_tasks), losses=losses, key=key)
        return weights, after.residual

    return jax.jit(jax.vmap(solve))


def longest(name, rows):
    """The length that the update cannot exceed, up to rounding of weights; None where nothing is known."""
    norms = norms_of(rows)
    if name == "pcd":
        # The gradient of the first task that has one.
        return norms[np.argmax(norms > 0)]
    return norms.sum() if name == "pcgrad" else norms.max() if name in SIMPLEX else None


def balanced(rows, losses):
    """EPO's linear problem in float64: cost, constraints, lower bounds, rounding; in units of the longest gradient."""
    gramian = rows @ rows.T
    gramian = gramian / max(gramian.diagonal().max(), 1e-300)
    shares = losses / losses.sum()
    logs = np.log(len(losses) * shares)
    adjustment = logs - shares @ logs
    push = gramian @ adjustment
    if shares @ logs <= 1e-4:
        return None
    behind, helped = losses == losses.max(), push > 0
    floor = np.where(helped.any() & ~behind, push, 0.0)
    needed = ~helped | behind if helped.any() else np.ones_like(behind)
    # What rounding makes of each: entries are known in units of the lengths that they are products of.
    lengths = norms_of(rows) / max(norms_of(rows).max(), 1e-300)
    noise = 2.0**-20 * lengths * (1.0 + np.abs(adjustment) @ lengths)
    if (np.abs(push) <= noise).any():
        return None  # which constraints hold is a matter of rounding
    return push, gramian[needed], floor[needed], noise[needed]


def optimum(cost, rows, lower):
    """The largest cost'w over the simplex with `rows w >= lower`, or None."""
    # SciPy lets a constraint be violated by 1e-7: rows are scaled so that this is little of the gradient at hand, too.
    sizes = np.abs(rows).max(1)
    sizes[sizes == 0] = 1.0
    rows, lower = rows / sizes[:, None], lower / sizes
    found = linprog(-cost, A_ub=-rows, b_ub=-lower, A_eq=np.ones((1, len(cost))), b_eq=[1.0], bounds=(0, None))
    return -found.fun if found.status == 0 else None


def check_epo(case, rows, losses, found, residual):
    problem = balanced(rows, losses)
    if problem is None:
        return
    cost, constraints, lower, noise = problem
    strict = optimum(cost, constraints, lower + noise)
    if strict is not None:
        assert (constraints @ found >= lower - noise).all(), case
        assert cost @ found >= strict - 2.0**-16 * np.abs(cost).max(), case
        assert residual <= TRUSTED, case


def check(name, num_tasks, seeds):
    rng = np.random.default_rng(num_tasks)
    draws = [(family, seed, rows_of(family, num_tasks, seed)) for family in FAMILIES for seed in seeds]
    draws = [(family, seed, rows * 10.0 ** rng.uniform(-12, 12)) for family, seed, rows in draws]
    losses = np.exp(rng.normal(size=(len(draws), num_tasks))).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), len(draws))
    gramians = jnp.asarray([rounded(rows) for *_, rows in draws])
    weights, residuals = map(np.asarray, solver(name, num_tasks)(gramians, losses, keys))
    assert np.isfinite(weights).all() and (residuals >= 0).all() and (residuals <= 1).all()
    each = zip(draws, losses.astype(float), weights.astype(float), residuals, strict=True)
    for (family, seed, rows), loss, found, residual in each:
        case = f"{name} {family} T={num_tasks} seed={seed} residual={residual}"
        direction, bound = found @ rows, longest(name, rows)
        length = np.linalg.norm(direction)
        if name in SIMPLEX:
            assert (found >= 0).all() and abs(found.sum() - 1) < 1e-5, case
        if bound is not None:
            assert length <= (1 + 1e-3) * bound + 2.0**-22 * np.abs(found) @ norms_of(rows), case
        if name == "epo":
            check_epo(case, rows, loss, found, residual)
        if name == "gradnorm":
            assert (found >= 0).all() and abs(found.sum() - num_tasks) < 1e-4 * num_tasks, case
        if name == "sdmgrad_exact":
            share = 0.3 / 1.3
            moved = (1 - share) * rows + share * rows.mean(0)
            wanted = references.mgda(moved) @ moved
            excuse = ROUNDING * references.mgda(moved) @ ((1 - share) * norms_of(rows) + share * norms_of(rows).mean())
            assert np.linalg.norm(direction - wanted) <= max(1e-3 * np.linalg.norm(wanted), excuse), case


@pytest.mark.parametrize("name", ["epo", "sdmgrad_exact", "modo"])
def test_bounds(name):
    check(name, 5, range(2))


@pytest.mark.slow
@pytest.mark.parametrize("num_tasks", [2, 3, 9, 16, 33])
@pytest.mark.parametrize("name", METHODS)
def test_bounds_of_many(name, num_tasks):
    check(name, num_tasks, range(7 if num_tasks < 33 else 2))
