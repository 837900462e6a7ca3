"""Joint selection with the l2,1 norm: a parameter is zero for all tasks or for none."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from mtljax.checks import check_nonnegative
from mtljax.penalties.common import Penalty, check_stacked, sum_over_leaves
from mtljax.penalties.groups import check_has_axes, check_per, group_axes, map_leaves, norm, shrink
from mtljax.types import Array, PyTree


def l21(strength: Array | float = 1.0, *, per: int | Sequence[int] | None = None) -> Penalty:
    r"""Joint feature selection: the norm across tasks of each group of parameters, summed over groups.

        value(w) = strength * sum_g |w_g|_2,   |w_g|_2 = sqrt(sum_{t, p in g} w_tp^2)
        prox(v, s)_g = max(1 - s strength / |v_g|_2, 0) v_g

    A group contains all T tasks, so it becomes zero for all tasks together. There is no division by T or by the square
    root of a group's size; if groups differ in size, weigh them with `weighted`. The gradient of a group is 0 where the
    group is 0.

    By default each position p of a parameter is one group of T numbers. This is right for linear models, where a
    position is a feature. In a network a feature is a unit with many weights. `per` names the axes that index the
    units, and the norm sums over all other axes. Axes count from the end of one task's parameter `[*p]`, so that one
    number serves dense and convolutional layers:

    | `per` | kernel `[in, out]` | kernel `[height, width, in, out]` | bias `[out]` |
    |---|---|---|---|
    | None | every weight | every weight | every entry |
    | -2 | an input unit: its outgoing weights | an input channel: its outgoing weights | error: no such axis |
    | -1 | an output unit: its incoming weights | an output channel: its incoming weights | every entry |
    | (-2, -1) | every weight | an input and an output channel: their filter | error: no such axis |
    | () | the whole kernel | the whole kernel | the whole bias |

    A group never contains several leaves. To leave out biases, select kernels with `on`.

    Args:
        strength: non-negative scalar; may be traced, so that it can be swept.
        per: axes of a parameter that index its groups, negative, counted from its end; see the table.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    Raises:
        ValueError: `per` holds a number that is not negative, one axis twice, or an axis that a leaf does not have.

    References:
        Obozinski, Taskar and Jordan, "Joint covariate selection and joint subspace selection for multiple
        classification problems", Statistics and Computing 20, 2010.
        Liu, Ji and Ye, "Multi-Task Feature Learning Via Efficient l2,1-Norm Minimization", UAI 2009.
        Argyriou, Evgeniou and Pontil, "Multi-Task Feature Learning", NIPS 2006, also learns a rotation of the features,
        which makes it a trace norm.

    Example:
        >>> w = {"w": jnp.array([[3.0, 0.0], [4.0, 1.0]])}
        >>> float(l21()(w))
        6.0
        >>> l21().prox(w, 2.5)["w"]
        Array([[1.5, 0. ],
               [2. , 0. ]], dtype=float32)
        >>> float(l21(per=())({"w": jnp.ones((2, 8))}))
        4.0
    """
    check_nonnegative("l21", "strength", strength)
    axes = check_per("l21", per)

    def lengths(w: Array) -> Array:
        return norm((w,), (group_axes(w, axes),))

    def value(stacked: PyTree) -> Array:
        check_stacked("l21", stacked)
        check_has_axes("l21", stacked, axes)
        return strength * sum_over_leaves(stacked, lambda w: jnp.sum(lengths(w)))

    def prox(stacked: PyTree, step_size: Array | float) -> PyTree:
        check_stacked("l21", stacked)
        check_has_axes("l21", stacked, axes)
        check_nonnegative("l21", "step_size", step_size)

        def leaf(v: Array) -> Array:
            return jnp.expand_dims(shrink(lengths(v), step_size * strength), group_axes(v, axes)) * v

        return map_leaves(leaf, stacked)

    return Penalty(value=value, prox=prox)
