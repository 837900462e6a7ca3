"""The quadratic problem that the solvers of this folder share: `min 1/2 y'My - force'y  subject to  y >= 0`.

A Gramian in float32 is rounded: the error of entry (i, j) is about `2^-24 |g_i| |g_j|`. So the Gramian may not be
positive semi-definite, and the error of `|d|^2 = y'My` is `2^-24 (sum_i y_i |g_i|)^2`. Along a combination of task
gradients that almost cancels, only rounding decides where the objective falls, and how far. The solver therefore adds
a ridge, `M + ridge I`, as large as the rounding may be. The problem with the ridge is strictly convex. It has one
solution even for a singular M: of the y that are equally good to rounding, the smallest. The objective there is at
most 0, its value at y = 0, whatever M was before rounding.

The free set is the set of tasks with positive y. Block principal pivoting finds it: a guess of the set gives y by one
Cholesky factorisation; then all tasks whose y or multiplier has the wrong sign change sides at once. A few guesses
suffice for most problems. Singular Gramians may stop the progress. The interior point method of
`mtljax.solvers.interior` then solves the problem from the start.

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

# The tolerances hold for float32; `finer` turns them into those for float64.
# The ridge relative to |g_i|^2: the rounding of a Gramian, 2^-24, and two bits for its factorisation.
RIDGE = 2.0**-22
# The ridge grows by this factor where a factorisation breaks down.
GROWTH = 16.0
# A direction shorter than this share of the sum of |z_k g_k| may be rounding alone. Rounding leaves about 2^-12 of that
# sum, so a direction that counts is right to 1/8.
CERTAIN = 2.0**-9
# The error of y relative to its largest entry, and the error of its multipliers relative to the sum of y.
BOUND_TOLERANCE = 2.0**-20
SLOPE_TOLERANCE = 2.0**-23
# The error of a refined direction relative to the sum of |w_k g_k|: float32 rounds the weights, and the weighted sum.
WEIGHT_ROUNDING = 2.0**-23
# So many guesses in a row may fail to lower the count of tasks on the wrong side.
PATIENCE = 3
REFINEMENTS = 2
POLISHES = 2


class Nonnegative(NamedTuple):
    """A solution.

    Attributes:
        y: `[T]`, non-negative, 0 where not valid.
        free: bool `[T]`, the tasks that may be positive.
        error: `[]`, an estimate of `|d - d*|` for `d = sum_k y_k g_k`. It covers the distance of y from the optimum and
            the effect of the Gramian's rounding on d.
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
    """Solves `min 1/2 y'My - force'y  subject to  y >= 0` as the head of this file says.

    Args:
        matrix: float32 or float64 `[T, T]`, a Gramian on the scale of a correlation matrix, entries at most 1.
        force: the same `[T]`.
        valid: bool `[T]`, the tasks that may be positive.
        free: bool `[T]`, the first guess of the tasks that are positive.
        sizes: the same `[T]`, the lengths that rounding is relative to, where they exceed the task gradients' lengths.

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
        # A factorisation that breaks down gives NaN.
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

    # Carried values are computed from the input, so that they vary over the devices of a mesh as the input does.
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

    # These steps leave the ridge out, as far as the bounds allow, so that d is exact where M determines it. A task at
    # its bound takes no part, because it would allow no step.
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
