"""FairGrad: alpha-fair gains for all tasks."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike

from mtljax.checks import check_number
from mtljax.methods.from_gramian.common import Answer, exact, method_of_gramian
from mtljax.solvers.bargaining import bargaining
from mtljax.solvers.scaling import Solution
from mtljax.types import Array, Method, PyTree


def fairgrad(alpha: float = 1.0, *, weigh_tasks: bool = False) -> Method:
    """Fair resource allocation: the direction maximises the sum of the alpha-fair utilities of the tasks' gains.

    `max_d sum_i <g_i, d>^(1 - alpha) / (1 - alpha)` over a ball leads to `d = sum_k w_k g_k` with

        G w = w^(-1 / alpha),  w > 0,   that is   w_i = <g_i, d>^(-alpha).

    Task gradients scaled by s give an update scaled by `s^((1 - alpha) / (1 + alpha))`.

    Args:
        alpha: the kind of fairness, at least 0. 0 gives the sum of task gradients. 1 gives proportional fairness,
            `nash_mtl`. 2 gives minimum potential delay. Large values approach max-min fairness, the direction of
            `mgda`. For small positive values, the direction approaches the sum if no task conflicts with it, else the
            projection of the sum on the directions without conflict.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; default False, as in the
            authors' code.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`, positive. For alpha > 0 a
        task that has no gradient has weight 0, and every task gains, except at a Pareto-stationary point.
        `state.residual` bounds the relative error of the direction, see `mtljax.solvers.bargaining`. Far below alpha =
        1 the bound may be 1 at a good direction.

    References:
        H. Ban, K. Ji (2024), "Fair resource allocation in multi-task learning", ICML, arXiv 2402.15638.
        Departures: Newton's method solves the equation to rounding. The authors' code solves it by least squares from
        equal weights, which stops early where gradients are small; it also multiplies the update by T and then clips it
        at length 1. Here clipping is left to the optimizer. LibMTL neither multiplies nor clips, and weighs the heads:
        `weigh_tasks=True`. TorchJD has the default.

    Example:
        >>> method = fairgrad(alpha=2.0)
        >>> weights, state = method.update(jnp.array([[8.0, 0.0], [0.0, 1.0]]), method.init(2))
        >>> weights.round(4).tolist()
        [0.25, 1.0]
    """
    check_number("fairgrad", "alpha", alpha, least=0)
    alpha = alpha if isinstance(alpha, Tracer) else float(alpha)

    def rule(gramian: Array, active: Array, inner: PyTree, *, scale: ArrayLike, **rest: Any) -> Answer:
        zero = alpha == 0
        equal = jnp.where(active, 1.0, 0.0)
        if zero is True:
            return exact(equal), inner
        exponent = alpha if zero is False else jnp.where(zero, 1.0, alpha)
        weights, residual = bargaining(gramian, alpha=exponent, active=active, magnified=scale)
        if zero is not False:
            weights, residual = jnp.where(zero, equal, weights), jnp.where(zero, 0.0, residual)
        return Solution(weights, residual), inner

    return method_of_gramian("fairgrad", rule, weigh_tasks=weigh_tasks, refines=True)
