"""PCGrad: each task gradient projected off those it conflicts with, one after the other in random order."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from mtljax.checks import check_flag
from mtljax.methods.arithmetic import number
from mtljax.methods.from_gramian.common import Answer, exact, method_of_gramian, random_order
from mtljax.solvers.sequential import sequential
from mtljax.types import Array, Key, Method, PyTree


def pcgrad(*, mean: bool = False, weigh_tasks: bool = False) -> Method:
    """Projecting conflicting gradients (gradient surgery).

    For each task i, starting from `a = g_i` and going through the other tasks j in random order: where `<a, g_j> < 0`,
    `a <- a - <a, g_j> / |g_j|^2 g_j`. The update is the sum over i of the results.

    Args:
        mean: whether the update is the mean over active tasks of the projected gradients instead of their sum.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; False (default) in the
            authors' code, LibMTL and TorchJD.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`, and above two tasks needs `key`. Weights are float32
        `[T]`. Each row's order is drawn on its own. `state.residual` is 0: nothing is solved for.

    Raises:
        ValueError: from `update`, `key` is None with more than two tasks.

    References:
        T. Yu, S. Kumar, A. Gupta, S. Levine, K. Hausman, C. Finn (2020), "Gradient surgery for multi-task
        learning", NeurIPS, arXiv 2001.06782. No departures; the authors' code draws one order for all tasks, the
        paper one for each.

    Example:
        >>> method = pcgrad()
        >>> weights, state = method.update(jnp.array([[1.0, -0.5], [-0.5, 1.0]]), method.init(2))
        >>> weights.tolist()
        [1.5, 1.5]
    """
    check_flag("pcgrad", "mean", mean)

    def rule(gramian: Array, active: Array, inner: PyTree, *, key: Key | None, **rest: Any) -> Answer:
        weights = jnp.sum(sequential(gramian, random_order("pcgrad", key, active), active=active), axis=0)
        return exact(weights / number(active) if mean else weights), inner

    return method_of_gramian("pcgrad", rule, weigh_tasks=weigh_tasks)
