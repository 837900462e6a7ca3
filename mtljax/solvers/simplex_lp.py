"""Solves linear problems over the simplex by the simplex method, on a dense tableau of fixed shape."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from mtljax.solvers.scaling import Solution, as_float32, multiply
from mtljax.types import Array

# Costs and columns are scaled to about 1. Smaller values count as rounding: 2^-24 per exchange adds up over the
# exchanges, and a division by a small pivot enlarges it.
COST_TOLERANCE = 2.0**-19
PIVOT_TOLERANCE = 2.0**-17
# Ratios that differ by less count as equal.
TIE = 2.0**-20


class _Tableau(NamedTuple):
    body: Array
    right: Array
    infeasibility: Array
    cost: Array
    basis: Array
    done: Array
    count: Array


def simplex_lp(
    cost: Array, rows: Array, lower: Array, *, holds: Array | None = None, active: Array | None = None
) -> Solution:
    """Weights that solve `max_w cost'w  subject to  rows w >= lower,  w >= 0,  sum(w) = 1`.

    One tableau serves two phases. The first phase makes the worst violation smaller, until no constraint is violated.
    The second phase makes the cost larger. Where no point satisfies all constraints, the worst violation is minimal.

    Args:
        cost: floating point `[T]`.
        rows: floating point `[R, T]`.
        lower: floating point `[R]`.
        holds: bool `[R]`, which constraints hold; None for all. The others are not read.
        active: bool `[T]`, the tasks that take part; None for all. The others get weight 0 and their columns are not
            read.

    Returns:
        `Solution` with weights `[T]`, a corner of the feasible set (all 0 where no task is active). `residual` is the
        worst violation, in units of each constraint's largest entry, plus the duality gap in units of the largest cost,
        at most 1. Weights are constants under differentiation.

    Raises:
        ValueError: shapes do not match.

    References:
        G. B. Dantzig (1951), "Maximization of a linear function of variables subject to linear inequalities".
        Departures: A limit on the number of exchanges replaces a rule against cycling.

    Example:
        >>> rows = jnp.array([[1.0, -1.0]])
        >>> simplex_lp(jnp.array([0.0, 1.0]), rows, jnp.zeros(1)).weights.tolist()
        [0.5, 0.5]
    """
    cost, rows, lower = as_float32(cost), as_float32(rows), as_float32(lower)
    if rows.ndim != 2 or cost.shape != rows.shape[1:] or lower.shape != rows.shape[:1]:
        found = f"{cost.shape}, {rows.shape}, {lower.shape}"
        raise ValueError(f"cost, rows and lower must have shapes [T], [R, T] and [R], found {found}")
    num_rows, num_tasks = rows.shape
    active = jnp.ones_like(cost, dtype=bool) if active is None else active
    holds = jnp.ones_like(lower, dtype=bool) if holds is None else holds
    # On the simplex, rows w >= lower is the same as (rows - lower) w >= 0.
    used = holds[:, None] & active[None, :]
    rows = jnp.where(used, rows - jnp.where(holds, lower, 0.0)[:, None], 0.0)
    rows = rows / _unit(jnp.max(jnp.abs(rows), axis=1))[:, None]
    cost = jnp.where(active, cost, 0.0)
    cost = cost / _unit(jnp.max(jnp.abs(cost)))

    # The columns are weights, slacks and the violation. In the first basis, the task with the least violation has
    # weight 1.
    worst = jnp.min(jnp.where(holds[:, None], rows, jnp.inf), axis=0)
    start = jnp.argmax(jnp.where(active, worst, -jnp.inf))
    zero = 0.0 * (cost + jnp.sum(rows, axis=0))
    slack = jnp.diag(jnp.ones_like(lower)) + 0.0 * zero[0]
    here = rows[:, start]
    violated = jnp.min(here) < 0
    shared = jnp.where(violated & holds, -1.0, 0.0)
    # Basic are the slacks, and in the last row the weight of `start`.
    top = jnp.concatenate([here[:, None] - rows, slack, shared[:, None]], axis=1)
    total = jnp.concatenate([jnp.where(active, 1.0, 0.0) + zero, 0.0 * lower, jnp.zeros_like(cost[:1])])
    first = _Tableau(
        body=jnp.concatenate([top, total[None, :]]),
        right=jnp.concatenate([here, 1.0 + zero[:1]]),
        infeasibility=jnp.concatenate([zero, 0.0 * lower, zero[:1] - 1.0]),
        cost=jnp.concatenate([jnp.where(active, cost - cost[start], 0.0), 0.0 * lower, zero[:1]]),
        basis=jnp.concatenate([num_tasks + jnp.arange(num_rows), start[None]]),
        done=jnp.any(zero != 0),
        count=jnp.sum(jnp.where(zero == 0, 0, 0)),
    )
    worst_row = jnp.argmin(jnp.concatenate([here, zero[:1] + jnp.inf]))
    entered = _exchange(first, worst_row, jnp.asarray(num_tasks + num_rows))
    first = _choose(violated, entered, first)
    first = first._replace(right=jnp.maximum(first.right, 0.0))
    candidates = jnp.concatenate([active, holds, jnp.zeros_like(active[:1])])

    def step(state: _Tableau) -> _Tableau:
        infeasible = candidates & (state.infeasibility > COST_TOLERANCE)
        repairs = jnp.any(infeasible)
        # Once no constraint is violated, only those columns enter that violate none.
        gains = candidates & (state.cost > COST_TOLERANCE) & (state.infeasibility > -COST_TOLERANCE)
        price = jnp.where(repairs, state.infeasibility, state.cost)
        enters = jnp.argmax(jnp.where(jnp.where(repairs, infeasible, gains), price, -jnp.inf))
        column = state.body[:, enters]
        blocks = column > PIVOT_TOLERANCE
        ratio = jnp.where(blocks, state.right / jnp.where(blocks, column, 1.0), jnp.inf)
        # Of rows with equal ratios, the one with the largest pivot has the least rounding.
        leaves = jnp.argmax(jnp.where(ratio <= jnp.min(ratio) + TIE, column, -jnp.inf))
        done = ~(repairs | jnp.any(gains)) | ~jnp.any(blocks)
        moved = _exchange(state, leaves, enters)
        moved = moved._replace(right=jnp.maximum(moved.right, 0.0), count=state.count + 1)
        return _choose(done, state._replace(done=done), moved)

    limit = 20 + 4 * (num_tasks + num_rows)
    last = lax.while_loop(lambda s: ~s.done & (s.count < limit), step, first)

    basic = jnp.zeros(num_tasks + num_rows + 1, jnp.float32).at[last.basis].set(last.right)[:num_tasks]
    weights = jnp.where(active, basic, 0.0)
    size = jnp.sum(weights)
    weights = weights / jnp.where(size > 0, size, 1.0)
    # The price of each constraint is that of its slack. Prices bound the cost over the simplex.
    price = jnp.where(holds, jnp.maximum(-last.cost[num_tasks:-1], 0.0), 0.0)
    bound = jnp.max(jnp.where(active, cost + multiply(price, rows), -jnp.inf))
    bound = jnp.where(jnp.any(active), bound, 0.0)
    gap = jnp.maximum(bound - jnp.sum(cost * weights), 0.0)
    violation = jnp.maximum(-jnp.min(multiply(rows, weights)), 0.0)
    return Solution(weights, jnp.minimum(gap + violation, 1.0))


def _unit(size: Array) -> Array:
    return jnp.where(size > 0, size, 1.0)


def _choose(condition: Array, a: _Tableau, b: _Tableau) -> _Tableau:
    return _Tableau(*(jnp.where(condition, x, y) for x, y in zip(a, b, strict=True)))


def _exchange(state: _Tableau, row: Array, column: Array) -> _Tableau:
    """The tableau after `column` has entered the basis in place of what was basic in `row`."""
    line = state.body[row] / _nonzero(state.body[row, column])
    right = state.right[row] / _nonzero(state.body[row, column])
    here = jnp.arange(state.body.shape[0]) == row
    factor = jnp.where(here, 0.0, state.body[:, column])
    body = jnp.where(here[:, None], line[None, :], state.body - factor[:, None] * line[None, :])
    # In exact arithmetic the column is a unit vector; rounding must not change that.
    body = body.at[:, column].set(jnp.where(here, 1.0, 0.0))
    return state._replace(
        body=body,
        right=jnp.where(here, right, state.right - factor * right),
        infeasibility=(state.infeasibility - state.infeasibility[column] * line).at[column].set(0.0),
        cost=(state.cost - state.cost[column] * line).at[column].set(0.0),
        basis=jnp.where(here, column, state.basis),
    )


def _nonzero(pivot: Array) -> Array:
    return jnp.where(pivot != 0, pivot, 1.0)
