"""Fixed weights."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from mtljax.checks import check_number
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.types import Array, Key, Method, PyTree


def fixed(weights: Sequence[float] | Array) -> Method:
    """Linear scalarisation with weights that never change: `sum_k w_k L_k`.

    Args:
        weights: `[T]`, finite, in sorted order of task names. Used as they are, not normalised.

    Returns:
        `Method` that reads losses; one backward pass. Task-specific gradients are weighted too, as the gradient of the
        scalarised loss is.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> method = mtljax.methods.fixed([0.25, 0.75])
        >>> mtljax.aggregate(method, jnp.array([[4.0, 0.0], [0.0, 4.0]]), losses=jnp.ones(2))
        Array([1., 3.], dtype=float32)
    """
    table = check_number("fixed", "weights", weights, shape=("T",))

    def rule(losses: Array, active: Array, inner: PyTree, *, key: Key | None, **extra: object) -> tuple[Array, PyTree]:
        return jnp.asarray(table, jnp.float32), inner

    return method_of_losses("fixed", rule, per_task={"weights": table})
