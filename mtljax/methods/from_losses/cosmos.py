"""COSMOS's objective: a weighted sum with a reward for lying on the preferred ray."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from mtljax.checks import check_number, check_preference
from mtljax.methods.arithmetic import divide, length, preference_of
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.types import Array, Key, Method, PyTree


def cosmos(penalty: float = 1.0, *, preference: Sequence[float] | Array | None = None) -> Method:
    """COSMOS's scalarisation: `f = <p, L> - penalty cos(p, L)`.

    So `w = p - penalty (u - cos(p, L) v) / |L|` with the unit vectors `u = p / |p|` and `v = L / |L|`. Weights may be
    negative.

    Args:
        penalty: at least 0; the paper's lambda, in units of loss; default 1. The paper takes 0.01 to 8, tuned per data
            set.
        preference: p, `[T]`, non-negative, not normalised, in sorted order of task names; None (default) for one over
            the number of active tasks.

    Returns:
        `Method` that reads losses, floating point `[T]`; one backward pass. Weights are float32 `[T]`. Task-specific
        gradients are weighted too. `state.residual` is 0.

    References:
        M. Ruchte, J. Grabocka (2021), "Scalable Pareto front approximation for deep multi-objective learning",
        ICDM, arXiv 2103.13392.
        Departures: this is the objective alone; the paper feeds p to the network and draws it anew for every batch.
        Where all losses are zero the cosine's part is 0. TorchJD: the same arguments. libmoon divides p by its
        length in the sum: give `preference` of length 1.

    Example:
        >>> method = cosmos(0.5)
        >>> [f"{weight:.4f}" for weight in method.update(jnp.array([3.0, 3.0]), method.init(2))[0]]
        ['0.5000', '0.5000']
    """
    check_number("cosmos", "penalty", penalty, least=0.0)
    wanted = check_preference("cosmos", preference)

    def rule(losses: Array, active: Array, inner: PyTree, *, key: Key | None, **extra: object) -> tuple[Array, PyTree]:
        p = preference_of(wanted, active)
        values = jnp.where(active, losses, 0.0)
        size = length(values)
        wish, found = divide(p, length(p)), divide(values, size)
        return p - divide(penalty * (wish - jnp.sum(wish * found) * found), size), inner

    return method_of_losses("cosmos", rule, per_task={"preference": wanted})
