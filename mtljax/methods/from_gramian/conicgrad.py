"""ConicGrad: within an angle of the mean gradient, the direction that helps the worst-off task most."""

from __future__ import annotations

from typing import Any

from mtljax.checks import check_number
from mtljax.methods.from_gramian.common import Answer, method_of_gramian
from mtljax.solvers.cone_around_mean import max_min_around_mean
from mtljax.types import Array, Method, PyTree


def conicgrad(c: float = 0.5, *, weigh_tasks: bool = False) -> Method:
    """Conic gradient descent: an angular constraint around the mean gradient.

        max_d min_i <g_i, d>   subject to   cos(d, g_0) >= c,  |d| = |g_0|,

    with `g_0` the mean of the task gradients. `c = 1` gives the mean; a small c the direction of MGDA, at the mean's
    length. The direction is that of CAGrad with the one radius that takes it to the cone's surface.

    Args:
        c: the least cosine between update and mean gradient, in [0, 1].
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; default False.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`, non-negative;
        `state.residual` is that of `mtljax.solvers.max_min_around_mean`, the relative error of the direction. The
        update is zero where the mean gradient is. A task without gradient counts in the mean alone: the others go on.

    References:
        N. Hassanpour, M. K. Janjua, K. Zhang, S. Lavasani, X. Zhang, C. Zhou, C. Gao (2025), "Fantastic multi-task
        gradient updates and how to find them in a cone", arXiv 2502.00217. Departures: the paper fixes the
        multiplier of the constraint, takes d for given task weights in closed form and moves the weights by one
        gradient step per training step; here weights and multiplier solve the problem above exactly, so there is no
        state. Where the parameters are Pareto-stationary, so that no direction helps all tasks, d is the one on the
        cone's surface that does least harm. The default of c is this library's; the paper tunes it.

    Example:
        >>> import jax.numpy as jnp
        >>> method = conicgrad(c=0.9)
        >>> weights, state = method.update(jnp.diag(jnp.array([4.0, 1.0])), method.init(2))
        >>> [f"{weight:.3f}" for weight in weights]
        ['0.341', '0.886']
    """
    check_number("conicgrad", "c", c, least=0, most=1)

    def rule(gramian: Array, active: Array, inner: PyTree, **rest: Any) -> Answer:
        return max_min_around_mean(gramian, c, active=active), inner

    return method_of_gramian("conicgrad", rule, weigh_tasks=weigh_tasks, refines=True)
