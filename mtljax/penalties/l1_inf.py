"""The tasks choose their parameters together, and what is chosen may grow to the largest task's size for nothing."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax.checks import check_nonnegative
from mtljax.penalties.common import Penalty, check_stacked, sum_over_leaves
from mtljax.penalties.groups import magnitude, map_leaves
from mtljax.types import Array, PyTree


def l1_inf(strength: Array | float = 1.0) -> Penalty:
    r"""Simultaneous variable selection: the largest magnitude among tasks at each position, summed over positions.

        value(w) = strength * sum_p max_t |w_tp|
        prox(v, s)_p = v_p - P(v_p),   P the projection onto {u in R^T: |u|_1 <= s strength}
                     = sign(v_p) min(|v_p|, a_p),   sum_t max(|v_tp| - a_p, 0) = s strength, or a_p = 0

    by Moreau's decomposition. A position is zero for all tasks or for none, as with `l21`; beyond that, tasks are drawn
    to equal magnitudes, since only the largest is paid for. There is no division by T. `prox` is exact: it sorts each
    position's T magnitudes, `O(T log T)` a parameter. The gradient at a position goes to the largest task, in equal
    shares where several are as large, and is 0 where all are 0.

    Turlach, Venables and Wright, "Simultaneous Variable Selection", Technometrics 47, 2005; Quattoni, Carreras, Collins
    and Darrell, "An Efficient Projection for l1,inf Regularization", ICML 2009, who bound what is penalised here.

    Args:
        strength: non-negative scalar; may be traced, so that it can be swept.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    Raises:
        ValueError: `strength` (or the `step_size` of `prox`) is negative or no scalar; leaves without one common
            leading task axis.
        TypeError: a leaf that is not of a floating-point type.

    Example:
        >>> w = {"w": jnp.array([[3.0, 1.0], [-5.0, 0.0]])}
        >>> float(l1_inf()(w))
        6.0
        >>> l1_inf().prox(w, 4.0)["w"]
        Array([[ 2.,  0.],
               [-2.,  0.]], dtype=float32)
    """
    check_nonnegative("l1_inf", "strength", strength)

    def value(stacked: PyTree) -> Array:
        check_stacked("l1_inf", stacked)
        return strength * sum_over_leaves(stacked, lambda w: jnp.sum(jnp.max(magnitude(w), 0, initial=0.0)))

    def prox(stacked: PyTree, step_size: Array | float) -> PyTree:
        check_stacked("l1_inf", stacked)
        check_nonnegative("l1_inf", "step_size", step_size)
        return map_leaves(lambda v: _capped(v, step_size * strength), stacked)

    return Penalty(value=value, prox=prox)


def _capped(v: Array, radius: Array | float) -> Array:
    """Rows `[T, *p]` cut off at the magnitude that takes `radius` away from each position, or all there is."""
    magnitudes = -jnp.sort(-jnp.abs(v), 0)
    largest = magnitudes[:1]
    counts = jnp.arange(1, v.shape[0] + 1, dtype=v.dtype).reshape(-1, *[1] * (v.ndim - 1))
    # With the k largest cut off, they are cut to `largest - (sum_{i<=k} (largest - |v_i|) + radius) / k`; the right k
    # gives the highest such level. Differences to the largest, because sums less a small radius would lose it.
    levels = largest - (jnp.cumsum(largest - magnitudes, 0) + radius) / counts
    level = jnp.maximum(jnp.max(levels, 0, keepdims=True), 0.0)
    return jnp.clip(v, -level, level)
