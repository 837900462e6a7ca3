"""Penalty-based boundary intersection."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from mtljax.checks import check_number, check_preference
from mtljax.methods.arithmetic import divide, length, preference_of
from mtljax.methods.common import vector_argument
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.types import Array, Key, Method, PyTree

# Rounding error of float32 for a vector on the preferred ray, relative to its length.
ROUNDING = 2.0**-21


def pbi(
    theta: float = 5.0,
    *,
    preference: Sequence[float] | Array | None = None,
    reference: float | Sequence[float] | Array = 0.0,
) -> Method:
    """Penalty-based boundary intersection: the distance along a preferred ray plus a multiple of the distance from it.

    With `f = L - z` and `u = p / |p|`,

        d1 = <f, u>,   d2 = |f - d1 u|,   objective d1 + theta d2,   w = u + theta (f - d1 u) / d2.

    Weights are negative where a loss is smaller than the preference asks for.

    Args:
        theta: at least 0, default 5, the paper's.
        preference: p, `[T]`, non-negative, in sorted order of task names; None (default) for equal ones. Its length
            does not matter.
        reference: z, the ideal point, a number or `[T]`, below all losses; default 0.

    Returns:
        `Method` that reads losses, floating point `[T]`; one backward pass. Weights are float32 `[T]`. Task-specific
        gradients are weighted too. `state.residual` is 0.

    References:
        Q. Zhang, H. Li (2007), "MOEA/D: a multiobjective evolutionary algorithm based on decomposition", IEEE
        Transactions on Evolutionary Computation 11(6).
        Departures: on the ray to working precision, where d2 has no gradient, its part is 0. TorchJD adds 1e-12
        under the root instead; elsewhere its numbers are these, with the same arguments.

    Example:
        >>> method = pbi(1.0)
        >>> [f"{weight:.4f}" for weight in method.update(jnp.array([1.0, 1.0]), method.init(2))[0]]
        ['0.7071', '0.7071']
    """
    check_number("pbi", "theta", theta, least=0.0)
    wanted = check_preference("pbi", preference)
    ideal = vector_argument("pbi", "reference", reference)

    def rule(losses: Array, active: Array, inner: PyTree, *, key: Key | None, **extra: object) -> tuple[Array, PyTree]:
        p = preference_of(wanted, active)
        ray = divide(p, length(p))
        f = jnp.where(active, losses - ideal, 0.0)
        across = f - jnp.sum(f * ray) * ray
        distance = length(across)
        away = jnp.where(distance > ROUNDING * length(f), divide(across, distance), 0.0)
        return ray + theta * away, inner

    return method_of_losses("pbi", rule, per_task={"preference": wanted, "reference": ideal})
