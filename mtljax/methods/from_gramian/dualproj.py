"""DualProj: the mean of the task gradients, projected so that it conflicts with no task."""

from __future__ import annotations

from typing import Any

from jax.typing import ArrayLike

from mtljax.checks import check_preference
from mtljax.methods.arithmetic import preference_of
from mtljax.methods.from_gramian.common import Answer, method_of_gramian
from mtljax.solvers import cone_projection
from mtljax.types import Array, Method, PyTree


def dualproj(*, preference: ArrayLike | None = None, weigh_tasks: bool = False) -> Method:
    """Projection of the mean gradient onto the dual cone, as in gradient episodic memory (GEM).

    `d = P(sum_k p_k g_k)`, with `P` the projection onto the dual cone `{d : <g_i, d> >= 0 for all i}` and p the
    preference. In weights: `argmin_v v'Gv subject to v >= p`. The update conflicts with no task, does not depend on the
    order of tasks, and is `sum_k p_k g_k` itself where that conflicts with none.

    Args:
        preference: numbers `[T]`, non-negative and not all zero, used as they are; None for the mean, `1/T` over the
            active tasks. One task's unit vector gives GEM: the current task's gradient, the others being memories.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; False (default) in
            TorchJD.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`; `state.residual` bounds the
        conflict and the relative error of the direction, see `mtljax.solvers.cone_projection`.

    References:
        D. Lopez-Paz, M. Ranzato (2017), "Gradient episodic memory for continual learning", NeurIPS, arXiv
        1706.08840; named by P. Quinton, V. Rey (2024), "Jacobian descent for multi-objective optimization", arXiv
        2406.16232. Departures from GEM: the mean in place of the current task's gradient, by default, and no margin
        added to the multipliers. TorchJD's numbers: the defaults, up to its regularisation of the Gramian.

    Example:
        >>> import jax.numpy as jnp
        >>> method = dualproj()
        >>> weights, state = method.update(jnp.array([[1.0, -2.0], [-2.0, 8.0]]), method.init(2))
        >>> weights.round(4).tolist()
        [1.0, 0.5]
    """
    shares = check_preference("dualproj", preference)

    def rule(gramian: Array, active: Array, inner: PyTree, **rest: Any) -> Answer:
        return cone_projection(gramian, preference_of(shares, active), active=active), inner

    return method_of_gramian("dualproj", rule, per_task={"preference": shares}, weigh_tasks=weigh_tasks, refines=True)
