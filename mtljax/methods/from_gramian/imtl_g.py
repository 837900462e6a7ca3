"""IMTL-G: equal projections on all task gradients."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from mtljax.methods.from_gramian.common import Answer, method_of_gramian
from mtljax.solvers.scaling import Solution, multiply, relative
from mtljax.solvers.spectral import projections
from mtljax.types import Array, Method, PyTree

# Of the sum of sizes: where positive and negative weights cancel to this share, their sum is rounding.
CANCELLED = 2.0**-18


def imtl_g(*, weigh_tasks: bool = False) -> Method:
    """Impartial multi-task learning, the gradient balance.

    The affine combination `d = sum_k w_k g_k, sum(w) = 1`, whose projections on all task gradients are equal:
    `<g_i, d> / |g_i|` is the same number for all i. So `w = v / sum(v)` with `v = G^-1 (|g_1|, ..., |g_T|)`.
    Weights may be negative, and commonly are where one gradient is much longer than the others; where `sum(v)` is
    negative the update conflicts with every task.

    Args:
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; default False, as in the
            paper's algorithm, where heads follow their own losses.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`, sum 1 over active tasks;
        0 for a task that has no gradient, and all 0 where the sum that they are divided by cancels to rounding.
        So the update is at most 2^18 times as long as the longest gradient; nearer than that nothing bounds it.
        `state.residual` is that of `mtljax.solvers.spectral.projections`: the larger of how far projections are from
        equal, `max_i |<g_i, u> / |g_i| - 1|` for the direction u that should have them 1, and of the relative error of
        u, for what the Gramian's rounding does; with the relative error of `sum(v)` added. It is small unless task
        gradients are linearly dependent, or nearly.

    References:
        L. Liu, Y. Li, Z. Kuang, J. Xue, Y. Chen, W. Yang, Q. Liao, W. Zhang (2021), "Towards impartial multi-task
        learning", ICLR. Departures: linearly dependent gradients are taken in the least-squares sense, by the
        pseudo-inverse of the Gramian of unit gradients, of which tasks with one direction have an equal part each.
        TorchJD has the pseudo-inverse of the Gramian itself, which is another direction where gradients are
        linearly dependent. Where they are independent, TorchJD and LibMTL's inverse agree with the default. The
        family of the Nash-MTL code weighs the heads too: `weigh_tasks=True`.

    Example:
        >>> method = imtl_g()
        >>> weights, state = method.update(jnp.array([[9.0, 0.0], [0.0, 1.0]]), method.init(2))
        >>> weights.round(4).tolist()
        [0.25, 0.75]
    """

    def rule(gramian: Array, active: Array, inner: PyTree, **rest: Any) -> Answer:
        found = projections(gramian, active=active)
        weights = found.amounts / found.norms
        total, size = jnp.sum(weights), jnp.sum(jnp.abs(weights))
        certain = jnp.abs(total) > CANCELLED * size
        weights = jnp.where(certain, weights / jnp.where(certain, total, 1.0), 0.0)
        # The sum may be known less well than the direction, as where two tasks are nearly alike but for their lengths.
        shortest = jnp.min(jnp.where(found.takes_part, found.norms, jnp.inf))
        shares = jnp.where(found.takes_part, shortest / found.norms, 0.0)
        error = relative(jnp.linalg.norm(multiply(found.errors, shares)), jnp.abs(jnp.sum(shares * found.amounts)))
        residual = jnp.where(certain | (size == 0), jnp.minimum(found.residual + error, 1.0), 1.0)
        return Solution(weights, residual), inner

    return method_of_gramian("imtl_g", rule, weigh_tasks=weigh_tasks, refines=True)
