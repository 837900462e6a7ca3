"""Coefficient-of-variation weighting."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from mtljax.checks import check_number
from mtljax.methods.arithmetic import divide, number, total
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.participation import held
from mtljax.types import Array, Key, Method

LARGEST_RATIO = 8.0


class CovWeightingState(NamedTuple):
    """Running statistics of every task, over the steps at which it was active.

    Attributes:
        count: int32 `[T]`, number of those steps.
        mean_loss: float32 `[T]`, mean of the losses.
        mean_ratio: float32 `[T]`, mean of the loss ratios.
        deviation: float32 `[T]`, standard deviation of the loss ratios.
    """

    count: Array
    mean_loss: Array
    mean_ratio: Array
    deviation: Array


def cov_weighting(*, epsilon: float = 1e-8) -> Method:
    """Coefficient-of-variation weighting: more weight where the loss, relative to its past, varies more.

    With the loss ratio `l_k = L_k / (mean of the losses before)`, 1 at a task's first step, and its running mean m and
    standard deviation s over the steps before this one,

        w_k = c_k / sum_j c_j,    c_k = s_k / m_k.

    At its first two steps a task has weight 1 / T; the other tasks share the rest.

    Args:
        epsilon: at least 0, added to the variance of a ratio; default 1e-8, the authors'.

    Returns:
        `Method` that reads losses, floating point `[T]`; one backward pass. Weights are float32 `[T]` and sum to 1.
        Task-specific gradients are weighted too. `state.residual` is 0.

    References:
        R. Groenendijk, S. Karaoglu, T. Gevers, T. Mensink (2021), "Multi-loss weighting with coefficient of
        variations", WACV, arXiv 2009.01717.
        Departures: the variance divides by the number of steps, as in the authors' code. Their decaying mean is not
        offered. A task whose loss is exactly 0 gets weight 0 for that step and does not count: its statistics do not
        change, because a solved task would vary more and more relative to its mean. A ratio to a mean that is not
        positive counts as 1, one beyond 8 as 8. Where no loss has ever varied and epsilon is 0, weights are equal.

    Example:
        >>> method = cov_weighting()
        >>> state = method.init(2)
        >>> for losses in [[1.0, 1.0], [0.5, 0.75], [0.5, 0.5]]:
        ...     weights, state = method.update(jnp.array(losses), state)
        >>> [f"{weight:.3f}" for weight in weights]
        ['0.700', '0.300']
    """
    check_number("cov_weighting", "epsilon", epsilon, least=0.0)

    def inner(num_tasks: int) -> CovWeightingState:
        zeros = [jnp.zeros((num_tasks,), jnp.float32) for _ in range(3)]
        return CovWeightingState(jnp.zeros((num_tasks,), jnp.int32), *zeros)

    def rule(
        losses: Array, active: Array, inner: CovWeightingState, *, key: Key | None, **extra: object
    ) -> tuple[Array, CovWeightingState]:
        variation = divide(jnp.hypot(inner.deviation, epsilon**0.5), jnp.abs(inner.mean_ratio))
        counted = active & (losses != 0)
        old = counted & (inner.count >= 2)
        equal = 1.0 / number(counted)
        rest = total(jnp.full_like(losses, equal), old)
        whole = total(variation, old)
        weights = jnp.where(old & (whole > 0), rest * divide(variation, whole), jnp.where(counted, equal, 0.0))

        # The first loss is the unit. Later losses are bounded, because the moments never forget.
        losses = jnp.where(inner.mean_loss > 0, jnp.minimum(losses, LARGEST_RATIO * inner.mean_loss), losses)
        ratio = jnp.where(inner.mean_loss > 0, divide(losses, inner.mean_loss), 1.0)
        share = 1.0 / (inner.count + 1).astype(jnp.float32)
        surprise = ratio - inner.mean_ratio
        # Welford's recurrence, under the root: the square of a ratio may leave float32's range.
        deviation = jnp.hypot(inner.deviation * jnp.sqrt(1.0 - share), surprise * jnp.sqrt((1.0 - share) * share))
        moved = CovWeightingState(
            count=inner.count + 1,
            mean_loss=inner.mean_loss + share * (losses - inner.mean_loss),
            mean_ratio=inner.mean_ratio + share * surprise,
            deviation=deviation,
        )
        return weights, held(moved, inner, counted)

    return method_of_losses("cov_weighting", rule, inner=inner)
