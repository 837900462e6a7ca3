"""Robust multi-task learning: parameters are the sum of a low-rank part and the parameters of few outlier tasks."""

from __future__ import annotations

from mtljax.checks import check_flag, check_nonnegative
from mtljax.penalties.common import Penalty
from mtljax.penalties.parts import by_part
from mtljax.penalties.task_l2 import task_l2
from mtljax.penalties.trace_norm import trace_norm
from mtljax.types import Array


def robust(
    strength_low_rank: Array | float = 1.0, strength_outliers: Array | float = 1.0, *, joint: bool = False
) -> Penalty:
    r"""Robust multi-task learning: a low-rank part plus a part that is zero except for outlier tasks.

        w = low_rank + outliers
        value(low_rank, outliers) = strength_low_rank * |low_rank|_* + strength_outliers * sum_t |outliers_t|_2
        prox(v, s) = (prox of trace_norm(strength_low_rank) at v_low_rank,
                      prox of task_l2(strength_outliers) at v_outliers)

    `outliers_t` is the part of task t over all leaves, so a task is an outlier as a whole or not at all. Outlier tasks
    do not change the directions that the other tasks share. The parts are separate arguments of the penalty, so the
    prox is exact. Nothing is divided by T or by the number of parameters.

    For one matrix of T tasks, `|X|_* <= sum_t |x_t|_2 <= sqrt(T) |X|_*`. Let
    `c = strength_outliers / strength_low_rank`. From `c = 1` on, the best outlier part is 0. Up to `c = 1/sqrt(T)`, a
    best low-rank part is 0. Both parts are used only in between.

    Args:
        strength_low_rank: non-negative scalar, on the part that tasks share; may be traced.
        strength_outliers: non-negative scalar, on the part of the outlier tasks; may be traced.
        joint: whether all leaves of the low-rank part are one matrix, as in `trace_norm`.

    Returns:
        `Penalty` with `parts` `("low_rank", "outliers")`. Its argument is a dict by these names of two pytrees with the
        same structure and leaves `[T, *p]`, whose sum is the parameters.

    Raises:
        NotImplementedError: second derivatives are taken.

    References:
        Chen, Zhou and Ye, "Integrating Low-Rank and Group-Sparse Structures for Robust Multi-Task Learning", KDD 2011.

    Example:
        >>> import jax.numpy as jnp
        >>> parts = {"low_rank": jnp.array([[0.0, 0.0], [3.0, 4.0]]), "outliers": jnp.array([[3.0, 4.0], [0.3, 0.4]])}
        >>> round(float(robust(1.0, 2.0)(parts)), 5)
        16.0
        >>> robust(1.0, 0.5).prox(parts, 1.0)["outliers"].round(5)
        Array([[2.7, 3.6],
               [0. , 0. ]], dtype=float32)
    """
    check_nonnegative("robust", "strength_low_rank", strength_low_rank)
    check_nonnegative("robust", "strength_outliers", strength_outliers)
    check_flag("robust", "joint", joint)
    return by_part(
        "robust", {"low_rank": trace_norm(strength_low_rank, joint=joint), "outliers": task_l2(strength_outliers)}
    )
