"""Aligned-MTL: the principal components of the task gradients, brought to one size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax.checks import check_callable, check_flag, check_number, check_preference
from mtljax.methods.arithmetic import number
from mtljax.methods.from_gramian.common import Answer, method_of_gramian
from mtljax.solvers.spectral import alignment, smallest
from mtljax.types import Array, Method, PyTree


def aligned_mtl(
    *,
    level: Callable[[Array, Array], Array] = smallest,
    mean: bool = False,
    preference: ArrayLike | None = None,
    weigh_tasks: bool = False,
) -> Method:
    """Independent component alignment.

    The linear system of task gradients gets condition number 1: with `G = V diag(lambda) V'`, restricted to its
    non-zero eigenvalues,

        w = sqrt(lambda_min) V diag(lambda)^(-1/2) V' p,   d = sum_k w_k g_k,

    p being the tasks' preference. The aligned gradients are orthogonal and of one length, `sqrt(lambda_min)`.

    Args:
        level: the size of the aligned gradients' squares: `mtljax.solvers.spectral.smallest` (the paper's), `median`
            or `mean` (the authors' "rmse"), or a function of the eigenvalues as described there.
        mean: whether p is 1 / T over active tasks rather than 1 each; without a preference only.
        preference: numbers `[T]`, finite, non-negative and not all zero, used as they are; None for `mean`.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; default False, as in the
            authors' code.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`, 0 for a task that has no
        gradient. `state.residual` is that of `mtljax.solvers.spectral.alignment`: what the Gramian's rounding may do to
        the direction, 1 where an eigenvalue counts as zero or not by rounding.

    Raises:
        ValueError: `preference` is given where `mean` is True.

    References:
        D. Senushkin, N. Patakin, A. Kuznetsov, A. Konushin (2023), "Independent component alignment for multi-task
        learning", CVPR, arXiv 2305.19000. The default, a sum of the aligned gradients, is that of the authors' code
        and LibMTL; TorchJD takes the mean: `mean=True`. As there, eigenvalues up to `T 2^-23` of the largest one
        count as zero, so that tasks whose gradients are thousands of times shorter than the longest drop out.

    Example:
        >>> method = aligned_mtl()
        >>> weights, state = method.update(jnp.array([[4.0, 0.0], [0.0, 1.0]]), method.init(2))
        >>> weights.tolist()
        [0.5, 1.0]
    """
    check_callable("aligned_mtl", "level", level)
    check_flag("aligned_mtl", "mean", mean)
    shares = check_preference("aligned_mtl", preference)
    if mean and preference is not None:
        raise ValueError("aligned_mtl: preference must be None where mean is True, found a preference")

    def sized(eigenvalues: Array, kept: Array) -> Array:
        return check_number("aligned_mtl", "what level returned", level(eigenvalues, kept))

    def rule(gramian: Array, active: Array, inner: PyTree, **rest: Any) -> Answer:
        parts = active.astype(jnp.float32) if shares is None else jnp.where(active, shares, 0.0)
        if mean:
            parts = parts / number(active)
        return alignment(gramian, parts, level=sized, active=active), inner

    return method_of_gramian(
        "aligned_mtl", rule, per_task={"preference": shares}, weigh_tasks=weigh_tasks, refines=True
    )
