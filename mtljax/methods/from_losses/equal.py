"""Equal weighting."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax.methods.from_losses.common import method_of_losses
from mtljax.types import Array, Key, Method, PyTree


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

    def rule(losses: Array, active: Array, inner: PyTree, *, key: Key | None, **extra: object) -> tuple[Array, PyTree]:
        return jnp.ones_like(losses), inner

    return method_of_losses("equal", rule)
