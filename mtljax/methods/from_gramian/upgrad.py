"""UPGrad: the mean of the task gradients, each projected so that it conflicts with no task."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax.methods.checked import checked
from mtljax.methods.common import initial_state
from mtljax.methods.preferences import check_preference, read_preference
from mtljax.solvers import projected_rows
from mtljax.types import Array, Key, Method, MethodState


def upgrad(*, preference: ArrayLike | None = None, weigh_tasks: bool = False) -> Method:
    """Unconflicting projection of gradients.

    `d = sum_k p_k P(g_k)`, with `P` the projection onto the dual cone `{d : <g_i, d> >= 0 for all i}` and p the
    preference. In weights: `sum_k p_k v_k` with `v_k = argmin_v v'Gv subject to v >= e_k`. The update conflicts with no
    task, does not depend on the order of tasks, and is linear under scaling of single tasks.

    Args:
        preference: numbers `[T]`, non-negative and not all zero, used as they are; None for the mean, `1/T` over the
            active tasks.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; False (default) in
            TorchJD and LibMTL.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`; `state.residual` is
        that of `mtljax.solvers.projected_rows`, the errors of the projections over the length of the update.

    Raises:
        ValueError: the preference is not a vector, or has an entry that is negative or not finite, or is all zero; from
            `init`, where it is not `[T]`; from `update`, where the Gramian or `active` does not go with the number of
            tasks.
        TypeError: from `update`, where the Gramian is not floating point or `active` is not boolean.

    P. Quinton, V. Rey (2024), "Jacobian descent for multi-objective optimization", arXiv 2406.16232. Departure: the
    Gramian is regularised by its own rounding only. The preference is the weighting of rows of the authors' library.

    Example:
        >>> method = upgrad()
        >>> weights, state = method.update(jnp.array([[1.0, -0.5], [-0.5, 1.0]]), method.init(2))
        >>> weights.tolist()
        [0.75, 0.75]
    """
    shares = read_preference("upgrad", preference)

    def init(num_tasks: int, shared=None) -> MethodState:
        state = initial_state(num_tasks)
        check_preference("upgrad", shares, state.weights.shape[0])
        return state

    def update(
        gramian: Array,
        state: MethodState,
        *,
        losses: Array | None = None,
        active: Array | None = None,
        key: Key | None = None,
        **extra,
    ) -> tuple[Array, MethodState]:
        takes_part = jnp.ones_like(state.weights, dtype=bool) if active is None else active
        if shares is None:
            share = jnp.where(takes_part, 1.0, 0.0) / jnp.maximum(jnp.sum(takes_part), 1)
        else:
            share = jnp.where(takes_part, shares, 0.0)
        weights, residual = projected_rows(gramian, share, active=active)
        return weights, MethodState(weights, residual, state.inner)

    return checked(
        Method(reads="gramian", init=init, update=update, weigh_tasks=weigh_tasks, name="upgrad", refines=True)
    )
