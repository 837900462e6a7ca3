"""CAGrad: near the mean gradient, the direction that helps the worst-off task most."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from mtljax.checks import check_flag, check_number
from mtljax.methods.from_gramian.common import Answer, method_of_gramian
from mtljax.solvers.conflict_averse import conflict_averse
from mtljax.solvers.scaling import Solution
from mtljax.types import Array, Method, PyTree


def cagrad(c: float = 0.5, *, rescale: bool = False, weigh_tasks: bool = False) -> Method:
    """Conflict-averse gradient descent.

    `max_d min_i <g_i, d>  subject to  |d - g_0| <= c |g_0|`, with `g_0` the mean of the task gradients; the solution
    is `d = g_0 + c |g_0| g_w / |g_w|` with w on the simplex.

    Args:
        c: the radius of the ball around the mean, as a share of the mean's length, at least 0. 0 gives the mean; the
            paper asks for less than 1.
        rescale: whether d is divided by `1 + c^2`, as in the authors' code, though not in the paper's algorithm.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; False (default) in the
            authors' code, LibMTL and TorchJD.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`; `state.residual` bounds the
        relative error of the direction, see `mtljax.solvers.conflict_averse`.

    References:
        B. Liu, X. Liu, X. Jin, P. Stone, Q. Liu (2021), "Conflict-averse gradient descent for multi-task learning",
        NeurIPS, arXiv 2110.14048. Departures: the dual is solved exactly; with a single active task the weight is
        1, which is plain gradient descent, where the formula would give `1 + c`, whatever `rescale`. TorchJD's
        numbers: the defaults with its c. LibMTL's and the authors': `rescale=True`; the nash-mtl family's: c = 0.4,
        `rescale=True` and the update times T.

    Example:
        >>> method = cagrad(c=0.5)
        >>> weights, state = method.update(jnp.eye(2), method.init(2))
        >>> weights.round(4).tolist()
        [0.75, 0.75]
    """
    check_number("cagrad", "c", c, least=0)
    check_flag("cagrad", "rescale", rescale)
    factor = 1.0 / (1.0 + c * c) if rescale else 1.0

    def rule(gramian: Array, active: Array, inner: PyTree, **rest: Any) -> Answer:
        weights, residual = conflict_averse(gramian, c, active=active)
        alone = jnp.sum(active) == 1
        return Solution(jnp.where(alone, 1.0, factor * weights), jnp.where(alone, 0.0, residual)), inner

    return method_of_gramian("cagrad", rule, weigh_tasks=weigh_tasks, refines=True)
