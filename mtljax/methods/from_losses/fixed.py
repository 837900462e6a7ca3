"""Fixed weights."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from mtljax.checks import check_number
from mtljax.methods.checked import checked
from mtljax.methods.common import initial_state, weights_of
from mtljax.types import Array, Key, Method, MethodState, PyTree


def fixed(weights: Sequence[float] | Array) -> Method:
    """Linear scalarisation with weights that never change: `sum_k w_k L_k`.

    Args:
        weights: `[T]`, finite, in sorted order of task names. Used as they are, not normalised.

    Returns:
        `Method` that reads losses; one backward pass. Task-specific gradients are weighted too, as the gradient of the
        scalarised loss is.

    Raises:
        ValueError: weights are not one-dimensional or not finite; from `init`, if there are not T of them.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> method = mtljax.methods.fixed([0.25, 0.75])
        >>> mtljax.aggregate(method, jnp.array([[4.0, 0.0], [0.0, 4.0]]), losses=jnp.ones(2))
        Array([1., 3.], dtype=float32)
    """
    table = check_number("fixed", "weights", weights, shape=("T",))

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
        check_number("fixed", "weights", table, shape=(num_tasks,))
        return initial_state(num_tasks)

    def update(
        evidence: Array,
        state: MethodState,
        *,
        losses: Array | None = None,
        active: Array | None = None,
        key: Key | None = None,
        **extra: object,
    ) -> tuple[Array, MethodState]:
        chosen = weights_of(jnp.asarray(table, jnp.float32), active)
        return chosen, state._replace(weights=chosen)

    return checked(Method("losses", init, update, weigh_tasks=True, name="fixed"))
