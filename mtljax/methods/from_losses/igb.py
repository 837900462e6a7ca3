"""Improvable gap balancing."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from mtljax.checks import check_count
from mtljax.methods.arithmetic import divide, number, softmax
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.participation import held
from mtljax.types import Array, Key, Method


class IgbState(NamedTuple):
    """State of improvable gap balancing: each task's early losses, counted in its active steps.

    Attributes:
        count: int32 `[T]`, number of steps seen, at most `start + period`.
        base: float32 `[T]`, sum of the losses of the base period so far.
    """

    count: Array
    base: Array


def igb(period: int = 25, *, start: int | None = None) -> Method:
    """Improvable gap balancing, first version: more weight where the loss is still large beside its early level.

        v = T softmax(sg(L) / L_base),    objective sum_k v_k log L_k,    so w_k = v_k / L_k

    with `L_base` each task's mean loss over a base period. Until a task has one, its gap counts as 1; while no task has
    one, `v_k` is 1.

    Args:
        period: number of steps of the base period. The paper's period is an epoch; for the paper's rule give the number
            of steps per epoch. Default 25.
        start: the step at which the base period begins; None (default) for `period`, the second epoch, as in the
            authors' code. `igb(1, start=0)` takes the first loss.

    Returns:
        `Method` that reads losses, floating point `[T]`; one backward pass. Weights are float32 `[T]`. Losses must not
        be negative. Task-specific gradients are weighted too. `state.residual` is 0.

    References:
        Y. Dai, N. Fei, Z. Lu (2023), "Improvable gap balancing for multi-task learning", UAI, arXiv 2307.10154.
        Departures: a task whose loss is not positive gets weight 0 for that step, does not count in T, and does not
        count the step. The second version, which has a reinforcement learner choose v, is not offered.

    Example:
        >>> method = igb(1, start=0)
        >>> state = method.init(2)
        >>> for losses in [[1.0, 1.0], [0.5, 1.0]]:
        ...     weights, state = method.update(jnp.array(losses), state)
        >>> [f"{weight:.3f}" for weight in weights]
        ['1.510', '1.245']
    """
    period = check_count("igb", "period", period, traced=True)
    begin = period if start is None else check_count("igb", "start", start, least=0, traced=True)

    def inner(num_tasks: int) -> IgbState:
        return IgbState(jnp.zeros((num_tasks,), jnp.int32), jnp.zeros((num_tasks,), jnp.float32))

    def rule(
        losses: Array, active: Array, inner: IgbState, *, key: Key | None, **extra: object
    ) -> tuple[Array, IgbState]:
        counted = active & (losses > 0)
        known = inner.count >= begin + period
        gaps = jnp.where(counted & known, losses * divide(jnp.full_like(losses, period), inner.base), 1.0)
        # The largest ratio may be out of range; the order of ratios is not affected.
        v = number(counted) * softmax(jnp.minimum(gaps, jnp.finfo(jnp.float32).max), counted)
        moved = IgbState(
            count=jnp.minimum(inner.count + 1, begin + period),
            base=jnp.where((inner.count >= begin) & ~known, inner.base + losses, inner.base),
        )
        return divide(v, jnp.where(counted, losses, 1.0)), held(moved, inner, counted)

    return method_of_losses("igb", rule, inner=inner, least_loss=0.0)
