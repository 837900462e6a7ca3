"""Soft optimal uncertainty weighting."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax.checks import check_number
from mtljax.methods.arithmetic import softmax
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.types import Array, Key, Method, PyTree


def uncertainty_softmax(temperature: float = 1.0) -> Method:
    """Soft optimal uncertainty weighting (UW-SO): `w = softmax((1 / sg(L)) / temperature)`.

    `1 / L_k` is what uncertainty weighting learns, in closed form; the softmax bounds it. Weights sum to 1.

    Args:
        temperature: positive; large for equal weights, small for all weight on the smallest loss. It is in units of
            1 / loss, and the paper tunes it for every data set (default 1).

    Returns:
        `Method` that reads losses, floating point `[T]`; one backward pass. Weights are float32 `[T]`. Losses must not
        be negative. Task-specific gradients are weighted too. `state.residual` is 0.

    References:
        L. Kirchdorfer, C. Elich, S. Kutsche, H. Stuckenschmidt, L. Schott, J. M. Köhler (2024), "Analytical
        uncertainty-based loss weighting in multi-task learning", GCPR, arXiv 2408.07985.
        Departures: a task whose loss is not positive gets weight 0 for that step and does not count.

    Example:
        >>> import jax.numpy as jnp
        >>> method = uncertainty_softmax()
        >>> method.update(jnp.array([0.5, 0.5]), method.init(2))[0]
        Array([0.5, 0.5], dtype=float32)
    """
    check_number("uncertainty_softmax", "temperature", temperature, above=0.0)

    def rule(losses: Array, active: Array, inner: PyTree, *, key: Key | None, **extra: object) -> tuple[Array, PyTree]:
        counted = active & (losses > 0)
        # Bounded, because the reciprocal of a very small loss is out of range, and inf - inf is NaN.
        scores = jnp.minimum(1.0 / temperature / jnp.where(counted, losses, 1.0), jnp.finfo(jnp.float32).max)
        return softmax(scores, counted), inner

    return method_of_losses("uncertainty_softmax", rule, least_loss=0.0)
