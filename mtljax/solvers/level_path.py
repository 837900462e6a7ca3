"""The path of directions from the mean gradient to the shortest convex combination. CAGrad and ConicGrad search on it.

For a level t, the direction nearest to the mean `g_0` with `<g_i, d> >= t` for all tasks is
`d(t) = g_0 + sum_k y_k g_k`, where y solves `min 1/2 y'Gy - sum_i (t - <g_i, g_0>) y_i, y >= 0`. The path starts at
the mean, with t the worst task's gain there. As t rises, d(t) turns from the mean towards the shortest vector of the
convex hull. Of all directions at the same distance from the mean, d(t) is the best one for the worst-off task. CAGrad
is the point of the path at a given distance from the mean; ConicGrad is the point at a given angle to the mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from mtljax.solvers.nonnegative import nonnegative
from mtljax.solvers.scaling import Scaled, accurate_product, finer, is_wide, power_of_two
from mtljax.types import Array

# A convex combination shorter than this share of the sum of |w_k g_k| counts as 0. A rounded Gramian gives |d|^2 to
# 2^-24 of the square of that sum, so |d| to 2^-12 of the sum; the share is twice that.
STATIONARY = 2.0**-11
# The search ends where `excess` is between -TOLERANCE and 0. This turns d by about 2^-23 of |d|, as much as the
# rounding of the weights.
TOLERANCE = 2.0**-23
# It bounds the search in float32; float64 has twice as many steps.
LIMIT = 40


class Point(NamedTuple):
    """A point of the path: the direction of `share g_0 + sum_k y_k g_k`.

    Attributes:
        share: float32 `[]`, from 1 at the mean down to 0 at the shortest vector.
        y: float32 `[T]`, in units of the Gramian's `norm`.
        error: float32 `[]`, the error of the sum above.
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

    Where the task gradients are Pareto-stationary to the precision of a Gramian, it is not certain that any level above
    0 can be reached. The path then ends at level 0: at the direction nearest to the mean of those that harm no task.

    Args:
        scaled: the Gramian.
        bound: float32 `[T]`, the mean's weights in units of `scaled.norm`.
        excess: function of a point that increases along the path.
        ceiling: bool `[]`, whether the path ends at level 0 in any case.
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
        # From place -1 to 0 the level rises to 0, if it starts below 0. From 0 to 1 it rises by
        # unit place / (1 - place); the whole problem is multiplied by 1 - place.
        beyond = jnp.maximum(place, 0.0)
        level = jnp.maximum(start, 0.0) + jnp.minimum(start, 0.0) * jnp.maximum(-place, 0.0)
        rest = 1.0 - beyond
        force = jnp.where(nonzero, rest * (level * shift - at_mean) + beyond * unit * shift, 0.0)
        found = nonnegative(matrix, force, nonzero, free=free)
        return Point(rest, found.y, found.error), found.free

    # Carried values are computed from the Gramian, so that they vary over the devices of a mesh as the Gramian does.
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
        # Halving and regula falsi take turns, because the excess may jump where the direction is almost zero.
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
        # Float32 rows that are stationary are so to their own rounding only. A little further along the path, d
        # differs.
        found = found._replace(error=jnp.where(stationary & ~ceiling, jnp.inf, found.error))
    return found


def mean_of(scaled: Scaled) -> tuple[Array, Array, Array]:
    """The mean's weights w `[T]`, `w norm / unit` with unit a power of two, and `unit / norm`."""
    _, norm, active, nonzero = scaled
    mean = jnp.where(active, 1.0, 0.0) / jnp.maximum(jnp.sum(active), 1)
    bound = jnp.where(nonzero, mean * norm, 0.0)
    unit = power_of_two(jnp.max(bound))
    return mean, bound / unit, unit / norm
