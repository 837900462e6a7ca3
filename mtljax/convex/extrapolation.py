"""Anderson acceleration: extrapolation of a fixed-point iteration from its last steps."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax.types import Array

MEMORY = 8
"""Number of past differences that an extrapolation uses."""


class History(NamedTuple):
    """Differences between the last iterates of a fixed-point iteration `s <- s + step(s)`, and between their steps.

    Attributes:
        changes: `[MEMORY, *p]`, differences between steps.
        landings: `[MEMORY, *p]`, differences between iterates plus differences between steps.
        gramian: `[MEMORY, MEMORY]`, inner products of changes; 0 for unused entries.
        last: `[*p]`, the last iterate.
        last_step: `[*p]`, its step.
        count: int32 `[]`, number of iterates since the history was last cleared.
    """

    changes: Array
    landings: Array
    gramian: Array
    last: Array
    last_step: Array
    count: Array


def empty_history(zero: Array) -> History:
    """The history before the first iterate; `zero` has the shape and dtype of an iterate."""
    several = jnp.zeros((MEMORY, *zero.shape), zero.dtype)
    return History(several, several, jnp.zeros((MEMORY, MEMORY), zero.dtype), zero, zero, jnp.zeros((), jnp.int32))


def push(history: History, s: Array, step: Array) -> History:
    """The history with one more iterate, which replaces the oldest difference."""
    slot = (history.count - 1) % MEMORY
    change = step - history.last_step
    changes = lax.dynamic_update_index_in_dim(history.changes, change, slot, 0)
    # The first iterate gives no difference.
    row = jnp.where(jnp.arange(MEMORY) < history.count, _along(changes, change), 0.0)
    gramian = lax.dynamic_update_index_in_dim(history.gramian, row, slot, 0)
    return History(
        changes=changes,
        landings=lax.dynamic_update_index_in_dim(history.landings, s - history.last + change, slot, 0),
        gramian=lax.dynamic_update_index_in_dim(gramian, row, slot, 1),
        last=s,
        last_step=step,
        count=history.count + 1,
    )


def clear_where(condition: Array, history: History) -> History:
    """The history, cleared if the condition is true."""
    return history._replace(
        gramian=jnp.where(condition, 0.0, history.gramian), count=jnp.where(condition, 0, history.count)
    )


def extrapolation(history: History, step: Array) -> Array:
    r"""The difference between the plain next iterate and the extrapolated one, `sum_j gamma_j landing_j`.

        next = s + step - sum_j gamma_j landing_j,   gamma = argmin |step - sum_j gamma_j change_j|

    The normal equations are solved with a ridge of `eps^(2/3)` times the mean square, which bounds the effect of
    rounding.

    Args:
        history: its last iterate is the one of `step`.
        step: `[*p]`.

    Returns:
        `[*p]`, the sum; 0 if the history is empty.

    References:
        Walker and Ni, "Anderson Acceleration for Fixed-Point Iterations", SIAM Journal on Numerical Analysis 49, 2011,
        the method of the second type. Departures: the ridge.
    """
    squares = jnp.diagonal(history.gramian)
    there = squares > 0
    along = jnp.where(there, _along(history.changes, step), 0.0)
    ridge = jnp.finfo(step.dtype).eps ** (2 / 3) * jnp.mean(squares)
    factor = lax.linalg.cholesky(history.gramian + jnp.diag(jnp.where(there, ridge, 1.0)))
    gamma = jax.scipy.linalg.cho_solve((factor, True), along)
    # If rounding breaks the factorisation, nothing is extrapolated.
    gamma = jnp.where(jnp.all(jnp.isfinite(gamma)), gamma, 0.0)
    return jnp.tensordot(gamma, history.landings, 1, precision=lax.Precision.HIGHEST)


def _along(several: Array, one: Array) -> Array:
    """`[m, *p], [*p] -> [m]`, inner products."""
    trailing = tuple(range(1, several.ndim)), tuple(range(one.ndim))
    return lax.dot_general(several, one, (trailing, ((), ())), precision=lax.Precision.HIGHEST)
