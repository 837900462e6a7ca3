"""The lasso: single parameters of single tasks are zero."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax.checks import check_nonnegative
from mtljax.penalties.common import Penalty, check_stacked, sum_over_leaves
from mtljax.penalties.groups import magnitude, map_leaves, soft_threshold
from mtljax.types import Array, PyTree


def l1(strength: Array | float = 1.0) -> Penalty:
    r"""The lasso: few parameters differ from zero, selected separately per task.

        value(w) = strength * sum_tp |w_tp|
        prox(v, s) = sign(v) max(|v| - s strength, 0)

    t runs over tasks and p over the positions of all parameters; there is no division by their numbers. This penalty
    does not couple the tasks: it is a summand of penalties that do, and a baseline for them. The gradient is 0 where a
    parameter is 0.

    Args:
        strength: non-negative scalar; may be traced, so that it can be swept.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    References:
        Tibshirani, "Regression Shrinkage and Selection via the Lasso", Journal of the Royal Statistical Society B 58,
        1996.

    Example:
        >>> w = {"w": jnp.array([[1.0, -0.5], [3.0, 0.0]])}
        >>> float(l1(2.0)(w))
        9.0
        >>> l1(2.0).prox(w, 0.5)["w"]
        Array([[0., 0.],
               [2., 0.]], dtype=float32)
    """
    check_nonnegative("l1", "strength", strength)

    def value(stacked: PyTree) -> Array:
        check_stacked("l1", stacked)
        return strength * sum_over_leaves(stacked, lambda w: jnp.sum(magnitude(w)))

    def prox(stacked: PyTree, step_size: Array | float) -> PyTree:
        check_stacked("l1", stacked)
        check_nonnegative("l1", "step_size", step_size)
        return map_leaves(lambda v: soft_threshold(v, step_size * strength), stacked)

    return Penalty(value=value, prox=prox)
