"""Baselines in closed form: one model per task, one model for all tasks, and models near a common mean."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax.checks import check_flag, check_nonnegative, check_number
from mtljax.convex.fit import prepare
from mtljax.convex.linear import Linear
from mtljax.convex.losses import squared
from mtljax.convex.problem import TaskRows, check_rows
from mtljax.convex.products import product
from mtljax.convex.quadratic import Quadratic, least_squares
from mtljax.types import Array


def ridge_per_task(rows: TaskRows, strength: Array | float, *, intercept: bool = False) -> Linear:
    r"""One ridge regression per task, in closed form.

        minimise  1/2 sum_n (w_t' x_tn + b_t - y_tn)^2 + strength/2 |w_t|^2   for each task t

    Args:
        rows: the data, from `pad` or `columns`.
        strength: non-negative scalar; may be traced. With 0, the shortest of all least-squares solutions.
        intercept: whether each task has an intercept, which is not penalised.

    Returns:
        `Linear`. A task without rows gets weights of 0, and an intercept as in `fit`.

    Raises:
        ValueError: rows whose shapes do not match, or a negative strength.
        TypeError: rows of another type.

    References:
        Hoerl and Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal Problems", Technometrics 12, 1970.

    Example:
        >>> import jax
        >>> from mtljax.convex.problem import columns
        >>> rows = columns(jnp.eye(2), jnp.array([[3.0, 4.0], [0.0, 2.0]]))
        >>> jax.jit(ridge_per_task)(rows, 1.0).weights.round(6).tolist()
        [[1.5, 0.0], [2.0, 1.0]]
    """
    check_rows("ridge_per_task", rows)
    check_nonnegative("ridge_per_task", "strength", strength)
    check_flag("ridge_per_task", "intercept", intercept)
    problem = prepare(rows, squared, intercept=intercept, average=False)
    assert problem.model is not None and problem.means is not None
    weights = _ridge(problem.model, strength)
    return Linear(weights, problem.means.intercepts(weights))


def pooled(rows: TaskRows, strength: Array | float, *, intercept: bool = False) -> Linear:
    r"""One ridge regression on the rows of all tasks together, in closed form.

        minimise  1/2 sum_tn (w' x_tn + b - y_tn)^2 + strength/2 |w|^2

    Args:
        rows: the data, from `pad` or `columns`.
        strength: non-negative scalar; may be traced. With 0, the shortest of all least-squares solutions.
        intercept: whether there is an intercept, one for all tasks, which is not penalised.

    Returns:
        `Linear`, the same model for every task.

    Raises:
        ValueError: rows whose shapes do not match, or a negative strength.
        TypeError: rows of another type.

    Example:
        >>> import jax
        >>> from mtljax.convex.problem import columns
        >>> rows = columns(jnp.eye(2), jnp.array([[3.0, 5.0], [0.0, 2.0]]))
        >>> jax.jit(pooled)(rows, 2.0).weights.round(6).tolist()
        [[2.0, 0.5], [2.0, 0.5]]
    """
    check_rows("pooled", rows)
    check_nonnegative("pooled", "strength", strength)
    check_flag("pooled", "intercept", intercept)
    clean = prepare(rows, squared._replace(quadratic=False), intercept=intercept, average=False)
    num_tasks, length = clean.targets.shape
    weights = jnp.broadcast_to(clean.weights, clean.targets.shape)
    weighted = weights * clean.targets
    if clean.inputs.shape[0] == 1:
        # Each row once, also if several tasks have it.
        inputs, weights, weighted = clean.inputs[0], jnp.sum(weights, 0), jnp.sum(weighted, 0)
    else:
        inputs = clean.inputs.reshape(num_tasks * length, -1)
    model, means = least_squares(inputs[None], weights.reshape(1, -1), weighted.reshape(1, -1), intercept=intercept)
    one = _ridge(model, strength)
    return Linear(jnp.tile(one, (num_tasks, 1)), jnp.tile(means.intercepts(one), num_tasks))


def mean_regularized(
    rows: TaskRows, strength: Array | float, shared_strength: Array | float = 0.0, *, intercept: bool = False
) -> Linear:
    r"""Each task near a common mean that is learned with the tasks, `w_t = w_0 + v_t`, in closed form.

        minimise  1/2 sum_tn (w_t' x_tn + b_t - y_tn)^2 + strength/2 sum_t |v_t|^2 + shared_strength/2 |w_0|^2

    The `v_t` are eliminated, so w_0 is the solution of one `[p, p]` system. As shared_strength tends to infinity this
    is `ridge_per_task`; as strength tends to infinity it is one model for all tasks. The solution is that of `fit` with
    `penalties.relation(omega, shared_strength / 2)`, `omega_ts = 1 + shared_strength / strength * (t == s)`, but
    without iterations. With shared_strength 0 it is that of `fit` with `penalties.l2_to_mean(strength / 2)`.

    Args:
        rows: the data, from `pad` or `columns`.
        strength: positive scalar, of the tasks' own parts `v_t`; may be traced.
        shared_strength: non-negative scalar, of the shared `w_0`; default 0; may be traced. With 0, the shortest of all
            equally good w_0.
        intercept: whether each task has an intercept, which is not penalised.

    Returns:
        `Linear`. A task without rows gets the mean, and an intercept as in `fit`.

    Raises:
        ValueError: rows whose shapes do not match, a strength that is not positive, a negative shared_strength.
        TypeError: rows of another type.

    References:
        Evgeniou and Pontil, "Regularized Multi-Task Learning", KDD 2004, with `strength = 2 lambda_1 / T` and
        `shared_strength = 2 lambda_2`. Departures: squared loss in place of the paper's hinge loss.

    Example:
        >>> import jax
        >>> from mtljax.convex.problem import columns
        >>> rows = columns(jnp.eye(1), jnp.array([[1.0, 4.0]]))
        >>> jax.jit(mean_regularized)(rows, 0.5).weights.round(6).tolist()  # two thirds of the way from 2.5
        [[1.5], [3.5]]
    """
    check_rows("mean_regularized", rows)
    check_number("mean_regularized", "strength", strength, above=0)
    check_nonnegative("mean_regularized", "shared_strength", shared_strength)
    check_flag("mean_regularized", "intercept", intercept)
    problem = prepare(rows, squared, intercept=intercept, average=False)
    assert problem.model is not None and problem.means is not None
    model = problem.model
    own = jnp.asarray(strength, model.curvature.dtype)
    kept = own / (model.curvature + own)
    # A task's loss as a function of w_0, minimised over its v.
    basis = jnp.broadcast_to(model.basis, (model.slope.shape[0], *model.basis.shape[1:]))
    curvature = jnp.broadcast_to(kept * model.curvature, model.slope.shape)
    system = product("tpr,tqr->pq", basis * curvature[:, None, :], basis)
    values, vectors = jnp.linalg.eigh(0.5 * (system + system.T))
    noise = jnp.finfo(values.dtype).eps * values.shape[0] * jnp.max(values, initial=0.0)
    stiffness = jnp.where(values <= noise, 0.0, values) + shared_strength
    right = product("pk,p->k", vectors, product("tpr,tr->p", basis, kept * model.slope))
    shared = product(
        "pk,k->p", vectors, jnp.where(stiffness > 0, right / jnp.where(stiffness > 0, stiffness, 1.0), 0.0)
    )
    residual = model.slope - model.curvature * model.rotate(shared[None, :])
    weights = shared[None, :] + model.unrotate(residual / (model.curvature + own))
    return Linear(weights, problem.means.intercepts(weights))


def _ridge(model: Quadratic, strength: Array | float) -> Array:
    """Weights `[T, p]`; 0 along directions with neither curvature nor penalty."""
    stiffness = model.curvature + jnp.asarray(strength, model.curvature.dtype)
    return model.unrotate(jnp.where(stiffness == 0, 0.0, model.slope / jnp.where(stiffness == 0, 1.0, stiffness)))
