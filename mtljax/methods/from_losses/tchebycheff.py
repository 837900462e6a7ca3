"""Tchebycheff scalarisation: the worst task alone."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from mtljax.checks import check_preference
from mtljax.methods.arithmetic import divide, preference_of
from mtljax.methods.common import vector_argument
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.types import Array, Key, Method, PyTree


def tchebycheff(
    *,
    preference: Sequence[float] | Array | None = None,
    reference: float | Sequence[float] | Array = 0.0,
) -> Method:
    """Tchebycheff scalarisation: `f = max_k p_k (L_k - z_k)`.

    The weights are a subgradient: `p_k` for the task that attains the maximum and 0 for the others; tasks that tie
    share it in equal parts. `stch` is the smooth version.

    Args:
        preference: p, `[T]`, non-negative, not normalised, in sorted order of task names; None (default) for one over
            the number of active tasks.
        reference: z, the ideal point, a number or `[T]`; default 0.

    Returns:
        `Method` that reads losses, floating point `[T]`; one backward pass. Weights are float32 `[T]`. Losses may be
        negative. Task-specific gradients are weighted too. `state.residual` is 0.

    References:
        V. J. Bowman (1976), "On the relationship of the Tchebycheff norm and the efficient frontier of
        multiple-criteria objectives", Springer LNEMS 130.
        K. Miettinen (1999), "Nonlinear multiobjective optimization", Kluwer.
        Departures: none. libmoon returns the loss itself where this is the preferred distance, so its gradient
        lacks p.

    Example:
        >>> method = tchebycheff(preference=[1.0, 3.0])
        >>> method.update(jnp.array([2.0, 1.0]), method.init(2))[0]
        Array([0., 3.], dtype=float32)
    """
    wanted = check_preference("tchebycheff", preference)
    ideal = vector_argument("tchebycheff", "reference", reference)

    def rule(losses: Array, active: Array, inner: PyTree, *, key: Key | None, **extra: object) -> tuple[Array, PyTree]:
        p = preference_of(wanted, active)
        distance = jnp.where(active, p * (losses - ideal), -jnp.inf)
        worst = (active & (distance == jnp.max(distance))).astype(p.dtype)
        return p * divide(worst, jnp.sum(worst)), inner

    return method_of_losses("tchebycheff", rule, per_task={"preference": wanted, "reference": ideal})
