"""Joint selection of parameters without shrinking the selected ones: each position costs at most a cap."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax.checks import check_nonnegative, check_number
from mtljax.penalties.common import Penalty, check_stacked, sum_over_leaves
from mtljax.penalties.groups import magnitude, map_leaves, soft_threshold
from mtljax.types import Array, PyTree


def capped_l1(strength: Array | float = 1.0, cap: Array | float = 1.0) -> Penalty:
    r"""The capped l1,l1 penalty of multi-stage multi-task feature learning; not convex.

        value(w) = strength * sum_p min(|w_p|_1, cap),   |w_p|_1 = sum_t |w_tp|
        prox(v, s)_p = soft(v_p, c)   if sum_t h(v_tp) <= c cap, and v_p otherwise,   c = s strength
                       h(x) = x^2 / 2 where |x| <= c, and c |x| - c^2 / 2 beyond (Huber's function)

    Below the cap, a position costs its l1 norm over tasks. Above the cap, the cost is constant, so large parameters are
    not shrunk, unlike with the l1 norm. There is no division by T.

    `prox` is the global minimiser. The objective at one position is the smaller of two functions,
    `|x - v|^2 / 2 + c |x|_1` and `|x - v|^2 / 2 + c cap`. So its minimum is the smaller of their minima, which are
    `sum_t h(v_t)` at `soft(v, c)` and `c cap` at `v`. If the two are equal, both points are minimisers, and the sparser
    one, `soft(v, c)`, is returned. The prox is discontinuous there, unlike that of a convex penalty.

    The gradient of a position is `strength * sign(w_p)` where `|w_p|_1 < cap`, and 0 from the cap on. These are the
    weights of the position in the paper's next stage. Proximal gradient steps converge to a critical point that depends
    on the start; start from the solution of `l1`.

    Args:
        strength: non-negative scalar; may be traced, so that it can be swept.
        cap: non-negative scalar, in the unit of the parameters: the l1 norm over tasks above which the cost of a
            position is constant; may be traced. An infinite cap gives `l1`.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    References:
        Gong, Ye and Zhang, "Multi-Stage Multi-Task Feature Learning", NIPS 2012; JMLR 14, 2013. Departures: the paper
        solves a sequence of weighted lassos, whose limit is a critical point too.

    Example:
        >>> w = {"w": jnp.array([[0.5, 4.0], [-0.2, 0.3]])}
        >>> float(capped_l1(1.0, 2.0)({"w": w["w"].round()}))
        2.0
        >>> capped_l1(1.0, 2.0).prox(w, 1.0)["w"]
        Array([[0. , 4. ],
               [0. , 0.3]], dtype=float32)
    """
    check_nonnegative("capped_l1", "strength", strength)
    check_number("capped_l1", "cap", cap, least=0, finite=False)

    def positions(w: Array) -> Array:
        length = jnp.sum(magnitude(w), 0)
        # Not `minimum`, whose gradient is halved where its two arguments are equal.
        return jnp.sum(jnp.where(length < cap, length, cap))

    def value(stacked: PyTree) -> Array:
        check_stacked("capped_l1", stacked)
        return strength * sum_over_leaves(stacked, positions)

    def prox(stacked: PyTree, step_size: Array | float) -> PyTree:
        check_stacked("capped_l1", stacked)
        check_nonnegative("capped_l1", "step_size", step_size)
        threshold = step_size * strength

        def leaf(v: Array) -> Array:
            magnitudes = jnp.abs(v)
            below = jnp.minimum(magnitudes, threshold)
            # Both sides are divided by the threshold, whose square may underflow. At 0 both candidates are v.
            unit = jnp.where(threshold > 0, threshold, 1.0).astype(v.dtype)
            price = jnp.sum(below / unit * (magnitudes - 0.5 * below), 0, keepdims=True)
            return jnp.where(price <= cap, soft_threshold(v, threshold), v)

        return map_leaves(leaf, stacked)

    return Penalty(value=value, prox=prox)
