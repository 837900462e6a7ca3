"""MoCo: averaged task gradients, and weights that descend on the length of their combination."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax import ranges, trees
from mtljax.checks import check_callable, check_losses, check_number
from mtljax.methods.arithmetic import divide
from mtljax.methods.common import check_evidence
from mtljax.methods.from_jacobian.common import method_of_gradients, zero_rows
from mtljax.methods.rows import row_norms
from mtljax.participation import held, rows_of
from mtljax.solvers.scaling import as_float32, multiply
from mtljax.solvers.simplex_projection import among_active, back_among_all, project_simplex
from mtljax.trees import along
from mtljax.types import Array, Key, Method, PyTree

LARGEST = 2.0**100


class MoCoState(NamedTuple):
    """State of MoCo.

    Attributes:
        average: leaves `[T, *p]`, float32 at least: y, the moving average of every task's gradient.
        share: float32 `[T]`, lambda, on the simplex up to a factor.
        steps: int32 `[T]`, at how many steps each task was active.
        count: int32 `[]`, at how many steps any was.
    """

    average: PyTree
    share: Array
    steps: Array
    count: Array


def norms_over_losses(norms: Array, losses: Array | None) -> Array:
    """Divisors `|g_k| / L_k`: every task gradient gets the length of its loss, as in LibMTL.

    Args:
        norms: float32 `[T]`, `|g_k|`.
        losses: float32 `[T]`.

    Raises:
        ValueError: losses are None.

    Example:
        >>> norms_over_losses(jnp.array([2.0, 3.0]), jnp.array([0.5, 1.0])).tolist()
        [4.0, 3.0]
    """
    return divide(norms, check_losses("moco", losses, "T"))


def simplex_softmax(values: Array, *, active: Array) -> Array:
    """Softmax over active tasks in place of the projection onto the simplex, as in LibMTL.

    Args:
        values: float32 `[T]`.
        active: bool `[T]`.

    Example:
        >>> simplex_softmax(jnp.array([1.0, 1.0, 9.0]), active=jnp.array([True, True, False])).tolist()
        [0.5, 0.5, 0.0]
    """
    top = jnp.max(jnp.where(active, values, -jnp.inf))
    powers = jnp.where(active, jnp.exp(values - jnp.where(jnp.any(active), top, 0.0)), 0.0)
    return divide(powers, jnp.sum(powers))


def moco(
    *,
    beta: float = 0.5,
    beta_decay: float = 0.5,
    gamma: float = 0.1,
    gamma_decay: float = 0.5,
    rho: float = 0.0,
    normalization: Callable[[Array, Array | None], Array] | None = None,
    projection: Callable[..., Array] = project_simplex,
    weigh_tasks: bool = False,
) -> Method:
    """Stochastic multi-objective gradient correction.

        y_k <- y_k - beta / s^beta_decay (y_k - g_k),
        lambda <- P(lambda - gamma / s^gamma_decay (Y Y' + rho I) lambda),
        update = sum_k lambda_k y_k,

    with s the number of the step, from 1, `y_k = 0` before it, lambda equal at first and P the projection onto the
    simplex. MGDA reads the gradients of one batch, which biases its weights; y follows the expected gradients, so the
    bias decreases from step to step.

    Args:
        beta: step size of y, positive; default 0.5.
        beta_decay: how fast it shrinks with the number of steps, at least 0; default 0.5.
        gamma: step size of lambda, at least 0, in units of one over a squared gradient; default 0.1. 0 keeps lambda
            equal.
        gamma_decay: how fast it shrinks, at least 0; default 0.5.
        rho: weight of a penalty `|lambda|^2 / 2`, at least 0; default 0.
        normalization: `normalization(norms [T], losses [T] or None) -> divisors [T]` of the gradients before they are
            averaged, for example `norms_over_losses` of this module; None (default) for none. A divisor that is not a
            positive finite number counts as 1. Entries of inactive tasks hold 1.
        projection: P, `projection(values [T], *, active [T]) -> [T]`; default the Euclidean one, or `simplex_softmax`
            of this module.
        weigh_tasks: whether task-specific (head) gradients are multiplied by lambda too; False (default) in the
            authors' code and LibMTL.

    Returns:
        `Method` that reads task gradients, leaves `[T, *p]`. State: T x P, float32. Weights are float32 `[T]`, lambda
        over active tasks. `state.residual` is 0: nothing is solved for.

    Raises:
        ValueError: from `init`, `shared` is None; from `update`, losses are None where the normalization reads them.

    References:
        H. Fernando, H. Shen, M. Liu, S. Chaudhury, K. Murugesan, T. Chen (2023), "Mitigating gradient bias in
        multi-objective learning: a provably convergent stochastic approach", ICLR, arXiv 2210.12624. Departures: y
        and lambda move before the parameters do, as in the authors' code. An inactive task's y and lambda are held,
        and the s of its y counts its own steps. The authors' step sizes differ between experiments; the defaults
        are LibMTL's, which they gave. LibMTL: `normalization=norms_over_losses, projection=simplex_softmax`.

    Example:
        >>> import jax.numpy as jnp
        >>> method = moco(gamma=0.5)
        >>> rows = jnp.array([[2.0, 0.0], [0.0, 1.0]])
        >>> update, state = method.update(rows, method.init(2, rows[0]))
        >>> print(state.weights, update)
        [0.40625 0.59375] [0.40625   0.296875]
    """
    if normalization is not None:
        check_callable("moco", "normalization", normalization)
    check_callable("moco", "projection", projection)
    check_number("moco", "beta", beta, above=0)
    for what, value in (("beta_decay", beta_decay), ("gamma", gamma), ("gamma_decay", gamma_decay), ("rho", rho)):
        check_number("moco", what, value, least=0)

    def inner(num_tasks: int, shared: PyTree) -> MoCoState:
        return MoCoState(
            average=zero_rows("moco", num_tasks, shared),
            share=jnp.full((num_tasks,), 1.0 / num_tasks, jnp.float32),
            steps=jnp.zeros((num_tasks,), jnp.int32),
            count=jnp.zeros((), jnp.int32),
        )

    def normalized(rows: PyTree, active: Array, losses: Array | None) -> PyTree:
        assert normalization is not None
        norms = jnp.where(active, row_norms(rows, active.size), 1.0)
        found = normalization(norms, losses)
        check_evidence("moco", "what normalization returned", found, active.shape)
        found = as_float32(found)
        divisor = jnp.where(active & (found > 0) & jnp.isfinite(found), found, 1.0)
        return jax.tree.map(lambda leaf: leaf / along(divisor, leaf).astype(leaf.dtype), rows)

    def rule(rows: PyTree, active: Array, inner: MoCoState, *, losses: Array | None, key: Key | None):
        if normalization is not None:
            rows = normalized(rows, active, losses)
        steps = inner.steps + active
        count = inner.count + jnp.any(active)
        speed = beta * jnp.maximum(steps, 1).astype(jnp.float32) ** -beta_decay
        step = gamma * jnp.maximum(count, 1).astype(jnp.float32) ** -gamma_decay

        def move(old: Array, new: Array) -> Array:
            return old - along(speed, old).astype(old.dtype) * (old - new)

        average = held(jax.tree.map(move, inner.average, rows), inner.average, active)
        kept = rows_of(active, average)
        found = ranges.gramian(kept, num_tasks=active.size)
        share = among_active(inner.share, active)
        slope = multiply(as_float32(found.gramian), share) / found.scale / found.scale
        # A step that leaves float32's range ends in a corner of the simplex, whatever the bound.
        weights = projection(share - step * (jnp.clip(slope, -LARGEST, LARGEST) + rho * share), active=active)
        check_evidence("moco", "what projection returned", weights, active.shape)
        state = MoCoState(average, back_among_all(weights, inner.share, active), steps, count)
        return trees.weighted_sum(weights, kept), weights, state

    return method_of_gradients("moco", rule, inner=inner, weigh_tasks=weigh_tasks)
