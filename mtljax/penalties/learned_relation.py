"""Task relationship learning: a covariance between tasks, positive or negative, given or learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from mtljax import trees
from mtljax.checks import check_nonnegative, check_number, expect
from mtljax.penalties.common import Penalty, check_stacked, mix_rows, sum_over_leaves
from mtljax.penalties.groups import map_leaves
from mtljax.penalties.singular_values import decompose, lowering, rescale, singular_values
from mtljax.types import Array, PyTree

# Relative differences up to this count as rounding, since covariances usually arrive in float32.
_ROUNDING = 1e-5


def learned_relation(strength: Array | float = 1.0) -> Penalty:
    r"""Multi-task relationship learning with the best task covariance, which is the squared trace norm.

        value(w) = strength * min over Omega of tr(W^T Omega^-1 W),   Omega [T, T] >= 0,   tr Omega = 1
                 = strength * |W|_*^2
        prox(v, s) = U diag(max(sigma_i - tau, 0)) V^T,   tau = max_n c (sigma_1 + ... + sigma_n) / (1 + c n)

    `W` `[T, P]` is all leaves side by side, `c = 2 s strength`, and singular values are in descending order. `tau` is c
    times the trace norm of the result. The best Omega is `task_covariance(w)`, and `relation(omega)` is the penalty for
    a given Omega; alternating between these two minimises the same function more slowly. Nothing is divided by T or by
    the number of parameters, and there is no factor 1/2. There are no second derivatives.

    Args:
        strength: non-negative scalar; may be traced, so that it can be swept.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    Raises:
        NotImplementedError: second derivatives are taken.

    References:
        Zhang and Yeung, "A Convex Formulation for Learning Task Relationships in Multi-Task Learning", UAI 2010, with
        `strength = lambda_2 / 2`. Departures: the paper alternates between Omega and the parameters, and adds a ridge
        on the parameters.

    Example:
        >>> w = jnp.array([[3.0, 0.0], [0.0, 1.0]])
        >>> round(float(learned_relation()(w)), 4)
        16.0
        >>> round(float(relation(task_covariance(w))(w)), 4)
        16.0
        >>> learned_relation().prox(w, 0.5).round(4) + 0.0
        Array([[1.5, 0. ],
               [0. , 0. ]], dtype=float32)
    """
    check_nonnegative("learned_relation", "strength", strength)

    def value(stacked: PyTree) -> Array:
        check_stacked("learned_relation", stacked)
        if not jax.tree.leaves(stacked):
            return strength * jnp.zeros((), jnp.float32)
        return strength * jnp.square(jnp.sum(singular_values(stacked)))

    def prox(stacked: PyTree, step_size: Array | float) -> PyTree:
        check_stacked("learned_relation", stacked)
        check_nonnegative("learned_relation", "step_size", step_size)
        stiffness = 2.0 * step_size * strength

        def factors(values: Array) -> Callable[[Array], Array]:
            count = jnp.arange(1, values.shape[0] + 1, dtype=values.dtype)
            # The right number of values above the threshold is the one with the largest threshold.
            return lowering(jnp.max(stiffness * jnp.cumsum(values) / (1.0 + stiffness * count)))

        return rescale(stacked, factors) if jax.tree.leaves(stacked) else stacked

    return Penalty(value=value, prox=prox)


def task_covariance(stacked: PyTree) -> Array:
    r"""The best task covariance for given parameters.

        Omega = (W W^T)^(1/2) / tr (W W^T)^(1/2)

    It minimises `tr(W^T Omega^-1 W)` over `Omega >= 0, tr Omega = 1`, where `W` `[T, P]` is all leaves side by side. An
    entry off the diagonal is positive if the parameters of the two tasks point in similar directions, and negative if
    they point in opposite directions. Omega is singular if the tasks' parameters are linearly dependent.

    Args:
        stacked: pytree with at least one leaf, `[T, *p]`.

    Returns:
        `[T, T]`, float32, or float64 if a leaf is, symmetric, a constant under differentiation. `I / T` if all
        parameters are zero, when all covariances are equally good.

    References:
        Zhang and Yeung, "A Convex Formulation for Learning Task Relationships in Multi-Task Learning", UAI 2010.

    Example:
        >>> task_covariance(jnp.array([[1.0, 1.0], [-1.0, -1.0]])).round(4)
        Array([[ 0.5, -0.5],
               [-0.5,  0.5]], dtype=float32)
    """
    check_stacked("task_covariance", stacked)
    expect(bool(jax.tree.leaves(stacked)), "task_covariance", "stacked", "a tree with leaves", stacked, ValueError)
    left, values = decompose(stacked)
    total = jnp.sum(values)
    share = jnp.where(total > 0, values / jnp.where(total > 0, total, 1.0), 1.0 / values.shape[0])
    covariance = mix_rows(left * share[None, :], left.T)
    return 0.5 * (covariance + covariance.T)


def relation(omega: np.ndarray | Array, strength: Array | float = 1.0) -> Penalty:
    r"""Multi-task relationship learning for a given task covariance: a Gaussian prior on the tasks' parameters.

        value(w) = strength * tr(W^T Omega^-1 W) = strength * sum_ij (Omega^-1)_ij <w_i, w_j>
        prox(v, s) = Omega (Omega + 2 s strength I)^-1 v

    Nothing is divided by T or by the number of parameters, and there is no factor 1/2. Omega may be traced, so that
    training may alternate between the parameters and `omega = task_covariance(params)`. It is a constant under
    differentiation.

    A singular Omega forbids some combinations of tasks: in exact arithmetic their cost would be infinite. Here the
    eigenvalues below `sqrt(eps)` of the largest (3e-4 in float32) are raised to that value. Forbidden combinations then
    cost thousands of times more than allowed ones, while rounding errors in them add at most `sqrt(eps)` to the
    gradient. A pseudo-inverse would give forbidden combinations no cost, so it is not used. Small eigenvalues make the
    penalty stiff: gradient steps need a small learning rate, prox steps do not. If training alternates, a combination
    that Omega once forbids hardly comes back. A ridge helps against both, as in
    `relation(omega + 0.1 / T * jnp.eye(T))`.

    Args:
        omega: `[T, T]`, symmetric, positive semidefinite, not zero, rows in sorted order of task names.
        strength: non-negative scalar; may be traced, so that it can be swept.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    Raises:
        ValueError: `omega` is not square, or is known and is not finite, symmetric and positive semidefinite, or is
            zero.

    References:
        Zhang and Yeung, "A Convex Formulation for Learning Task Relationships in Multi-Task Learning", UAI 2010, with
        `strength = lambda_2 / 2`.

    Example:
        >>> alike = relation(jnp.array([[0.5, 0.4], [0.4, 0.5]]))
        >>> round(float(alike(jnp.array([1.0, 1.0]))), 4), round(float(alike(jnp.array([1.0, -1.0]))), 3)
        (2.2222, 20.0)
    """
    check_nonnegative("relation", "strength", strength)
    omega = _checked_covariance(omega)
    num_tasks = omega.shape[0]
    omega = lax.stop_gradient(jnp.asarray(omega, trees.accumulator(jnp.result_type(omega, jnp.bfloat16))))
    values, vectors = jnp.linalg.eigh(omega)
    values = jnp.maximum(values, jnp.sqrt(jnp.finfo(values.dtype).eps) * values[-1])

    def value(stacked: PyTree) -> Array:
        check_stacked("relation", stacked, num_tasks)
        whiten = vectors.T / jnp.sqrt(values)[:, None]
        return strength * sum_over_leaves(stacked, lambda w: jnp.sum(jnp.square(mix_rows(whiten, w))))

    def prox(stacked: PyTree, step_size: Array | float) -> PyTree:
        check_stacked("relation", stacked, num_tasks)
        check_nonnegative("relation", "step_size", step_size)
        matrix = mix_rows(vectors * (values / (values + 2.0 * step_size * strength))[None, :], vectors.T)
        return map_leaves(lambda v: mix_rows(matrix, v), stacked)

    return Penalty(value=value, prox=prox)


def _checked_covariance(omega: Any) -> np.ndarray | Array:
    omega = check_number("relation", "omega", omega, shape=("T", "T"))
    if omega.shape[0] != omega.shape[1] or not omega.size:
        raise ValueError(f"relation: omega must have shape [T, T], found {jnp.shape(omega)}")
    if isinstance(omega, Tracer):
        return omega
    known = np.asarray(omega, np.float64)
    largest = np.max(np.abs(known))
    different = np.abs(known - known.T) > _ROUNDING * largest
    if np.any(different):
        i, j = np.argwhere(different)[0]
        raise ValueError(
            f"relation: omega must be symmetric, found {known[i, j]} at [{i}, {j}] but {known[j, i]} at [{j}, {i}]"
        )
    smallest = np.linalg.eigvalsh(known)[0]
    if smallest < -_ROUNDING * largest * len(known):
        raise ValueError(f"relation: omega must be positive semidefinite, found the eigenvalue {smallest}")
    if largest == 0:
        raise ValueError("relation: omega must not be zero, found only zeros")
    return omega
