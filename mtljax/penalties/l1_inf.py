"""Joint selection with the l1,inf norm: only the task with the largest magnitude at a position is penalised."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax.checks import check_nonnegative
from mtljax.penalties.common import Penalty, check_stacked, sum_over_leaves
from mtljax.penalties.groups import magnitude, map_leaves
from mtljax.types import Array, PyTree


def l1_inf(strength: Array | float = 1.0) -> Penalty:
    r"""Simultaneous variable selection: the largest magnitude over tasks at each position, summed over positions.

        value(w) = strength * sum_p max_t |w_tp|
        prox(v, s)_p = v_p - P(v_p),   P the projection onto {u in R^T: |u|_1 <= s strength}
                     = sign(v_p) min(|v_p|, a_p),   sum_t max(|v_tp| - a_p, 0) = s strength, or a_p = 0

    by Moreau's decomposition. A position is zero for all tasks or for none, as with `l21`. In addition, tasks tend to
    equal magnitudes, since only the largest is penalised. There is no division by T. `prox` is exact: it sorts the T
    magnitudes of each position, in `O(T log T)` per position. The gradient at a position goes to the largest task, in
    equal shares if several tasks are the largest, and is 0 if all are 0.

    Args:
        strength: non-negative scalar; may be traced, so that it can be swept.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    References:
        Turlach, Venables and Wright, "Simultaneous Variable Selection", Technometrics 47, 2005.
        Quattoni, Carreras, Collins and Darrell, "An Efficient Projection for l1,inf Regularization", ICML 2009.
        Departures: the papers bound this norm; here it is penalised.

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
    """Rows `[T, *p]` clipped at the magnitude that removes `radius` from each position, or all if there is less."""
    magnitudes = -jnp.sort(-jnp.abs(v), 0)
    largest = magnitudes[:1]
    counts = jnp.arange(1, v.shape[0] + 1, dtype=v.dtype).reshape(-1, *[1] * (v.ndim - 1))
    # If the k largest are clipped, their level is `largest - (sum_{i<=k} (largest - |v_i|) + radius) / k`; the right k
    # has the highest level. Differences to the largest, because a sum minus a small radius would lose the radius.
    levels = largest - (jnp.cumsum(largest - magnitudes, 0) + radius) / counts
    level = jnp.maximum(jnp.max(levels, 0, keepdims=True), 0.0)
    return jnp.clip(v, -level, level)
