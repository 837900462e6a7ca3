"""NTKMTL: tasks weighted so that they learn at one speed."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from mtljax.checks import check_number
from mtljax.methods.from_gramian.common import Answer, exact, method_of_gramian
from mtljax.types import Array, Method, PyTree


def ntkmtl(exponent: float = 0.5, *, weigh_tasks: bool = False) -> Method:
    """Balancing by the tasks' neural tangent kernels.

    `w_i = (sum_k lambda_k / lambda_i)^exponent`, lambda_i being the largest eigenvalue of task i's neural tangent
    kernel, which tells how fast the task learns. With one mini-batch loss per task the kernel is a number,
    `lambda_i = |g_i|^2 = G_ii`: the weight is the inverse length of the gradient, times a common factor.

    Args:
        exponent: 0 gives equal weights 1, the default 1/2 gradients of one length.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; default False, as in the
            authors' code.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`, of which only the diagonal matters. Weights are
        float32 `[T]`, at least 1 for a non-negative exponent. A task without gradient gets weight 0. `state.residual`
        is 0: nothing is solved for.

    References:
        X. Qin, X. Wang, N. Liao, J. Yan (2025), "NTKMTL: mitigating task imbalance in multi-task learning from
        neural tangent kernel perspective", NeurIPS, arXiv 2510.18258. Departures: one mini-batch loss per task, the
        case n = 1 that the authors' experiments use; their code also multiplies the update by T and clips it at length
        1, which is left to the optimiser here.

    Example:
        >>> method = ntkmtl()
        >>> weights, state = method.update(jnp.array([[9.0, 2.0], [2.0, 16.0]]), method.init(2))
        >>> print(weights.round(4))
        [1.6667 1.25  ]
    """
    check_number("ntkmtl", "exponent", exponent)

    def rule(gramian: Array, active: Array, inner: PyTree, **rest: Any) -> Answer:
        squares = jnp.diagonal(gramian)
        counts = squares > 0
        norms = jnp.sqrt(jnp.where(counts, squares, 1.0))
        largest = jnp.max(jnp.where(counts, norms, 0.0))
        # Lengths rather than their squares: a ratio of squares may leave float32's range.
        ratios = jnp.where(counts, norms, 0.0) / jnp.where(largest > 0, largest, 1.0)
        whole = jnp.sqrt(jnp.sum(ratios * ratios))
        speeds = jnp.where(counts, ratios, 1.0)
        return exact(jnp.where(counts, (whole / speeds) ** (2.0 * exponent), 0.0)), inner

    return method_of_gramian("ntkmtl", rule, weigh_tasks=weigh_tasks)
