"""DB-MTL: gradients of log losses, averaged over steps and brought to one length."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax import trees
from mtljax.checks import check_losses, check_number
from mtljax.methods.arithmetic import divide
from mtljax.methods.from_jacobian.common import method_of_gradients, zero_rows
from mtljax.methods.rows import row_norms
from mtljax.participation import held, rows_of
from mtljax.trees import along
from mtljax.types import Array, Key, Method, PyTree


class DBMTLState(NamedTuple):
    """State of DB-MTL.

    Attributes:
        average: leaves `[T, *p]`, float32 at least: the moving average of every task's gradient of the log loss.
        steps: int32 `[T]`, at how many steps each task was active.
    """

    average: PyTree
    steps: Array


def db_mtl(*, beta: float = 0.9, decay: float = 0.0, eps: float = 1e-8) -> Method:
    """Dual-balancing: losses are balanced by their logarithm, gradients by their length.

        h_k <- b h_k + (1 - b) grad log(L_k + eps),    b = beta / s^decay,
        update = max_j |h_j| sum_k h_k / |h_k|,

    with s the number of the step, from 1, and h_k = 0 before it. Task-specific parameters descend on `log(L_k + eps)`.

    Args:
        beta: share of the past in the average, in [0, 1), default 0.9; the paper tunes it.
        decay: how fast that share shrinks with the number of steps, at least 0; default 0, constant.
        eps: added to the losses, at least 0, default 1e-8.

    Returns:
        `Method` that reads task gradients, leaves `[T, *p]`, and needs `losses`. State: T x P, float32. Weights are
        float32 `[T]`, `1 / (L_k + eps)`, which multiply task-specific gradients. `state.residual` is 0. A gradient of
        zero stays zero.

    Raises:
        ValueError: from `init`, `shared` is None; from `update`, losses are None.

    References:
        B. Lin, W. Jiang, F. Ye, Y. Zhang, P. Chen, Y.-C. Chen, S. Liu, I. Tsang, J. Kwok (2023), "Dual-balancing
        for multi-task learning", arXiv 2308.12029. Departures: a task whose loss is 0 is inactive for the step;
        losses must not be negative. An inactive task's average is held, and its s counts its own steps. There is no
        correction of the average's start at 0, as in LibMTL; lengths are equal all the same, but the first updates
        are `1 - beta` as long. LibMTL: the defaults; its `DB_beta_sigma` is `decay`.

    Example:
        >>> import jax.numpy as jnp
        >>> method = db_mtl(beta=0.5)
        >>> rows = jnp.array([[4.0, 0.0], [0.0, 1.0]])
        >>> update, state = method.update(rows, method.init(2, rows[0]), losses=jnp.array([2.0, 0.25]))
        >>> print(update.round(4), state.weights)
        [2. 2.] [0.5 4. ]
    """
    check_number("db_mtl", "beta", beta, least=0, below=1)
    check_number("db_mtl", "decay", decay, least=0)
    check_number("db_mtl", "eps", eps, least=0)

    def inner(num_tasks: int, shared: PyTree) -> DBMTLState:
        return DBMTLState(zero_rows("db_mtl", num_tasks, shared), jnp.zeros((num_tasks,), jnp.int32))

    def rule(rows: PyTree, active: Array, inner: DBMTLState, *, losses: Array | None, key: Key | None):
        losses = check_losses("db_mtl", losses, active.shape[0])
        active = active & (losses > 0)
        weights = jnp.where(active, 1.0 / jnp.where(active, losses + eps, 1.0), 0.0)
        steps = inner.steps + active
        past = beta * jnp.maximum(steps, 1).astype(jnp.float32) ** -decay

        def move(old: Array, new: Array) -> Array:
            new = new * along(weights, new).astype(new.dtype)
            return new + along(past, new).astype(new.dtype) * (old - new)

        average = held(jax.tree.map(move, inner.average, rows), inner.average, active)
        norms = jnp.where(active, row_norms(average, active.size), 0.0)
        factors = jnp.where(active, divide(jnp.max(norms), norms), 0.0)
        kept = rows_of(active, average)
        return trees.weighted_sum(factors, kept), weights, DBMTLState(average, steps)

    return method_of_gradients("db_mtl", rule, inner=inner, weigh_tasks=True, least_loss=0.0)
