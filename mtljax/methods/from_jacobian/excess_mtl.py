"""ExcessMTL: weights that grow for tasks that can still improve most."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.scipy.special import logsumexp

from mtljax import trees
from mtljax.checks import check_flag, check_number
from mtljax.methods.arithmetic import divide
from mtljax.methods.common import PULL
from mtljax.methods.from_jacobian.common import method_of_gradients, zero_rows
from mtljax.methods.rows import row_sums
from mtljax.participation import held
from mtljax.types import Array, Key, Method, PyTree


class ExcessMTLState(NamedTuple):
    """State of ExcessMTL.

    Attributes:
        root: leaves `[T, *p]`, float32 at least: the root of the sum of all squared gradients so far.
        first: float32 `[T]`, the first excess risk of each task that was not 0; 0 before.
        log_weights: float32 `[T]`, up to a common summand.
    """

    root: PyTree
    first: Array
    log_weights: Array


def excess_mtl(
    *,
    step_size: float = 0.01,
    eps: float = 0.0,
    relative_from_first: bool = True,
    mean: bool = True,
    weigh_tasks: bool = True,
) -> Method:
    """Robust multi-task learning with excess risks.

    A task's excess risk is its loss minus the lowest reachable loss. It is estimated with a diagonal Hessian as in
    Adagrad, and the weights ascend on it:

        S_k <- S_k + g_k^2,    e_k = sum g_k^2 / sqrt(S_k + eps),
        w_k <- w_k exp(step_size e_k / e_k^0) / Z,    update = sum_k w_k g_k,

    with `e_k^0` the task's first excess risk and equal weights at first. Unlike a loss, an excess risk is 0 for a task
    that has learnt all it can, so that noise in the labels of a task does not attract weight.

    Args:
        step_size: positive; default 0.01, that of the authors' code.
        eps: added to S, at least 0, in units of a squared gradient; default 0, with which gradients have no unit.
        relative_from_first: whether the very first excess risk of a task, too, is divided by itself, which leaves equal
            weights equal (default, as in the authors' code); otherwise it is taken as it is.
        mean: whether weights sum to 1 (default, the paper); otherwise to the number of active tasks.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; True (default) in the
            paper's objective and the authors' code.

    Returns:
        `Method` that reads task gradients, leaves `[T, *p]`. State: T x P, float32. Weights are float32 `[T]`,
        non-negative. `state.residual` is 0.

    Raises:
        ValueError: from `init`, `shared` is None.

    References:
        Y. He, S. Zhou, G. Zhang, H. Yun, Y. Xu, B. Zeng, T. Chilimbi, H. Zhao (2024), "Robust multi-task learning
        with excess risks", ICML, arXiv 2402.02009. Departures: S and w of an inactive task are held, and active
        tasks share what they had together; each task's `e_k^0` is that of its own first step with a gradient; an
        excess risk of more than 64 times that counts as 64 times, so that no single batch decides the weights for
        ever. The paper's warm-up, which collects S and the mean excess risk under equal weights (appendix C.1), is
        not here. LibMTL and the authors' code: `eps=1e-7, mean=False`; TorchJD:
        `step_size=1.0, eps=1e-7, relative_from_first=False, weigh_tasks=False`.

    Example:
        >>> import jax.numpy as jnp
        >>> method = excess_mtl(step_size=1.0)
        >>> state = method.init(2, jnp.zeros(1))
        >>> _, state = method.update(jnp.array([[1.0], [1.0]]), state)
        >>> _, state = method.update(jnp.array([[0.0], [1.0]]), state)
        >>> print((100 * state.weights).round())
        [33. 67.]
    """
    check_number("excess_mtl", "step_size", step_size, above=0)
    check_flag("excess_mtl", "relative_from_first", relative_from_first)
    check_flag("excess_mtl", "mean", mean)
    check_number("excess_mtl", "eps", eps, least=0)
    softened = isinstance(eps, Tracer) or eps > 0

    def inner(num_tasks: int, shared: PyTree) -> ExcessMTLState:
        return ExcessMTLState(
            zero_rows("excess_mtl", num_tasks, shared),
            jnp.zeros((num_tasks,), jnp.float32),
            jnp.zeros((num_tasks,), jnp.float32),
        )

    def risk(gradient: Array, root: Array) -> Array:
        # The state holds the root, not the square; one of the two factors is divided by it, since squares underflow.
        return gradient * divide(gradient, jnp.hypot(root, jnp.sqrt(eps).astype(root.dtype)) if softened else root)

    def rule(rows: PyTree, active: Array, inner: ExcessMTLState, *, losses: Array | None, key: Key | None):
        root = jax.tree.map(jnp.hypot, inner.root, rows)
        root = held(root, inner.root, active)
        excess = jnp.broadcast_to(row_sums(risk, rows, root), active.shape)
        begins = active & (inner.first == 0)
        first = jnp.where(begins, excess, inner.first)
        ratio = jnp.minimum(jnp.where(first > 0, divide(excess, first), 1.0), PULL)
        if not relative_from_first:
            ratio = jnp.where(begins, excess, ratio)
        old = jnp.where(active, inner.log_weights, -jnp.inf)
        new = jnp.where(active, inner.log_weights + step_size * ratio, -jnp.inf)
        anyone = jnp.any(active)
        before, after = (jnp.where(anyone, logsumexp(jnp.where(anyone, x, 0.0)), 0.0) for x in (old, new))
        log_weights = jnp.where(active, new - after + before, inner.log_weights)
        weights = jnp.where(active, jnp.exp(jnp.where(active, new, 0.0) - after), 0.0)
        if not mean:
            weights = weights * jnp.sum(active)
        return trees.weighted_sum(weights, rows), weights, ExcessMTLState(root, first, log_weights)

    return method_of_gradients("excess_mtl", rule, inner=inner, weigh_tasks=weigh_tasks)
