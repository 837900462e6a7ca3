"""MoDo: weights that descend on the length of the combined gradient, estimated from two batches."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax.checks import check_flag, check_number
from mtljax.methods.from_gramian.common import Answer, exact, in_mean_norms, method_of_gramian, unscaled
from mtljax.solvers.scaling import multiply
from mtljax.solvers.simplex_projection import among_active, back_among_all, project_simplex
from mtljax.types import Array, Method


class MoDoState(NamedTuple):
    """State of MoDo.

    Attributes:
        share: float32 `[T]`, lambda, on the simplex up to a factor.
    """

    share: Array


def modo(*, gamma: float = 0.1, rho: float = 0.0, normalize: bool = False, weigh_tasks: bool = False) -> Method:
    """Multi-objective gradient descent with double sampling.

    Each training step takes one projected step towards the shortest convex combination,

        lambda <- P(lambda - gamma (J_1 J_2' lambda + rho lambda)),        weights = the new lambda,

    with P the projection onto the simplex, and `J_1`, `J_2` the task gradients of two independent batches. `J_1 J_2'`
    is an unbiased estimate of the Gramian of the expected gradients, but neither symmetric nor positive semi-definite,
    which this method accepts: `methods.sampled` makes a method of that. Engines give the Gramian `J J'` of
    one batch. Its expectation is too large by the gradients' covariance, so the estimate is biased towards tasks with
    little noise; the bias is smaller for larger batches.

    Args:
        gamma: step size for lambda, at least 0, in units of one over a squared gradient; the authors' 0.1. 0 gives the
            mean.
        rho: weight of a penalty `|lambda|^2 / 2`, at least 0; the paper's algorithm has none (the default).
        normalize: whether the Gramian is divided by the squared mean of the task gradients' norms, the root of the
            sizes of its diagonal. Then the update scales with the gradients, as it does not in the paper.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; False (default) in the
            authors' code and LibMTL.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`, on the simplex over active
        tasks. The share of an inactive task is held. `state.residual` is 0: nothing is solved for.

    References:
        L. Chen, H. Fernando, Y. Ying, T. Chen (2023), "Three-way trade-off in multi-objective learning:
        optimization, generalization and conflict-avoidance", NeurIPS, arXiv 2305.20057. Departures: the parameters move
        along the gradient of the current batch, not of a third batch. The authors' code: `rho=0.1`; LibMTL:
        `gamma=1e-3, rho=0.1`; TorchJD: `rho=0.1`.

    Example:
        >>> method = modo(gamma=0.25)
        >>> weights, state = method.update(jnp.diag(jnp.array([2.0, 1.0])), method.init(2))
        >>> weights.tolist()
        [0.4375, 0.5625]
    """
    check_number("modo", "gamma", gamma, least=0)
    check_number("modo", "rho", rho, least=0)
    check_flag("modo", "normalize", normalize)

    def first(num_tasks: int) -> MoDoState:
        return MoDoState(jnp.full((num_tasks,), 1.0 / num_tasks, jnp.float32))

    def rule(gramian: Array, active: Array, inner: MoDoState, *, scale: ArrayLike, **rest: Any) -> Answer:
        matrix = in_mean_norms(gramian, active) if normalize else unscaled(gramian, scale)
        share = among_active(inner.share, active)
        slope = multiply(matrix, share) + rho * share
        weights = project_simplex(share - gamma * slope, active=active)
        return exact(weights), MoDoState(back_among_all(weights, inner.share, active))

    return method_of_gramian("modo", rule, inner=first, weigh_tasks=weigh_tasks)
