"""Dynamic weight average."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from mtljax.checks import check_count, check_number
from mtljax.methods.arithmetic import number, softmax
from mtljax.methods.common import PULL
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.participation import held
from mtljax.types import Array, Key, Method


class DwaState(NamedTuple):
    """The loss history of every task, in periods of its own active steps.

    Attributes:
        total: float32 `[T]`, sum of losses in the period that is running.
        count: int32 `[T]`, number of steps in it.
        last: float32 `[T]`, mean loss of the last complete period.
        before: float32 `[T]`, mean loss of the one before.
        periods: int32 `[T]`, how many periods are complete, at most 2.
    """

    total: Array
    count: Array
    last: Array
    before: Array
    periods: Array


def dwa(period: int = 25, *, temperature: float = 2.0) -> Method:
    """Dynamic weight average: more weight where the loss falls more slowly.

        r_k = L_k(last period) / L_k(period before),    w = T softmax(r / temperature),

    with mean losses of whole periods. In a task's first two periods r_k is 1.

    Args:
        period: number of steps. The paper's period is an epoch; for the paper's rule give the number of steps per
            epoch. The default is the window of the nash-mtl code.
        temperature: positive; large for equal weights. The paper's value is 2, the default.

    Returns:
        `Method` that reads losses, floating point `[T]`; one backward pass. Weights are float32 `[T]` and sum to the
        number of active tasks. Task-specific gradients are weighted too. `state.residual` is 0.

    References:
        S. Liu, E. Johns, A. J. Davison (2019), "End-to-end multi-task learning with attention", CVPR, arXiv
        1803.10704.
        Departures: r_k is 1 where a mean loss is not positive; in a mean, a loss beyond 64 times the mean of the
        period before counts as that, so that no single loss rules a period. LibMTL and TorchJD: `period` is the number
        of steps per epoch. nash-mtl takes two adjacent sliding windows of 25 steps where these are disjoint, so its
        numbers agree at every 25th step alone, and divides weights by T.

    Example:
        >>> method = dwa(1)
        >>> state = method.init(2)
        >>> for losses in [[2.0, 2.0], [2.0, 1.0], [2.0, 1.0]]:
        ...     weights, state = method.update(jnp.array(losses), state)
        >>> [f"{weight:.3f}" for weight in weights]
        ['1.124', '0.876']
    """
    period = check_count("dwa", "period", period, traced=True)
    check_number("dwa", "temperature", temperature, above=0.0)

    def inner(num_tasks: int) -> DwaState:
        def zeros(dtype) -> Array:
            return jnp.zeros((num_tasks,), dtype)

        real, whole = jnp.float32, jnp.int32
        return DwaState(zeros(real), zeros(whole), zeros(real), zeros(real), zeros(whole))

    def rule(
        losses: Array, active: Array, inner: DwaState, *, key: Key | None, **extra: object
    ) -> tuple[Array, DwaState]:
        known = (inner.periods >= 2) & (inner.before > 0) & (inner.last > 0)
        rates = jnp.where(known, inner.last / jnp.where(known, inner.before, 1.0), 1.0)
        weights = number(active) * softmax(rates / temperature, active)

        most = jnp.where(inner.last > 0, PULL * inner.last, jnp.inf)
        sums, counts = inner.total + jnp.minimum(losses, most), inner.count + 1
        full = counts >= period
        moved = DwaState(
            total=jnp.where(full, 0.0, sums),
            count=jnp.where(full, 0, counts),
            last=jnp.where(full, sums / period, inner.last),
            before=jnp.where(full, inner.last, inner.before),
            periods=jnp.minimum(inner.periods + full, 2),
        )
        return weights, held(moved, inner, active)

    return method_of_losses("dwa", rule, inner=inner)
