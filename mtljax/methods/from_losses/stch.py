"""Smooth Tchebycheff scalarisation."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from mtljax.checks import check_number, check_preference
from mtljax.methods.arithmetic import preference_of, softmax
from mtljax.methods.common import vector_argument
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.types import Array, Key, Method, PyTree


def stch(
    mu: float = 1.0,
    *,
    preference: Sequence[float] | Array | None = None,
    reference: float | Sequence[float] | Array = 0.0,
) -> Method:
    """Smooth Tchebycheff scalarisation: a soft maximum of the preferred distances from an ideal point.

        f = mu log sum_k exp(p_k (L_k - z_k) / mu),    w_k = p_k softmax(p (L - z) / mu)_k

    Args:
        mu: positive; small for `tchebycheff`, large for the preference itself as weights, up to a factor 1 / T. In
            units of preferred loss; the paper tries 0.01 to 1 (default 1, as in the authors' code).
        preference: p, `[T]`, non-negative, not normalised, in sorted order of task names; None (default) for one over
            the number of active tasks.
        reference: z, the ideal point, a number or `[T]`; default 0.

    Returns:
        `Method` that reads losses, floating point `[T]`; one backward pass. Weights are float32 `[T]`. Losses may be
        negative. Task-specific gradients are weighted too. `state.residual` is 0.

    References:
        X. Lin, X. Zhang, Z. Yang, F. Liu, Z. Wang, Q. Zhang (2024), "Smooth Tchebycheff scalarization for
        multi-objective optimization", ICML, arXiv 2402.19078.
        Departures: none. TorchJD: the same arguments. LibMTL and the authors' code: `preference=[1] * T` on the
        logarithms of losses over a nadir point, times T, that is
        `log_losses(stch(mu, preference=[1] * T, reference=log(nadir)))`, and the sum of logarithms (`mean_log`) in the
        epochs before the nadir is known.

    Example:
        >>> method = stch(0.5)
        >>> [f"{weight:.4f}" for weight in method.update(jnp.array([1.0, 2.0]), method.init(2))[0]]
        ['0.1345', '0.3655']
    """
    check_number("stch", "mu", mu, above=0.0)
    wanted = check_preference("stch", preference)
    ideal = vector_argument("stch", "reference", reference)

    def rule(losses: Array, active: Array, inner: PyTree, *, key: Key | None, **extra: object) -> tuple[Array, PyTree]:
        p = preference_of(wanted, active)
        scaled = p * (losses - ideal)
        # Differences before the division: the scores of a small mu may be out of range, their order is not.
        top = jnp.max(jnp.where(active, scaled, -jnp.inf))
        gaps = jnp.where(active, scaled - jnp.where(jnp.isfinite(top), top, 0.0), 0.0)
        return p * softmax(jnp.maximum(gaps / mu, jnp.finfo(jnp.float32).min), active), inner

    return method_of_losses("stch", rule, per_task={"preference": wanted, "reference": ideal})
