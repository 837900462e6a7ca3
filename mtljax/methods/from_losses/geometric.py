"""The geometric mean of the losses."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax.methods.arithmetic import mean, number
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.types import Array, Key, Method, PyTree


def geometric() -> Method:
    """Geometric loss strategy: `f = (prod_k L_k)^(1 / T)`, so `w_k = f / (T L_k)`.

    The product is computed through logarithms, so it neither overflows nor underflows.

    Returns:
        `Method` that reads losses, floating point `[T]`; one backward pass. Weights are float32 `[T]`. Losses must not
        be negative. Task-specific gradients are weighted too. `state.residual` is 0.

    References:
        S. Chennupati, G. Sistu, S. Yogamani, S. Rawashdeh (2019), "MultiNet++: multi-stream feature aggregation and
        geometric loss strategy for multi-task learning", CVPR workshops, arXiv 1904.08492.
        Departures: a task whose loss is not positive gets weight 0 for that step and does not count in T, where the
        paper's product would be zero and its gradient undefined. The focused variant (products of powers) is not
        offered. LibMTL and TorchJD differentiate the same function; the weight that LibMTL logs is another one.

    Example:
        >>> method = geometric()
        >>> [f"{weight:.2f}" for weight in method.update(jnp.array([2.0, 8.0]), method.init(2))[0]]
        ['1.00', '0.25']
    """

    def rule(losses: Array, active: Array, inner: PyTree, *, key: Key | None, **extra: object) -> tuple[Array, PyTree]:
        counted = active & (losses > 0)
        logs = jnp.log(jnp.where(counted, losses, 1.0))
        weights = jnp.exp(mean(logs, counted) - logs) / number(counted)
        return jnp.where(counted, weights, 0.0), inner

    return method_of_losses("geometric", rule, least_loss=0.0)
