"""Ordered tasks, such as points in time: parameters change smoothly from task to task, and are selected together."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax

from mtljax.checks import check_nonnegative
from mtljax.penalties.common import Penalty, check_stacked, mix_rows, sum_over_leaves
from mtljax.penalties.groups import Axes, check_has_axes, check_per, group_axes, map_leaves, norm
from mtljax.types import Array, PyTree


def temporal_group_lasso(
    ridge: Array | float,
    smooth: Array | float,
    joint: Array | float,
    *,
    per: int | Sequence[int] | None = None,
) -> Penalty:
    r"""The temporal group lasso: squared norm, squared differences of consecutive tasks, and joint selection.

        value(w) = ridge * sum_t |w_t|^2 + smooth * sum_{t < T} |w_{t+1} - w_t|^2 + joint * sum_g |w_g|_2
        prox(v, s)_g: (A + c / |x_g| I) x_g = v_g, or 0 where |v_g| <= c
                      A = I + 2 s (ridge I + smooth R^T R),   c = s joint,   R the differences

    Row t of a leaf is task t in sorted order of names, which must be the order of time: name tasks "month06" and
    "month12", since "month6" would come after "month12". Groups g are those of `l21`: all tasks at one position, or
    coarser with `per`. There is no factor 1/2 and no division by T.

    `prox` is exact to rounding. In the basis of the eigenvectors of `R^T R`, whose eigenvalues are
    `2 - 2 cos(pi i / T)`, its equation reduces to one equation for the norm r of a group,
    `sum_i v_i^2 / (a_i r + c)^2 = 1`. Newton's method, applied to one over the square root of the left-hand side,
    solves it from below for all groups at once, in about 5 steps. `prox` may be differentiated. Per parameter, storage
    is `O(T)` and work is `T^2` multiply-adds.

    Args:
        ridge: non-negative scalar on squares. All three strengths may be traced, so that they can be swept.
        smooth: non-negative scalar on squared differences.
        joint: non-negative scalar on norms of groups.
        per: axes of a parameter that index the groups of `joint`, as in `l21`.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    References:
        Zhou, Yuan, Liu and Ye, "A Multi-Task Learning Formulation for Predicting Disease Progression", KDD 2011.
        Departures: the paper takes gradient steps on the two squares and the prox of the last term alone; here the prox
        is that of the sum.

    Example:
        >>> w = {"w": jnp.array([[3.0], [4.0]])}
        >>> float(temporal_group_lasso(1.0, 2.0, 3.0)(w))
        42.0
        >>> temporal_group_lasso(0.0, 0.0, 1.0).prox(w, 5.0)["w"][:, 0]
        Array([0., 0.], dtype=float32)
    """
    for argument, number in (("ridge", ridge), ("smooth", smooth), ("joint", joint)):
        check_nonnegative("temporal_group_lasso", argument, number)
    axes = check_per("temporal_group_lasso", per)

    def positions(w: Array) -> Array:
        squares, jumps = jnp.sum(jnp.square(w)), jnp.sum(jnp.square(w[1:] - w[:-1]))
        return ridge * squares + smooth * jumps + joint * jnp.sum(norm((w,), (group_axes(w, axes),)))

    def value(stacked: PyTree) -> Array:
        check_stacked("temporal_group_lasso", stacked)
        check_has_axes("temporal_group_lasso", stacked, axes)
        return sum_over_leaves(stacked, positions)

    def prox(stacked: PyTree, step_size: Array | float) -> PyTree:
        check_stacked("temporal_group_lasso", stacked)
        check_has_axes("temporal_group_lasso", stacked, axes)
        check_nonnegative("temporal_group_lasso", "step_size", step_size)

        def leaf(v: Array) -> Array:
            num_tasks = v.shape[0]
            angles = np.pi * np.arange(num_tasks) / num_tasks
            basis = np.cos(np.outer(np.arange(num_tasks) + 0.5, angles))
            basis = jnp.asarray(basis / np.linalg.norm(basis, axis=0, keepdims=True), v.dtype)
            stiffness = 2.0 * step_size * (ridge + smooth * jnp.asarray(2.0 - 2.0 * np.cos(angles), v.dtype))
            stretch = (1.0 + stiffness).astype(v.dtype).reshape(-1, *[1] * (v.ndim - 1))
            threshold = jnp.asarray(step_size * joint, v.dtype)
            return mix_rows(basis, _shrunk(mix_rows(basis.T, v), stretch, threshold, group_axes(v, axes)))

        return map_leaves(leaf, stacked)

    return Penalty(value=value, prox=prox)


def _shrunk(v: Array, stretch: Array, threshold: Array, group: Axes) -> Array:
    """The x with `stretch x + threshold x / |x_g| = v`, or 0 where `|v_g|` is at most the threshold."""
    length = jnp.expand_dims(norm((v,), (group,)), group)
    kept = ~(length <= threshold)  # so that a NaN norm stays NaN
    # In units of the group's norm. Groups that become 0 get another problem, so that their derivatives are not NaN.
    unit = jnp.where(kept, length, 1.0)
    problem = jnp.where(kept, v / unit, 1.0), stretch, jnp.where(kept, threshold / unit, 0.0)
    radius = _radius(*lax.stop_gradient(problem), group)
    # One more step, from a constant radius, has the derivative of the exact root.
    radius = _newton(radius, *problem, group)
    x = problem[0] * radius / (stretch * radius + problem[2])
    return jnp.where(kept, unit * x, 0.0)


def _newton(radius: Array, v: Array, stretch: Array, threshold: Array, group: Axes) -> Array:
    """One Newton step towards the r with `sum_i v_i^2 / (stretch_i r + threshold)^2 = 1`.

    One over the square root of that sum is concave in r, so a step from below stays below.
    """
    scale = stretch * radius + threshold
    squares = jnp.square(v / scale)
    total = jnp.sum(squares, group, keepdims=True)
    return radius + (jnp.sqrt(total) - 1.0) * total / jnp.sum(squares * stretch / scale, group, keepdims=True)


def _radius(v: Array, stretch: Array, threshold: Array, group: Axes) -> Array:
    """The r of `_newton`, starting from its lower bound for `|v| >= 1`."""
    stiffest = jnp.max(stretch)
    lowest = (1.0 - threshold) / stiffest
    # The error after a step is about the square of the step, in units of the length over which the function bends. So
    # this is close enough for the last step in `_shrunk`, and far above rounding.
    close = jnp.finfo(v.dtype).eps ** 0.5

    def far(state: tuple[Array, Array]) -> Array:
        return jnp.any(state[1] - state[0] > close * (state[0] + threshold / stiffest))

    def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
        return state[1], _newton(state[1], v, stretch, threshold, group)

    first = (lowest, _newton(lowest, v, stretch, threshold, group))
    return lax.while_loop(far, step, first)[1]
