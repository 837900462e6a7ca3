"""An interior point method for the quadratic problem of `mtljax.solvers.nonnegative`. It is slow and reliable.

At the solution, `y >= 0`, `slope = My - force >= 0` and `y_i slope_i = 0` for all i. The method starts from a positive
y and a positive slope. Newton's steps lead along the points at which all products `y_i slope_i` are equal, while their
common value goes to 0. The method takes 10 to 30 factorisations, even for a singular M, because it factors `M +
diag(slope / y)`. Block pivoting takes fewer factorisations if it ends, and finds the free set exactly.

References:
    S. Mehrotra (1992), "On the implementation of a primal-dual interior point method", SIAM Journal on Optimization
    2(4).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from mtljax.solvers.cholesky import inverse_factor, solve_factored
from mtljax.solvers.scaling import accurate_product, finer, is_wide
from mtljax.types import Array

# The tolerances hold for float32; `finer` turns them into those for float64.
# The gap to the optimum relative to the square of the sum of y. The gap is at least |d - d*|^2 / 2, so |d - d*| is at
# most 2^-12.5 of the sum of y, less than the 2^-11 that the solvers promise.
GAP = 2.0**-26
# The error of the equations relative to the sum of y: as large as the ridge that `nonnegative` adds.
EQUATIONS = 2.0**-22
# A step goes this share of the way to the nearest bound, so that y and slope stay positive.
CLOSE = 0.99
# The ridge grows by this factor where a factorisation breaks down.
GROWTH = 16.0
# It bounds the loop in float32; float64 has twice as many steps.
LIMIT = 40


class Interior(NamedTuple):
    """A solution.

    Attributes:
        y: `[T]`, 0 where not valid, else positive.
        free: bool `[T]`, the tasks whose y does not go to 0.
    """

    y: Array
    free: Array


class _State(NamedTuple):
    y: Array
    slope: Array
    grown: Array
    settled: Array
    count: Array


def interior(matrix: Array, force: Array, valid: Array, *, ridge: Array, needed: Array) -> Interior:
    """Solves `min 1/2 y'(matrix + diag(ridge))y - force'y  subject to  y >= 0`.

    Args:
        matrix: float32 or float64 `[T, T]`, a Gramian on the scale of a correlation matrix, entries at most 1.
        force: the same `[T]`.
        valid: bool `[T]`, the tasks that may be positive.
        ridge: the same `[T]`.
        needed: bool `[]`, whether to solve the problem at all; if not, y is the start.

    Returns:
        The solution as `Interior`.
    """
    wanted, equations = finer(GAP, matrix), finer(EQUATIONS, matrix)
    limit = 2 * LIMIT if is_wide(matrix) else LIMIT
    block = jnp.where(valid[:, None] & valid[None, :], matrix, 0.0)

    def slope_at(y: Array, grown: Array | float) -> Array:
        return accurate_product(block, y) + grown * ridge * y - force

    def step(state: _State) -> _State:
        """One step of Mehrotra's method: a trial towards y slope = 0, which gives the center, and a step towards it."""
        y, slope, grown = state.y, state.slope, state.grown
        inverse = inverse_factor(block + jnp.diag(jnp.where(valid, grown * ridge + slope / y, 1.0)))
        rest = slope - slope_at(y, grown)

        def move(product: Array) -> tuple[Array, Array, Array]:
            change = solve_factored(inverse, jnp.where(valid, rest + product / y - slope, 0.0))
            change_slope = jnp.where(valid, (product - slope * change) / y - slope, 0.0)
            fall = jnp.maximum(jnp.max(-change / y), jnp.max(-change_slope / slope))
            return change, change_slope, jnp.minimum(1.0, CLOSE / jnp.where(fall > 0, fall, CLOSE))

        def gap_of(y: Array, slope: Array) -> Array:
            return jnp.sum(jnp.where(valid, y * slope, 0.0))

        change, change_slope, reach = move(jnp.zeros_like(y))
        left = gap_of(y + reach * change, slope + reach * change_slope)
        center = left * jnp.square(left / gap_of(y, slope)) / jnp.sum(valid)
        change, change_slope, reach = move(center - change * change_slope)
        new_y, new_slope = y + reach * change, slope + reach * change_slope
        size = jnp.sum(jnp.where(valid, new_y, 0.0))
        solved = jnp.max(jnp.abs(jnp.where(valid, rest, 0.0))) <= equations * size
        broken = ~jnp.isfinite(size + jnp.sum(new_slope))
        return _State(
            y=jnp.where(broken, y, new_y),
            slope=jnp.where(broken, slope, new_slope),
            grown=jnp.where(broken, GROWTH * grown, grown),
            settled=solved & (gap_of(new_y, new_slope) <= wanted * size * size),
            count=state.count + 1,
        )

    # Carried values are computed from the input, so that they vary over the devices of a mesh as the input does.
    none = jnp.sum(jnp.where(valid & (matrix[0] + force + ridge == 0), 0, 0))
    zero = none.astype(force.dtype)
    most = jnp.max(jnp.where(valid, jnp.abs(force), 0.0))
    y = jnp.where(valid & (most > 0), most, 1.0) + 0.0 * (force + zero)
    first = _State(
        y=y,
        slope=jnp.maximum(slope_at(y, 1.0), y),
        grown=1.0 + zero,
        settled=~needed & (none == 0),
        count=none,
    )
    found = lax.while_loop(lambda s: ~s.settled & (s.count < limit), step, first)
    return Interior(jnp.where(valid, found.y, 0.0), valid & (found.y > found.slope))
