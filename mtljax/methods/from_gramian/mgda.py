"""MGDA: the shortest convex combination of the task gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax.checks import check_callable, check_flag, check_losses
from mtljax.methods.common import check_evidence
from mtljax.methods.from_gramian.common import Answer, method_of_gramian
from mtljax.solvers import min_norm
from mtljax.solvers.scaling import Solution, as_float32, power_of_two
from mtljax.types import Array, Method, PyTree


def l2_norms(norms: Array, losses: Array | None) -> Array:
    """Divisors `|g_k|`: every task gradient has length 1 ("l2" in the authors' code).

    Args:
        norms: float32 `[T]`, `|g_k|`.
        losses: float32 `[T]` or None, not looked at.

    Example:
        >>> l2_norms(jnp.array([2.0, 3.0]), None).tolist()
        [2.0, 3.0]
    """
    return norms


def loss_values(norms: Array, losses: Array | None) -> Array:
    """Divisors `L_k`: gradients of log losses ("loss" in the authors' code).

    Args:
        norms: float32 `[T]`, not read.
        losses: float32 `[T]`.

    Raises:
        ValueError: losses are None.

    Example:
        >>> loss_values(jnp.array([2.0, 3.0]), jnp.array([0.5, 1.0])).tolist()
        [0.5, 1.0]
    """
    return check_losses("mgda", losses, "T")


def loss_times_l2(norms: Array, losses: Array | None) -> Array:
    """Divisors `L_k |g_k|` ("loss+" in the authors' code).

    Args:
        norms: float32 `[T]`, `|g_k|`.
        losses: float32 `[T]`.

    Raises:
        ValueError: losses are None.

    Example:
        >>> loss_times_l2(jnp.array([2.0, 3.0]), jnp.array([0.5, 1.0])).tolist()
        [1.0, 3.0]
    """
    return norms * loss_values(norms, losses)


def mgda(
    *,
    normalization: Callable[[Array, Array | None], Array] | None = None,
    normalized_update: bool = True,
    weigh_tasks: bool = False,
) -> Method:
    """The multiple-gradient descent algorithm.

    `w = argmin_w |sum_k w_k g_k / n_k|^2` over the simplex `w >= 0, sum(w) = 1`. The divisors are `n_k = 1` without a
    normalization. The update is `sum_k w_k g_k / n_k`. It conflicts with no task. It is zero where the parameters are
    Pareto-stationary, for example where a task has a zero gradient.

    Args:
        normalization: `normalization(norms [T], losses [T] or None) -> divisors [T]`, for example `l2_norms`,
            `loss_values` or `loss_times_l2` of this module; None (default) for none. A divisor that is not a positive
            finite number counts as 1. Entries of inactive tasks hold 1.
        normalized_update: whether the update combines the normalised gradients (default). Otherwise the update is
            `sum_k w_k g_k`, which may conflict with tasks.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; default False, as in the
            paper's algorithm, LibMTL and TorchJD. The authors' code and the nash-mtl family have True.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`, `w_k / n_k`, and sum to 1
        over active tasks without a normalization. `state.residual` bounds the relative error of the direction
        (with `normalized_update`), see `mtljax.solvers.min_norm`.

    Raises:
        ValueError: from `update`, losses are None where the normalization reads them.

    References:
        J.-A. Desideri (2012), "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", Comptes
        Rendus Mathematique 350.
        O. Sener, V. Koltun (2018), "Multi-task learning as multi-objective optimization", NeurIPS, arXiv
        1810.04650.
        Departures: The problem is solved exactly, instead of by Frank-Wolfe steps. The defaults give TorchJD's numbers,
        up to the error of its solver, and LibMTL's; LibMTL also has normalizations. The authors' code is
        `normalized_update=False, weigh_tasks=True`.

    Example:
        >>> method = mgda()
        >>> weights, state = method.update(jnp.array([[3.0, 0.0], [0.0, 1.0]]), method.init(2))
        >>> weights.round(4).tolist()
        [0.25, 0.75]
    """
    if normalization is not None:
        check_callable("mgda", "normalization", normalization)
    check_flag("mgda", "normalized_update", normalized_update)

    def divisors(gramian: Array, losses: Array | None, active: Array, scale: ArrayLike) -> Array:
        assert normalization is not None
        norms = jnp.sqrt(jnp.maximum(jnp.where(active, jnp.diagonal(gramian), 1.0), 0.0))
        found = normalization(norms / scale, losses)
        check_evidence("mgda", "what normalization returned", found, active.shape)
        found = as_float32(found)
        return jnp.where(active & (found > 0) & jnp.isfinite(found), found, 1.0)

    def rule(
        gramian: Array, active: Array, inner: PyTree, *, losses: Array | None, scale: ArrayLike, **rest: Any
    ) -> Answer:
        if normalization is None:
            return min_norm(gramian, active=active), inner
        divisor = divisors(gramian, losses, active, scale)
        relative = divisor / power_of_two(jnp.max(divisor))
        # One side after the other: the product of two divisors may leave float32's range.
        weights, residual = min_norm(gramian / relative[:, None] / relative[None, :], active=active)
        return Solution(weights / divisor if normalized_update else weights, residual), inner

    return method_of_gramian("mgda", rule, weigh_tasks=weigh_tasks, refines=True)
