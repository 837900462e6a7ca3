"""UPGrad: the mean of the task gradients, each projected so that it conflicts with no task."""

from __future__ import annotations

from typing import Any

from jax.typing import ArrayLike

from mtljax.checks import check_preference
from mtljax.methods.arithmetic import preference_of
from mtljax.methods.from_gramian.common import Answer, method_of_gramian
from mtljax.solvers import projected_rows
from mtljax.types import Array, Method, PyTree


def upgrad(*, preference: ArrayLike | None = None, weigh_tasks: bool = False) -> Method:
    """Unconflicting projection of gradients.

    `d = sum_k p_k P(g_k)`, with `P` the projection onto the dual cone `{d : <g_i, d> >= 0 for all i}` and p the
    preference. In weights: `sum_k p_k v_k` with `v_k = argmin_v v'Gv subject to v >= e_k`. The update conflicts with no
    task, does not depend on the order of tasks, and is linear under scaling of single tasks.

    Args:
        preference: numbers `[T]`, non-negative and not all zero, used as they are; None for the mean, `1/T` over the
            active tasks.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; False (default) in
            TorchJD and LibMTL.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`; `state.residual` is
        that of `mtljax.solvers.projected_rows`, the errors of the projections over the length of the update.

    References:
        P. Quinton, V. Rey (2024), "Jacobian descent for multi-objective optimization", arXiv 2406.16232. Departure:
        the Gramian is regularised by its own rounding only. The preference is the weighting of rows of the authors'
        library.

    Example:
        >>> import jax.numpy as jnp
        >>> method = upgrad()
        >>> weights, state = method.update(jnp.array([[1.0, -0.5], [-0.5, 1.0]]), method.init(2))
        >>> weights.tolist()
        [0.75, 0.75]
    """
    shares = check_preference("upgrad", preference)

    def rule(gramian: Array, active: Array, inner: PyTree, **rest: Any) -> Answer:
        return projected_rows(gramian, preference_of(shares, active), active=active), inner

    return method_of_gramian("upgrad", rule, per_task={"preference": shares}, weigh_tasks=weigh_tasks, refines=True)
