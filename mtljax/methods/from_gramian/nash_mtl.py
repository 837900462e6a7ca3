"""Nash-MTL: the Nash bargaining solution among the tasks."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax.checks import check_number
from mtljax.methods.from_gramian.common import Answer, method_of_gramian
from mtljax.solvers.bargaining import bargaining
from mtljax.solvers.scaling import Solution, as_float32, multiply
from mtljax.solvers.scaling import scale as divided
from mtljax.types import Array, Method, PyTree


def nash_mtl(*, max_norm: float | None = None, weigh_tasks: bool = True) -> Method:
    """Multi-task learning as a bargaining game.

    The weights solve `G w = 1 / w, w > 0`. With `d = sum_k w_k g_k`, each task's gain is one over its weight,
    `<g_i, d> = 1 / w_i`. The direction d maximises `sum_i log <g_i, d>`, the logarithm of the product of gains, over a
    ball. The length of d is the root of the number of tasks, at any scale of the gradients. A factor on a task's loss
    does not change d.

    Args:
        max_norm: the largest length of the update; None for no bound. The length of d is `sqrt(T)`, so `max_norm=1`
            divides every update by `sqrt(T)`.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; default True, as in the
            authors' code.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`, positive, 0 for a task
        that has no gradient. `state.residual` bounds the relative error of the direction, see
        `mtljax.solvers.bargaining`. Every task gains, except at a Pareto-stationary point.

    References:
        A. Navon, A. Shamsian, I. Achituve, H. Maron, K. Kawaguchi, G. Chechik, E. Fetaya (2022), "Multi-task
        learning as a bargaining game", ICML, arXiv 2202.01017.
        Departures: Newton's method solves the equation to rounding. The paper solves up to 20 convex programs that
        start from the last weights; here there is no state. The default follows the paper's Algorithm 1, which does not
        clip. The authors' code, LibMTL and TorchJD clip at length 1: `max_norm=1.0`. TorchJD leaves the heads
        unweighted: `weigh_tasks=False`. The other two clip the shared gradient only, and weigh the heads by the weights
        before the clip. To solve at every n-th step only, wrap the method in `every`.

    Example:
        >>> method = nash_mtl()
        >>> weights, state = method.update(jnp.array([[4.0, 0.0], [0.0, 1.0]]), method.init(2))
        >>> weights.round(4).tolist()
        [0.5, 1.0]
    """
    if max_norm is not None:
        check_number("nash_mtl", "max_norm", max_norm, above=0, finite=False)

    def rule(gramian: Array, active: Array, inner: PyTree, *, scale: ArrayLike, **rest: Any) -> Answer:
        weights, residual = bargaining(gramian, active=active, magnified=scale)
        if max_norm is not None:
            # Weights times norms stay in the range of float32; the Gramian itself may use that range fully.
            scaled = divided(gramian, active)
            amounts = weights / scale * scaled.norm
            length = jnp.sqrt(jnp.maximum(jnp.sum(amounts * multiply(scaled.matrix, amounts)), 0.0))
            cut = jnp.where(length > max_norm, max_norm / jnp.where(length > 0, length, 1.0), 1.0)
            weights = weights * as_float32(cut)
        return Solution(weights, residual), inner

    return method_of_gramian("nash_mtl", rule, weigh_tasks=weigh_tasks, refines=True)
