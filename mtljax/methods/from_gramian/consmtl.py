"""ConsMTL: the update of the shared parameters."""

from __future__ import annotations

from typing import Any

from jax.typing import ArrayLike

from mtljax.methods.from_gramian.common import Answer, method_of_gramian
from mtljax.solvers.bargaining import bargaining
from mtljax.types import Array, Method, PyTree


def consmtl(*, weigh_tasks: bool = False) -> Method:
    """Consistent multi-task learning, the update of the shared parameters: `fairgrad` at alpha = 2.

    The weights solve `G w = w^(-1/2), w > 0`. With `d = sum_k w_k g_k`, this is `w_i = <g_i, d>^(-2)`.

    Args:
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; default False, as in the
            authors' code.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`, positive, 0 for a task
        that has no gradient. `state.residual` bounds the relative error of the direction, see
        `mtljax.solvers.bargaining`. Every task gains, except at a Pareto-stationary point.

    References:
        X. Qin, X. Wang, J. Yan (2025), "Towards consistent multi-task learning: unlocking the potential of
        task-specific parameters", CVPR.
        Departures: This is the upper level only. The lower level adds to each head's loss the inner product of its
        feature gradient with the joint feature gradient. It needs second derivatives of the heads and is not a function
        of the Gramian. The authors' code also multiplies the update by T and clips it at length 1; here this is left to
        the optimizer.

    Example:
        >>> import jax.numpy as jnp
        >>> method = consmtl()
        >>> weights, state = method.update(jnp.array([[8.0, 0.0], [0.0, 1.0]]), method.init(2))
        >>> weights.round(4).tolist()
        [0.25, 1.0]
    """

    def rule(gramian: Array, active: Array, inner: PyTree, *, scale: ArrayLike, **rest: Any) -> Answer:
        return bargaining(gramian, alpha=2.0, active=active, magnified=scale), inner

    return method_of_gramian("consmtl", rule, weigh_tasks=weigh_tasks, refines=True)
