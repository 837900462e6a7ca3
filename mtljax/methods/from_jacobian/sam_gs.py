"""SAM-GS: equal lengths where task gradients differ in length, momentum where they do not."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax.checks import check_number
from mtljax.methods.arithmetic import divide
from mtljax.methods.from_jacobian.common import method_of_gradients, zero_rows
from mtljax.methods.rows import row_norms, sum_over_tasks
from mtljax.participation import held
from mtljax.trees import along
from mtljax.types import Array, Key, Method, PyTree


class SAMGSState(NamedTuple):
    """State of SAM-GS.

    Attributes:
        moment: leaves `[T, *p]`, float32 at least: m, the moving average of every task's gradient.
        spread: float32 `[]`, v, the moving average of the squared dissimilarity.
        steps: int32 `[T]`, at how many steps each task was active.
        count: int32 `[]`, at how many steps v moved.
    """

    moment: PyTree
    spread: Array
    steps: Array
    count: Array


def sam_gs(*, momentum: float = 0.9, beta: float = 0.99, threshold: float = 0.1, eps: float = 1e-8) -> Method:
    """Similarity-aware momentum gradient surgery.

    Two gradients are as similar in length as `s_ij = 2 |g_i| |g_j| / (|g_i|^2 + |g_j|^2)`, which is 1 for equal
    lengths; s is the mean over all pairs. With

        m_k <- momentum m_k + (1 - momentum) g_k,    v <- beta v + (1 - beta) (1 - s)^2 + eps,

    and `m^`, `v^` these divided by one minus the power of `momentum`, `beta` to the number of steps, the update is

        s < threshold:  mean_j |g_j| sum_k g_k / |g_k|
        otherwise:      sum_k g_k |m^_k| / sqrt(v^)      entry by entry.

    Args:
        momentum: in [0, 1), default 0.9.
        beta: in [0, 1), default 0.99.
        threshold: below which similarity lengths are made equal, at least 0, default 0.1; above 1, always.
        eps: added to v at every step, at least 0, default 1e-8; with equal lengths at every step it alone decides the
            length of the update.

    Returns:
        `Method` that reads task gradients, leaves `[T, *p]`. State: T x P, float32. `weights` are 1 for active tasks:
        task-specific gradients are left alone. `state.residual` is 0. The second line is quadratic in the gradients:
        its learning rate has another unit.

    Raises:
        ValueError: from `init`, `shared` is None.

    References:
        T. Borsani, A. Rosani, G. Nicosia, G. Di Fatta (2025), "Gradient similarity surgery in multi-task deep
        learning", ECML PKDD, arXiv 2506.06130. Departures: with one active task there is no pair, and the update is
        that task's gradient. Two gradients of zero are similar; where v is 0 the second line gives 0. An inactive
        task's m is held, and corrected by its own steps. The authors' code for supervised tasks: the defaults, then
        times T and clipped to length 1 (see `mtljax.methods.clip`).

    Example:
        >>> import jax.numpy as jnp
        >>> rows = jnp.array([[100.0, 0.0], [0.0, 1.0]])
        >>> method = sam_gs()
        >>> print(method.update(rows, method.init(2, rows[0]))[0])
        [50.5 50.5]
    """
    check_number("sam_gs", "momentum", momentum, least=0, below=1)
    check_number("sam_gs", "beta", beta, least=0, below=1)
    check_number("sam_gs", "threshold", threshold, least=0)
    check_number("sam_gs", "eps", eps, least=0)

    def inner(num_tasks: int, shared: PyTree) -> SAMGSState:
        return SAMGSState(
            zero_rows("sam_gs", num_tasks, shared),
            jnp.zeros((), jnp.float32),
            jnp.zeros((num_tasks,), jnp.int32),
            jnp.zeros((), jnp.int32),
        )

    def rule(rows: PyTree, active: Array, inner: SAMGSState, *, losses: Array | None, key: Key | None):
        number = jnp.sum(active)
        several = number > 1
        norms = row_norms(rows, active.size)
        similarity = mean_similarity(norms, active)
        steps, count = inner.steps + active, inner.count + several
        spread = jnp.where(several, beta * inner.spread + (1.0 - beta) * (1.0 - similarity) ** 2 + eps, inner.spread)
        corrected = divide(spread, 1.0 - beta ** jnp.maximum(count, 1).astype(jnp.float32))
        equalize = ~several | (similarity < threshold)
        factors = divide(jnp.sum(norms) / jnp.maximum(number, 1), norms)
        gains = divide(1.0 / (1.0 - momentum ** jnp.maximum(steps, 1).astype(jnp.float32)), jnp.sqrt(corrected))
        moment = jax.tree.map(lambda old, new: momentum * old + (1.0 - momentum) * new, inner.moment, rows)
        moment = held(moment, inner.moment, active)

        def one(row: Array, moment: Array, factor: Array, gain: Array) -> Array:
            return row * jnp.where(equalize, factor, gain * jnp.abs(moment))

        def combine(rows: Array, moment: Array) -> Array:
            factor, gain = (along(vector, rows).astype(rows.dtype) for vector in (factors, gains))
            return sum_over_tasks(one, rows, moment, factor, gain)

        update = jax.tree.map(combine, rows, moment)
        return update, jnp.ones_like(norms), SAMGSState(moment, spread, steps, count)

    return method_of_gradients("sam_gs", rule, inner=inner)


def mean_similarity(norms: Array, active: Array) -> Array:
    """Mean over pairs of active tasks of `2 a b / (a^2 + b^2)`, `[]`; 1 where there is no pair.

    Args:
        norms: float32 `[T]`, 0 where not active.
        active: bool `[T]`.

    Example:
        >>> float(mean_similarity(jnp.array([1.0, 2.0]), jnp.ones(2, bool)))
        0.8...
    """
    low, high = jnp.minimum(norms[:, None], norms[None, :]), jnp.maximum(norms[:, None], norms[None, :])
    ratio = jnp.where(high > 0, divide(low, high), 1.0)
    pair = active[:, None] & active[None, :] & ~jnp.eye(active.size, dtype=bool)
    total = jnp.sum(jnp.where(pair, 2.0 * ratio / (1.0 + ratio * ratio), 0.0))
    return jnp.where(jnp.any(pair), total / jnp.maximum(jnp.sum(pair), 1), 1.0)
