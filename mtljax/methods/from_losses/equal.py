"""Equal weighting."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax.methods.checked import checked
from mtljax.methods.common import initial_state, weights_of
from mtljax.types import Array, Key, Method, MethodState, PyTree


def equal() -> Method:
    """Equal weighting: the sum of the task losses, `w_k = 1`.

    The baseline of the field (EW, or linear scalarisation with unit weights). Weights are 1 and not 1/T, so that a
    learning rate means the same as in single-task training; for the mean use `fixed([1 / T] * T)`.

    Returns:
        `Method` that reads losses; one backward pass. Task-specific gradients are each task's own.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> mtljax.aggregate(mtljax.methods.equal(), jnp.array([[1.0, 0.0], [0.0, 2.0]]), losses=jnp.ones(2))
        Array([1., 2.], dtype=float32)
    """

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
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
        weights = weights_of(jnp.ones_like(state.weights), active)
        return weights, state._replace(weights=weights)

    return checked(Method("losses", init, update, weigh_tasks=True, name="equal"))
