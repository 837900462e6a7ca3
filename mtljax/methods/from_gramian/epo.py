"""EPO: towards the Pareto-optimal point whose losses stand in a given ratio."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax.checks import check_flag, check_losses, check_number, check_preference
from mtljax.methods.from_gramian.common import Answer, method_of_gramian
from mtljax.solvers.scaling import multiply
from mtljax.solvers.simplex_lp import simplex_lp
from mtljax.types import Array, Method, PyTree

LEAST_SHARE = 2.0**-23


def epo(
    preference: ArrayLike | None = None, *, eps: float = 1e-4, relax: bool = False, weigh_tasks: bool = True
) -> Method:
    """Exact Pareto optimal search.

    Seeks the Pareto-optimal point where `r_1 L_1 = ... = r_T L_T`. With `l_k = r_k L_k / sum_j r_j L_j`, the
    non-uniformity `mu = sum_k l_k log(T l_k)` and the adjustments `a_k = r_k (log(T l_k) - mu)`, weights w on the
    simplex solve a linear problem on the Gramian:

    - where `mu > eps`, balance: `max_w w'Ga` with `(Gw)_i >= 0` for the task of the largest `r_i L_i`, and
      `(Gw)_i >= (Ga)_i` for every other task with `(Ga)_i <= 0`; `(Gw)_i >= 0` for all where no `(Ga)_i` is positive.
      Tasks that are ahead of their ratio may thus be made worse, within a limit.
    - elsewhere, descend: `max_w sum_i (Gw)_i` with `(Gw)_i >= 0` for all and `w'Ga >= min(0, max_i (Ga)_i)`.

    Args:
        preference: r, numbers `[T]`, non-negative and not all zero; a larger one asks for a smaller loss. Used as they
            are: adjustments scale with r, and with them how much worse a task may be made. None for 1 everywhere.
        eps: non-uniformity below which the losses count as balanced, at least 0; the authors' 1e-4.
        relax: whether the last constraint is dropped.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too, as in the authors' code
            (the default).

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`, and needs `losses=` `[T]`. Weights are float32 `[T]`,
        on the simplex over active tasks; `state.residual` is that of `mtljax.solvers.simplex_lp`, an optimality gap
        and violation of constraints of the problem solved.

    Raises:
        ValueError: from `update`, losses are None.

    References:
        D. Mahapatra, V. Rajan (2020), "Multi-task learning with user preferences: gradient descent with controlled
        ascent in Pareto optimization", ICML. Departures: the problem is the authors' code's, solved on the device;
        where its solution is not unique another corner may be taken. Losses must not be negative, and shares `l_k`
        below 2^-23 count as that in the logarithm. Where no weights satisfy all constraints, as may be in the
        descending mode with all `(Ga)_i` negative, or where rounding decides it at a Pareto-stationary point, the
        worst violation is made as small as can be, and `residual` says so (the authors fall back to `r / sum(r)`).
        The authors' code: the defaults; their training of networks multiplies the weights by T.

    Example:
        >>> method = epo([1.0, 1.0])
        >>> gramian = jnp.array([[1.0, -0.5], [-0.5, 1.0]])
        >>> weights, state = method.update(gramian, method.init(2), losses=jnp.array([3.0, 1.0]))
        >>> weights.tolist()
        [1.0, 0.0]
    """
    shares = check_preference("epo", preference)
    check_number("epo", "eps", eps, least=0, finite=False)
    check_flag("epo", "relax", relax)

    def rule(gramian: Array, active: Array, inner: PyTree, *, losses: Array | None, **rest: Any) -> Answer:
        losses = check_losses("epo", losses, active.shape[0])
        ratio = jnp.ones_like(losses) if shares is None else jnp.asarray(shares)
        weighted = jnp.where(active, ratio * jnp.maximum(losses, 0.0), 0.0)
        unevenness, adjustment = _adjustments(weighted, ratio, active)

        # In units of the longest gradient, so that no product leaves float32's range.
        largest = jnp.max(jnp.diagonal(gramian))
        matrix = gramian / jnp.where(largest > 0, largest, 1.0)
        push = multiply(matrix, adjustment)

        balances = unevenness > eps
        helped = active & (push > 0)
        some = jnp.any(helped)
        behind = active & (weighted == jnp.max(weighted))
        floor = jnp.where(some & ~behind, push, 0.0)
        needed = active & (~some | ~helped | behind)
        best = jnp.max(jnp.where(active, push, -jnp.inf))
        rows = jnp.concatenate([matrix, push[None, :]])
        lower = jnp.concatenate([jnp.where(balances, floor, 0.0), jnp.minimum(best, 0.0)[None]])
        holds = jnp.concatenate([jnp.where(balances, needed, active), (~balances & ~jnp.asarray(relax))[None]])
        cost = jnp.where(balances, push, jnp.sum(matrix, axis=0))
        return simplex_lp(cost, rows, lower, holds=holds, active=active), inner

    return method_of_gramian("epo", rule, per_task={"preference": shares}, weigh_tasks=weigh_tasks, least_loss=0.0)


def _adjustments(weighted: Array, ratio: Array, active: Array) -> tuple[Array, Array]:
    """The non-uniformity `[]` of `r_k L_k`, and the adjustments `[T]`."""
    count = jnp.maximum(jnp.sum(active), 1)
    total = jnp.sum(weighted)
    share = jnp.where(total > 0, weighted / jnp.where(total > 0, total, 1.0), 1.0 / count)
    logs = jnp.log(count * jnp.maximum(share, LEAST_SHARE))
    unevenness = jnp.sum(jnp.where(active, share * logs, 0.0))
    return unevenness, jnp.where(active, ratio * (logs - unevenness), 0.0)
