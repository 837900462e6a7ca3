"""Parameters are the sum of a low-rank part that tasks share and a sparse part per task."""

from __future__ import annotations

from mtljax.checks import check_flag, check_nonnegative
from mtljax.penalties.common import Penalty
from mtljax.penalties.l1 import l1
from mtljax.penalties.parts import by_part
from mtljax.penalties.trace_norm import trace_norm
from mtljax.types import Array


def sparse_low_rank(
    strength_low_rank: Array | float = 1.0, strength_sparse: Array | float = 1.0, *, joint: bool = False
) -> Penalty:
    r"""Incoherent sparse and low-rank patterns: a low-rank part plus an elementwise sparse one.

        w = low_rank + sparse
        value(low_rank, sparse) = strength_low_rank * |low_rank|_* + strength_sparse * sum_tp |sparse_tp|
        prox(v, s) = (prox of trace_norm(strength_low_rank) at v_low_rank, prox of l1(strength_sparse) at v_sparse)

    Common structure goes to `low_rank`; features that only one task needs go to `sparse`. The parts are separate
    arguments of the penalty, so the prox is exact. Nothing is divided by T or by the number of parameters.

    For a matrix `[T, P]`, `|X|_* <= |X|_1 <= sqrt(T P) |X|_*`. Let `c = strength_sparse / strength_low_rank`. From
    `c = 1` on, a best sparse part is 0. Up to `c = 1/sqrt(T P)`, a best low-rank part is 0. Both parts are used only in
    between.

    Args:
        strength_low_rank: non-negative scalar, on the part that tasks share; may be traced.
        strength_sparse: non-negative scalar, on the sparse part; may be traced.
        joint: whether all leaves of the low-rank part are one matrix, as in `trace_norm`.

    Returns:
        `Penalty` with `parts` `("low_rank", "sparse")`. Its argument is a dict by these names of two pytrees with the
        same structure and leaves `[T, *p]`, whose sum is the parameters.

    Raises:
        NotImplementedError: second derivatives are taken.

    References:
        Chen, Liu and Ye, "Learning Incoherent Sparse and Low-Rank Patterns from Multiple Tasks", KDD 2010. Departures:
        the paper bounds the trace norm by a constant, and penalises the sparse part alone. Here both are penalised,
        which has the same solutions for matching strengths.

    Example:
        >>> import jax.numpy as jnp
        >>> parts = {"low_rank": {"w": jnp.array([[0.0, 0.0], [3.0, 4.0]])}, "sparse": {"w": jnp.eye(2)}}
        >>> round(float(sparse_low_rank(1.0, 0.5)(parts)), 5)
        6.0
        >>> sparse_low_rank(1.0, 0.5).prox(parts, 1.0)["sparse"]["w"].tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    check_nonnegative("sparse_low_rank", "strength_low_rank", strength_low_rank)
    check_nonnegative("sparse_low_rank", "strength_sparse", strength_sparse)
    check_flag("sparse_low_rank", "joint", joint)
    return by_part(
        "sparse_low_rank", {"low_rank": trace_norm(strength_low_rank, joint=joint), "sparse": l1(strength_sparse)}
    )
