"""The path from the mean gradient to the shortest one: within each distance, the best direction for the worst-off task.

For a level t, the direction nearest to the mean `g_0` with `<g_i, d> >= t` for all tasks is
`d(t) = g_0 + sum_k y_k g_k` with y the solution of `min 1/2 y'Gy - sum_i (t - <g_i, g_0>) y_i, y >= 0`. As t
rises from what the mean gives the worst-off task, d(t) leaves the mean and turns towards the shortest vector of the
convex hull, whose direction it has at last. CAGrad and ConicGrad are points of this path: the one at a
distance from the mean, the other at an angle to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from mtljax.solvers.nonnegative import nonnegative
from mtljax.solvers.scaling import Scaled, accurate_product, finer, is_wide, power_of_two
from mtljax.types import Array

# Of the sum of |w_k g_k|: a convex combination that is shorter may be 0, for all that a rounded Gramian tells.
STATIONARY = 2.0**-11
# Of what `excess` compares. A point that ends below by this share turns d by about that share of |d|, and the rounding
# of weights turns it by 2^-23 of the sum of |w_k g_k|.
TOLERANCE = 2.0**-23
LIMIT = 40


class Point(NamedTuple):
    """A point of the path: the direction of `share g_0 + sum_k y_k g_k`.

    Attributes:
        share: float32 `[]`, from 1 down to 0, where only the direction of the shortest vector is left.
        y: float32 `[T]`, in units of the Gramian's `norm`.
        error: float32 `[]`, of that sum.
    """

    share: Array
    y: Array
    error: Array


class _Search(NamedTuple):
    low: Array
    high: Array
    under: Array
    over: Array
    found: Point
    free: Array
    done: Array
    count: Array


def search(scaled: Scaled, bound: Array, excess: Callable[[Point], Array], *, ceiling: Array) -> Point:
    """The last point of the path at which `excess` is not positive.

    Where the task gradients are Pareto-stationary to the precision of a Gramian, no level above 0 is certain to be
    reached, and the path ends there: of the directions that do no harm, at the one nearest to the mean.

    Args:
        scaled: the Gramian.
        bound: float32 `[T]`, the mean's weights in units of `scaled.norm`.
        excess: of a point, increases along the path.
        ceiling: bool `[]`, whether the path ends at level 0 in any case.

    Returns:
        `Point`.
    """
    matrix, norm, _, nonzero = scaled
    shortest = jnp.min(jnp.where(nonzero, norm, jnp.inf))
    shift = jnp.where(nonzero, shortest / norm, 0.0)
    at_mean = jnp.where(nonzero, accurate_product(matrix, bound), 0.0)
    length = jnp.sqrt(jnp.maximum(jnp.sum(bound * at_mean), 0.0))
    start = jnp.min(jnp.where(nonzero, at_mean / jnp.where(nonzero, shift, 1.0), jnp.inf))
    start = jnp.where(jnp.any(nonzero), start, 0.0)
    unit = jnp.where(length > 0, length, 1.0)
    tolerance, limit = finer(TOLERANCE, matrix), 2 * LIMIT if is_wide(matrix) else LIMIT

    def point(place: Array, free: Array) -> tuple[Point, Array]:
        # From -1 to 0 the level rises to 0, if it starts below; from there to 1 it rises by unit place / (1 - place),
        # all being multiplied by 1 - place.
        beyond = jnp.maximum(place, 0.0)
        level = jnp.maximum(start, 0.0) + jnp.minimum(start, 0.0) * jnp.maximum(-place, 0.0)
        rest = 1.0 - beyond
        force = jnp.where(nonzero, rest * (level * shift - at_mean) + beyond * unit * shift, 0.0)
        found = nonnegative(matrix, force, nonzero, free=free)
        return Point(rest, found.y, found.error), found.free

    # Made of the Gramian, so that all carried values vary over the devices of a mesh as it does.
    zero = 0.0 * length
    end, free = point(1.0 + zero, nonzero)
    size = jnp.sum(end.y)
    least = finer(STATIONARY, matrix, square=True) * size
    stationary = jnp.sum(end.y * accurate_product(matrix, end.y)) <= jnp.square(least)
    high = jnp.where(stationary | ceiling, 0.0, 1.0) + zero
    last, last_free = point(high, free)
    over = excess(last)
    at_start = Point(1.0 + zero, 0.0 * bound, zero)
    under = -excess(at_start)
    inside = over <= 0
    first = _Search(
        low=jnp.where(start < 0, -1.0, 0.0) + zero,
        high=high,
        under=jnp.maximum(under, 0.0),
        over=over,
        found=Point(*(jnp.where(inside & (length > 0), x, y) for x, y in zip(last, at_start, strict=True))),
        free=last_free,
        done=inside | (under <= tolerance) | ~(length > 0),
        count=jnp.sum(jnp.where(nonzero & (at_mean == jnp.inf), 0, 0)),
    )

    def step(state: _Search) -> _Search:
        # Halving and regula falsi by turns: the excess may jump where the direction comes out of zero.
        chord = (state.low * state.over + state.high * state.under) / (state.over + state.under)
        middle = 0.5 * (state.low + state.high)
        between = (chord > state.low) & (chord < state.high) & (state.count % 2 == 0)
        place = jnp.where(between, chord, middle)
        found, free = point(place, state.free)
        over = excess(found)
        inside = over <= 0
        stuck = ~((middle > state.low) & (middle < state.high))
        return _Search(
            low=jnp.where(inside, place, state.low),
            high=jnp.where(inside, state.high, place),
            under=jnp.where(inside, -over, state.under),
            over=jnp.where(inside, state.over, over),
            found=Point(*(jnp.where(inside, x, y) for x, y in zip(found, state.found, strict=True))),
            free=free,
            done=(inside & (over >= -tolerance)) | stuck,
            count=state.count + 1,
        )

    found = lax.while_loop(lambda s: ~s.done & (s.count < limit), step, first).found
    if is_wide(matrix):
        # Rows in float32 that are stationary are so up to their own rounding, and a little further d is another.
        found = found._replace(error=jnp.where(stationary & ~ceiling, jnp.inf, found.error))
    return found


def mean_of(scaled: Scaled) -> tuple[Array, Array, Array]:
    """The mean's weights `[T]`, and in units of `scaled.norm` over a power of two, and that power over `norm`."""
    _, norm, active, nonzero = scaled
    mean = jnp.where(active, 1.0, 0.0) / jnp.maximum(jnp.sum(active), 1)
    bound = jnp.where(nonzero, mean * norm, 0.0)
    unit = power_of_two(jnp.max(bound))
    return mean, bound / unit, unit / norm
