"""Whole tasks are zero, except few outlier tasks."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtljax import trees
from mtljax.checks import check_nonnegative
from mtljax.penalties.common import Penalty, check_stacked
from mtljax.penalties.groups import norm, shrink
from mtljax.types import Array, PyTree


def task_l2(strength: Array | float = 1.0) -> Penalty:
    r"""One group per task: the norm of each task's parameters over all leaves, summed over tasks.

        value(w) = strength * sum_t |w_t|_2,   |w_t|_2 = sqrt(sum over all leaves of w_tp^2)
        prox(v, s)_t = max(1 - s strength / |v_t|_2, 0) v_t

    The parameters of a task in all leaves are one group, so a task becomes zero as a whole. Applied to the second
    summand of `w = common + own`, the penalty finds the few tasks without the common structure. There is no division by
    T or by the number of parameters. The gradient of a task is 0 where all of its parameters are 0.

    Args:
        strength: non-negative scalar; may be traced, so that it can be swept.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    References:
        Chen, Zhou and Ye, "Integrating Low-Rank and Group-Sparse Structures for Robust Multi-Task Learning", KDD 2011,
        and Gong, Ye and Zhang, "Robust Multi-Task Feature Learning", KDD 2012, as the penalty of the second summand.

    Example:
        >>> w = {"w": jnp.array([[3.0], [0.0]]), "b": jnp.array([4.0, 1.0])}
        >>> float(task_l2()(w))
        6.0
        >>> task_l2().prox(w, 2.5)["b"]
        Array([2., 0.], dtype=float32)
    """
    check_nonnegative("task_l2", "strength", strength)

    def value(stacked: PyTree) -> Array:
        check_stacked("task_l2", stacked)
        if not jax.tree.leaves(stacked):
            return strength * jnp.zeros((), jnp.float32)
        return strength * jnp.sum(_lengths(stacked))

    def prox(stacked: PyTree, step_size: Array | float) -> PyTree:
        check_stacked("task_l2", stacked)
        check_nonnegative("task_l2", "step_size", step_size)
        if not jax.tree.leaves(stacked):
            return stacked
        factors = shrink(_lengths(stacked), step_size * strength)

        def leaf(v: Array) -> Array:
            return (factors.reshape(-1, *[1] * (v.ndim - 1)) * v.astype(factors.dtype)).astype(v.dtype)

        return jax.tree.map(leaf, stacked)

    return Penalty(value=value, prox=prox)


def _lengths(stacked: PyTree) -> Array:
    """`[T]`, the norm of each task's parameters."""
    leaves = jax.tree.leaves(stacked)
    dtype = trees.accumulator(jnp.result_type(*leaves))
    return norm(tuple(leaf.astype(dtype) for leaf in leaves), tuple(tuple(range(1, jnp.ndim(leaf))) for leaf in leaves))
