"""The quadratic problem that the solvers of this folder share: `min 1/2 y'My - force'y  subject to  y >= 0`.

A Gramian in float32 is rounded: entry (i, j) is known to about `2^-24 |g_i| |g_j|`. So it need not be positive
semi-definite, and `|d|^2 = y'My` is known to `2^-24 (sum_i y_i |g_i|)^2` and no better: along a combination of task
gradients that all but cancels, rounding alone decides in which direction the objective falls, and how far. What is
solved is therefore the problem with a ridge, `M + ridge I`, the ridge being as large as the rounding may be. That
problem is strictly convex and has one solution however singular M is, which has the smallest y of those that are as
good to rounding. Its objective is at most 0, that of y = 0, whatever M was before it was rounded.

Which entries of y are positive, the free set, is found by block principal pivoting: a guess of the set gives y by one
Cholesky factorisation, and every task on the wrong side of its bound or of its multiplier then changes side at once.
That mostly ends after a few guesses. Where that makes no progress, which singular Gramians do to it, the
interior point method of `mtljax.solvers.interior` solves the problem from the start.

References:
    J. J. Judice, F. M. Pires (1994), "A block principal pivoting algorithm for large-scale strictly monotone linear
    complementarity problems", Computers & Operations Research 21(5).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from mtljax.solvers.cholesky import inverse_factor, solve_factored
from mtljax.solvers.interior import interior
from mtljax.solvers.scaling import accurate_product, finer, is_wide, multiply
from mtljax.types import Array

# These are for float32; `finer` has those for float64.
# Of |g_i|^2: what the rounding of a Gramian, and of its factorisation, amount to.
RIDGE = 2.0**-22
GROWTH = 16.0
# Of the sum of |z_k g_k|: a direction that is shorter may be what rounding has left of it.
CERTAIN = 2.0**-9
# Of the largest entry of y, and of the sum of y: what y and its multipliers are known to.
BOUND_TOLERANCE = 2.0**-20
SLOPE_TOLERANCE = 2.0**-23
# Of the sum of |w_k g_k|: what the rounding of weights to float32, and their sum of rows, make of a refined direction.
WEIGHT_ROUNDING = 2.0**-23
PATIENCE = 3
REFINEMENTS = 2
POLISHES = 2


class Nonnegative(NamedTuple):
    """A solution.

    Attributes:
        y: `[T]`, non-negative, 0 where not valid.
        free: bool `[T]`, the tasks that may be positive.
        error: `[]`, an estimate of `|d - d*|` for `d = sum_k y_k g_k`, all errors in one: how far y is from
            optimal, and how far a change of the Gramian by its own rounding moved d.
    """

    y: Array
    free: Array
    error: Array


class _Guess(NamedTuple):
    y: Array
    free: Array
    ridge: Array
    fewest: Array
    patience: Array
    settled: Array


def nonnegative(matrix: Array, force: Array, valid: Array, *, free: Array, sizes: Array | float = 1.0) -> Nonnegative:
    """Solves the problem at the head of this file.

    Args:
        matrix: float32 or float64 `[T, T]`, a Gramian on the scale of a correlation matrix, entries at most 1.
        force: the same `[T]`.
        valid: bool `[T]`, the tasks that may be positive.
        free: bool `[T]`, the first guess of those that are.
        sizes: the same `[T]`, what rounding is relative to, where that is more than the task gradients' lengths.

    Returns:
        The solution as `Nonnegative`.
    """
    first_ridge, bound_tolerance, slope_tolerance = (
        finer(x, matrix) for x in (RIDGE, BOUND_TOLERANCE, SLOPE_TOLERANCE)
    )
    noise = sizes * sizes * jnp.ones_like(force)

    def solve(inverse: Array, free: Array, vector: Array) -> Array:
        return solve_factored(inverse, jnp.where(free, vector, 0.0))

    def slope_at(y: Array, ridge: Array) -> Array:
        return accurate_product(matrix, y) + ridge * noise * y - force

    def factor(free: Array, ridge: Array) -> Array:
        block = jnp.where(free[:, None] & free[None, :], matrix, 0.0)
        return inverse_factor(block + jnp.diag(jnp.where(free, ridge * noise, 1.0)))

    def pivot(guess: _Guess) -> _Guess:
        free, ridge = guess.free, guess.ridge
        inverse = factor(free, ridge)
        y = solve(inverse, free, force)
        for _ in range(REFINEMENTS):
            y = y - solve(inverse, free, slope_at(y, ridge))
        size = jnp.sum(jnp.abs(y))
        below = free & (y < -bound_tolerance * jnp.max(jnp.abs(y)))
        wrong = below | (valid & ~free & (slope_at(y, ridge) < -slope_tolerance * size))
        found = jnp.sum(wrong)
        # A factorisation that breaks down shows as NaN.
        broken = ~jnp.isfinite(size)
        patience = jnp.where(found < guess.fewest, PATIENCE, guess.patience - 1)
        settled = (found == 0) & ~broken
        return _Guess(
            y=jnp.maximum(y, 0.0),
            free=jnp.where(settled | broken, free, free ^ wrong),
            ridge=jnp.where(broken, GROWTH * ridge, ridge),
            fewest=jnp.where(broken, guess.fewest, jnp.minimum(found, guess.fewest)),
            patience=jnp.where(broken, guess.patience, patience),
            settled=settled,
        )

    # Every carried value is made from the input, so that it varies over the devices of a mesh as the input does.
    none = jnp.sum(jnp.where(valid & (matrix[0] + force + noise == 0), 0, 0))
    zero = none.astype(force.dtype)
    guess = _Guess(
        y=0.0 * (force + zero),
        free=free & valid & (none == 0),
        ridge=first_ridge + zero,
        fewest=force.shape[0] + 1 + none,
        patience=PATIENCE + none,
        settled=none != 0,
    )
    guess = lax.while_loop(lambda g: ~g.settled & (g.patience >= 0) & (g.ridge < 1.0), pivot, guess)
    inner = interior(matrix, force, valid, ridge=first_ridge * noise, needed=~guess.settled)
    start = jnp.where(guess.settled, guess.y, inner.y)

    # Steps without the ridge, as far as the bounds allow, for what M does see of all that. A task that is at its bound
    # already would allow none.
    free = jnp.where(guess.settled, guess.free & (guess.y > 0), inner.free)
    inverse = factor(free, guess.ridge)
    y = start
    for _ in range(POLISHES):
        change = solve(inverse, free, force - accurate_product(matrix, y))
        falls = change < 0
        room = jnp.min(jnp.where(falls, y / jnp.where(falls, -change, 1.0), jnp.inf))
        change = jnp.minimum(room, 1.0) * change
        y = jnp.maximum(y + jnp.where(jnp.isfinite(change), change, 0.0), 0.0)

    # Where f is the objective, f(y) - f(y*) <= slope'(y - y*), and |d - d*|^2 is at most twice that.
    slope = jnp.where(valid, accurate_product(matrix, y) - force, 0.0)
    worst = jnp.max(jnp.maximum(-slope, 0.0))
    gap = jnp.sum(jnp.abs(slope) * y) + worst * (worst + jnp.sum(y))
    moved = y - start
    moved = jnp.sqrt(jnp.maximum(jnp.sum(moved * multiply(matrix, moved)), 0.0))
    return Nonnegative(y, free, jnp.sqrt(2.0 * gap) + moved)


def certificate(matrix: Array, z: Array, error: Array) -> Array:
    """The residual of a direction `d = sum_k z_k g_k`: its error over its length.

    Args:
        matrix: float32 or float64 `[T, T]`, as above.
        z: the same `[T]`.
        error: `[]`, of d.

    Returns:
        `[]` in [0, 1]. 1 where |d| is below 2^-9 of `sum_k |z_k g_k|` (2^-21 in float64), unless that is 0.
    """
    size = jnp.sum(jnp.abs(z))
    rounding = WEIGHT_ROUNDING if is_wide(matrix) else BOUND_TOLERANCE
    square = jnp.sum(z * accurate_product(matrix, z)) - jnp.square(finer(CERTAIN, matrix, square=True) * size)
    ratio = (error + rounding * size) / jnp.sqrt(jnp.where(square > 0, square, 1.0))
    return jnp.where(size == 0, 0.0, jnp.where(square > 0, jnp.minimum(ratio, 1.0), 1.0))
