"""The shortest vector and the projections again, for a Gramian in float64: what `engines.full(refine=True)` makes.

A product of two float32 numbers is exact in float64, so that such a Gramian is right to about `2^-50 |g_i| |g_j|`, and
`|d|^2 = y'My` to `2^-50 (sum_i y_i |g_i|)^2`. What a Gramian in float32 hides, a direction shorter than 2^-11 of its
parts, is plain to see; nothing need be done about rounding but a ridge, and the textbook's active set is enough.

C. L. Lawson, R. J. Hanson (1974), "Solving least squares problems", chapter 23.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_solve

from mtljax.solvers.scaling import Scaled, Solution, as_floating, is_wide, multiply, relative, scale
from mtljax.types import Array

# Of |g_i|^2. The solution with the ridge is within 2^-23 sum_k y_k |g_k| of the one without.
RIDGE = 2.0**-46
# Of the sum of y: the least multiplier that counts as one.
TOLERANCE = 2.0**-46
# Of the sum of |w_k g_k|: what the rounding of weights to float32, and their sum of rows, make of a direction.
ROUNDING = 2.0**-23


class _State(NamedTuple):
    y: Array
    free: Array
    done: Array
    count: Array


def of_unit_gradients(gramian: Array, active: Array | None) -> Scaled:
    """`mtljax.solvers.scaling.scale` for a Gramian in float64, in which the lengths themselves will do for `norm`."""
    gramian = as_floating(gramian)
    squares = jnp.diagonal(gramian)
    active = jnp.ones_like(squares, dtype=bool) if active is None else active
    # Not `squares > 0`: a NaN must come out again, not pass for a zero gradient.
    nonzero = active & ~(squares <= 0)
    norm = jnp.sqrt(jnp.where(nonzero, squares, 1.0))
    matrix = gramian / norm[:, None] / norm[None, :]
    return Scaled(jnp.where(nonzero[:, None] & nonzero[None, :], matrix, 0.0), norm, active, nonzero)


def scale_in_own_precision(gramian: Array, active: Array | None) -> Scaled:
    """`of_unit_gradients` for a Gramian in float64, `mtljax.solvers.scaling.scale` for any other."""
    return (of_unit_gradients if is_wide(gramian) else scale)(gramian, active)


def nonnegative(matrix: Array, force: Array, valid: Array) -> Array:
    """`argmin 1/2 y'My - force'y  subject to  y >= 0`, y being 0 where not valid; M has diagonal 1."""
    order = jnp.arange(force.shape[0])
    regular = matrix + RIDGE * jnp.diag(jnp.where(valid, 1.0, 0.0))

    def step(state: _State) -> _State:
        y, free = state.y, state.free
        block = jnp.where(free[:, None] & free[None, :], regular, 0.0) + jnp.diag(jnp.where(free, 0.0, 1.0))
        factor = lax.linalg.cholesky(block)

        def solve(vector: Array) -> Array:
            return cho_solve((factor, True), jnp.where(free, vector, 0.0))

        target = solve(force)
        target = target + solve(force - multiply(regular, target))
        # From where we are towards the target, up to the first bound; at the target, the task that is pulled most is
        # freed.
        below = free & (target <= 0)
        share = jnp.where(below, y / jnp.where(y > target, y - target, 1.0), jnp.inf)
        reach = jnp.minimum(jnp.min(share), 1.0)
        y = jnp.where(free & (share > reach), jnp.maximum(y + reach * (target - y), 0.0), 0.0)
        pull = jnp.where(valid & ~free, force - multiply(regular, y), -jnp.inf)
        there = ~jnp.any(below)
        freed = there & (jnp.max(pull) > TOLERANCE * jnp.sum(y))
        return _State(
            y=y,
            free=jnp.where(there, free | (freed & (order == jnp.argmax(pull))), free & (share > reach)),
            done=there & ~freed,
            count=state.count + 1,
        )

    # Every carried value is made from the input, so that it varies over the devices of a mesh as the input does.
    still = 0.0 * (force + matrix[0])
    first = _State(still, valid & (still != 0), jnp.sum(still) != 0, jnp.sum(jnp.where(still != 0, 0, 0)))
    limit = 10 + 6 * force.shape[0]
    return lax.while_loop(lambda s: ~s.done & (s.count < limit), step, first).y


def error_of(matrix: Array, force: Array, y: Array, valid: Array) -> Array:
    """What y is off by, as the length of a direction: `|d - d*|^2` is at most twice the gap in the objective."""
    slope = jnp.where(valid, multiply(matrix, y) - force, 0.0)
    worst = jnp.max(jnp.maximum(-slope, 0.0))
    return jnp.sqrt(2.0 * (jnp.sum(jnp.abs(slope) * y) + worst * (worst + jnp.sum(y))))


def _residual(matrix: Array, z: Array, error: Array) -> Array:
    length = jnp.sqrt(jnp.maximum(jnp.sum(z * multiply(matrix, z)), 0.0))
    return relative(error + ROUNDING * jnp.sum(jnp.abs(z)), length).astype(jnp.float32)


def min_norm(gramian: Array, *, active: Array | None = None) -> Solution:
    """Weights of the shortest convex combination of task gradients, as `mtljax.solvers.min_norm`.

    Args:
        gramian: float64 `[T, T]`.
        active: bool `[T]`, the tasks that take part; None for all.

    Returns:
        `Solution` with float32 weights. `|d - d*|` is at most `2^-20 sum_i w*_i |g_i|`, for the gradients of which the
        Gramian was made, and `residual` estimates it over `|d|`: trusted, that is below 2^-6, as long as |d| is above
        2^-16 of `sum_i w_i |g_i|`.
    """
    matrix, norm, active, nonzero = of_unit_gradients(gramian, active)
    shortest = jnp.min(jnp.where(nonzero, norm, jnp.inf))
    shift = jnp.where(nonzero, shortest / norm, 0.0)
    y = nonnegative(matrix, shift, nonzero)
    parts = shift * y
    total = jnp.sum(parts)
    residual = _residual(matrix, y, error_of(matrix, shift, y, nonzero))
    zero = active & ~nonzero
    spread = jnp.where(zero, 1.0, 0.0) / jnp.maximum(jnp.sum(zero), 1)
    settled = jnp.any(zero) | ~jnp.any(active)
    weights = jnp.where(settled, spread, parts / jnp.where(total == 0, 1.0, total))
    return Solution(weights.astype(jnp.float32), jnp.where(settled, 0.0, residual))


def _project(unit: Scaled, lower: Array) -> tuple[Array, Array]:
    """Weights of one projection, and the error of its direction."""
    matrix, norm, active, nonzero = unit
    lower = jnp.where(active, lower, 0.0)
    bound = jnp.where(nonzero, lower * norm, 0.0)
    size = jnp.max(jnp.abs(bound))
    size = jnp.where(size > 0, size, 1.0)
    force = -multiply(matrix, bound / size)
    y = nonnegative(matrix, force, nonzero)
    return lower + size * y / norm, size * error_of(matrix, force, y, nonzero)


def cone_projection(gramian: Array, lower: Array, *, active: Array | None = None) -> Solution:
    """Weights of a projection on the cone of directions without conflict, as `mtljax.solvers.cone_projection`.

    Args:
        gramian: float64 `[T, T]`.
        lower: floating point `[T]`.
        active: bool `[T]`, the tasks that take part; None for all.

    Returns:
        `Solution` with float32 weights. `|d - d*|` is at most `2^-20 sum_i |v*_i| |g_i|`, for the gradients of which
        the Gramian was made, and `residual` estimates it over `|d|`.
    """
    unit = of_unit_gradients(gramian, active)
    weights, error = _project(unit, as_floating(lower))
    return Solution(weights.astype(jnp.float32), _residual(unit.matrix, weights * unit.norm, error))


def projected_rows(gramian: Array, shares: Array, *, active: Array | None = None) -> Solution:
    """Weights of `sum_k shares_k P(g_k)`, as `mtljax.solvers.projected_rows`; `cone_projection` promises each part.

    Args:
        gramian: float64 `[T, T]`.
        shares: floating point `[T]`, 0 for inactive tasks.
        active: bool `[T]`, the tasks that take part; None for all.
    """
    unit = of_unit_gradients(gramian, active)
    found, errors = jax.vmap(lambda row: _project(unit, row))(jnp.diag(jnp.ones_like(unit.norm)))
    weights = multiply(as_floating(shares), found)
    error = jnp.sum(jnp.abs(shares) * errors)
    return Solution(weights.astype(jnp.float32), _residual(unit.matrix, weights * unit.norm, error))
