"""Losses in units of their own running standard deviation."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from mtljax.checks import check_number
from mtljax.methods.common import PULL
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.participation import held
from mtljax.types import Array, Key, Method


class LossNormalizationState(NamedTuple):
    """Running moments of every task's loss.

    Attributes:
        mean: float32 `[T]`.
        deviation: float32 `[T]`, standard deviation; 0 before a task's first step.
        started: bool `[T]`, whether the task has been active.
    """

    mean: Array
    deviation: Array
    started: Array


def loss_normalization(*, step_size: float = 3e-4, floor: float = 1e-4) -> Method:
    """Normalised losses in the manner of PopArt: `w_k = 1 / sigma_k`, the gradient of `(L_k - mu_k) / sigma_k`.

    Moments of each loss run with a step size b, as in PopArt:

        mu <- (1 - b) mu + b L,    nu <- (1 - b) nu + b L^2,    sigma^2 = nu - mu^2,

    from mu = 0 and nu = (the task's first loss)^2, that is, PopArt's start in each task's own unit. So weights begin at
    1 / |L_k| and approach 1 / sigma_k after about 1 / b steps. Multiplying a loss by a constant changes nothing.

    Args:
        step_size: b, in (0, 1], default 3e-4, the value of Hessel et al. Larger values follow a loss that falls fast.
        floor: at least 0, the least sigma as a share of the root of nu; default 1e-4.

    Returns:
        `Method` that reads losses, floating point `[T]`; one backward pass. Weights are float32 `[T]`. Losses may be
        negative. Task-specific gradients are weighted too. `state.residual` is 0.

    References:
        H. van Hasselt, A. Guez, M. Hessel, V. Mnih, D. Silver (2016), "Learning values across many orders of
        magnitude", NeurIPS, arXiv 1602.07714; M. Hessel et al. (2019), "Multi-task deep reinforcement learning with
        PopArt", AAAI, arXiv 1809.04474.
        Departures: PopArt normalises the targets of value functions and rescales their last layer so that outputs
        stay; a loss has no layer to rescale, so only the scale is left. The bounds of sigma, 1e-4 and 1e6 there,
        are a share of the loss's own size here. A loss of exactly 0 does not change the moments. The distance of a loss
        from mu is at most 64 times the root of nu. A task has weight 1 while all its losses were 0.

    Example:
        >>> method = loss_normalization()
        >>> weights, state = method.update(jnp.array([0.5, 4.0]), method.init(2))
        >>> [f"{weight:.3f}" for weight in weights]
        ['2.000', '0.250']
    """
    check_number("loss_normalization", "step_size", step_size, above=0.0, most=1.0)
    check_number("loss_normalization", "floor", floor, least=0.0)

    def inner(num_tasks: int) -> LossNormalizationState:
        return LossNormalizationState(
            mean=jnp.zeros((num_tasks,), jnp.float32),
            deviation=jnp.zeros((num_tasks,), jnp.float32),
            started=jnp.zeros((num_tasks,), bool),
        )

    def rule(
        losses: Array, active: Array, inner: LossNormalizationState, *, key: Key | None, **extra: object
    ) -> tuple[Array, LossNormalizationState]:
        before = jnp.where(inner.started, inner.deviation, jnp.abs(losses))
        surprise = losses - inner.mean
        most = PULL * jnp.hypot(before, inner.mean)
        surprise = jnp.where(inner.started, jnp.clip(surprise, -most, most), surprise)
        # The same as nu - mu^2, without the cancellation, and with no square that could leave float32's range.
        deviation = (1.0 - step_size) ** 0.5 * jnp.hypot(before, step_size**0.5 * surprise)
        mean = inner.mean + step_size * surprise
        moved = LossNormalizationState(mean, deviation, jnp.ones_like(inner.started))
        sigma = jnp.maximum(deviation, floor * jnp.hypot(deviation, mean))
        weights = jnp.where(sigma > 0, 1.0 / jnp.where(sigma > 0, sigma, 1.0), 1.0)
        counted = active & (losses != 0)
        return weights, held(moved, inner, counted)

    return method_of_losses("loss_normalization", rule, inner=inner)
