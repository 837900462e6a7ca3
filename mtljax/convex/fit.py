"""`fit`: linear models of several tasks under one convex penalty."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax import trees
from mtljax.checks import check_count, check_flag, check_number, expect
from mtljax.convex.linear import Linear, predict
from mtljax.convex.losses import Loss, squared
from mtljax.convex.newton import minimize_smooth
from mtljax.convex.problem import TaskRows, check_rows
from mtljax.convex.quadratic import Means, Quadratic, least_squares
from mtljax.convex.splitting import Solved, minimize, parts_of, stacked_parts
from mtljax.penalties.common import Penalty, check_penalty
from mtljax.types import Array, PyTree

WIDE, NARROW = 1e-6, 1e-5
"""The default tolerance in float64, and in float32."""


class Fit(NamedTuple):
    """One fitted linear model per task: `f_t(x) = weights_t' x + intercepts_t`.

    Attributes:
        weights: `[T, p]`.
        intercepts: `[T]`; 0 without intercepts.
        parts: the argument of the penalty: the weights, or a dict by part of arrays `[T, p]` whose sum is the weights.
        duals: like `parts`, a subgradient of the penalty there; at a minimiser it equals minus the gradient of the
            loss.
        objective: `[]`, the loss plus the penalty.
        certificate: `[]`, a bound of `objective - least objective`, relative to `objective`; see `fit`.
        iterations: int32 `[]`, number of iterations.
        converged: bool `[]`, whether the certificate is at most the tolerance.
        rho: `[]`, the final inverse step size, which the next fit may start from.
        radius: `[]`, the bound of the distance to the nearest minimiser that the certificate assumes.
    """

    weights: Array
    intercepts: Array
    parts: PyTree
    duals: PyTree
    objective: Array
    certificate: Array
    iterations: Array
    converged: Array
    rho: Array
    radius: Array


class Problem(NamedTuple):
    """The rows as the solvers read them: without masked values, of one dtype, with weights in place of the mask.

    Attributes:
        inputs: `[T or 1, N, p]`, 0 in rows that are masked for all tasks that have them.
        targets: `[T, N]`, 0 where masked.
        weights: `[T or 1, N]`, the factor of a row's loss; 0 where masked.
        model: the loss as a function of the weights if it is quadratic; else None.
        means: the means that give the intercepts, beside the model; else None.
    """

    inputs: Array
    targets: Array
    weights: Array
    model: Quadratic | None = None
    means: Means | None = None


def fit(
    rows: TaskRows,
    penalty: Penalty,
    *,
    loss: Loss = squared,
    intercept: bool = False,
    average: bool = False,
    tolerance: ArrayLike | None = None,
    max_iterations: int = 5000,
    start: Fit | None = None,
) -> Fit:
    r"""Fit one linear model per task, all under one convex penalty.

        minimise  sum_t a_t sum_n loss(w_t' x_tn + b_t, y_tn) + penalty(W),   a_t = 1, or 1/n_t with `average`

    With squared loss, `1/2 (y - f)^2`, the first term is half the sum of squared errors, not their mean. A quadratic
    model of the loss is computed once from the rows, in `O(T (N + p) min(N, p) p)`. An iteration then takes
    `O(T p min(N, p))` and one prox. Both half-steps of an iteration are exact (see `splitting.minimize`), so features
    may have very different scales. On the unscaled School data, trace norm and l21 take 25 to 55 iterations for a
    certificate of 1e-6; accelerated proximal gradient steps have as few as three correct digits after 4000. Norms with
    many corners (`l1`, `l1_inf`, `dirty`) are slow in the last digits: a few hundred iterations for 1e-4, up to a few
    thousand for 1e-6. Losses that are not quadratic take a few proximal Newton steps; each solves such a problem with a
    new model.

    Call `fit` under `jax.jit`; otherwise each call compiles anew. It may be vmapped over all arrays: strengths
    (`jax.vmap(lambda s: fit(rows, trace_norm(s)))`), masks, targets. It cannot be differentiated in reverse mode.

    Args:
        rows: the data, from `pad` or `columns`.
        penalty: convex, with a prox, of parameters `[T, p]`, or of a dict of such arrays by its `parts`. If it is not
            convex, the iteration may not converge, and the certificate has no meaning.
        loss: `squared` (default), `logistic`, or any `Loss`.
        intercept: whether each task has an intercept, which is not penalised.
        average: whether each task's loss is divided by its number of rows, so that all tasks have the same weight.
        tolerance: the iteration ends at a certificate of at most this; default 1e-6 in float64 and 1e-5 in float32,
            where rounding adds an error of about 1e-6 that the certificate does not bound. For more digits, make the
            data and call `fit` within `with jax.enable_x64(True):`.
        max_iterations: rounded up to a multiple of 5.
        start: a fit to start from, of the same shapes and parts, for example at a similar strength or on similar rows.

    Returns:
        `Fit`. The parts are the output of the prox, so zeros are exact zeros. For a task without rows, the penalty
        alone determines the weights, and its intercept is such that the mean input of all tasks gives their mean
        target.

        `certificate` bounds the relative error of the objective by weak duality, for any convex penalty, since a prox
        also gives a subgradient at its result. If the Gramians are regular, it is a duality gap. In directions without
        data, the bound needs the distance to a minimiser. `radius`, the sum of the norms of the last two iterates, is
        assumed to bound this distance, which is not proved. For losses that are not quadratic, the certificate is that
        of the second-order model.

    Raises:
        ValueError: rows whose shapes do not match; a penalty without prox; a tolerance that is not positive; a `start`
            of other shapes.
        TypeError: rows, penalty or loss of another type.

    References:
        Lions and Mercier, "Splitting Algorithms for the Sum of Two Nonlinear Operators", SIAM Journal on Numerical
        Analysis 16, 1979.
        Argyriou, Evgeniou and Pontil, "Convex Multi-Task Feature Learning", Machine Learning 73, 2008, for linear
        multi-task learning under such penalties.

    Example:
        >>> import jax
        >>> from mtljax.convex.problem import columns
        >>> from mtljax.penalties.l21 import l21
        >>> rows = columns(jnp.eye(2), jnp.array([[3.0, 4.0], [0.5, 0.0]]))
        >>> found = jax.jit(lambda rows: fit(rows, l21(1.0)))(rows)
        >>> found.weights.round(3).tolist()  # [feature 0, feature 1] of each task
        [[2.4000000953674316, 0.0], [3.200000047683716, 0.0]]
        >>> bool(found.converged), round(float(found.objective), 3)
        (True, 4.625)
    """
    options = {"intercept": intercept, "average": average, "tolerance": tolerance, "max_iterations": max_iterations}
    check_problem("fit", rows, penalty, loss, **options)
    problem = prepare(rows, loss, intercept=intercept, average=average)
    return fit_prepared(
        "fit",
        problem,
        penalty,
        loss,
        intercept=intercept,
        tolerance=tolerance,
        max_iterations=max_iterations,
        start=start,
    )


def prepare(rows: TaskRows, loss: Loss, *, intercept: bool, average: bool) -> Problem:
    """The part of `fit` that depends on the rows alone, which is the same for all strengths."""
    dtype = trees.accumulator(jnp.result_type(rows.inputs, rows.targets))
    mask = jnp.asarray(rows.mask)
    seen = mask if rows.inputs.shape[0] > 1 else jnp.any(mask, 0, keepdims=True)
    inputs = jnp.where(seen[:, :, None], rows.inputs, 0.0).astype(dtype)
    targets = jnp.where(mask, rows.targets, 0.0).astype(dtype)
    weights = mask.astype(dtype)
    if average:
        weights = weights / jnp.maximum(jnp.sum(weights, 1, keepdims=True), 1.0)
    if not loss.quadratic:
        return Problem(inputs, targets, weights)
    model, means = least_squares(inputs, weights, weights * targets, intercept=intercept)
    constant = 0.5 * jnp.sum(weights * jnp.square(targets - means.targets[:, None]))
    return Problem(inputs, targets, weights, model._replace(constant=constant), means)


def fit_prepared(
    name: str,
    problem: Problem,
    penalty: Penalty,
    loss: Loss,
    *,
    intercept: bool,
    tolerance: ArrayLike | None,
    max_iterations: int,
    start: Fit | None,
) -> Fit:
    """`fit` from the result of `prepare`."""
    dtype = problem.targets.dtype
    if tolerance is None:
        tolerance = WIDE if dtype == jnp.float64 else NARROW
    tolerance = jnp.asarray(tolerance, dtype)
    solved = _started(name, problem, penalty, start)
    if problem.model is not None and problem.means is not None:
        solved = minimize(problem.model, penalty, solved, tolerance=tolerance, max_iterations=max_iterations)
        intercepts = problem.means.intercepts(jnp.sum(solved.points, 0))
    else:
        solved, intercepts = minimize_smooth(
            problem.inputs,
            problem.targets,
            problem.weights,
            loss,
            penalty,
            None if solved is None or start is None else (solved, start.intercepts.astype(dtype)),
            intercept=intercept,
            tolerance=tolerance,
            max_iterations=max_iterations,
        )
    weights = jnp.sum(solved.points, 0)
    outputs = predict(Linear(weights, intercepts), problem.inputs)
    losses = jnp.where(problem.weights > 0, problem.weights * loss.value(outputs, problem.targets), 0.0)
    parts = parts_of(penalty, solved.points)
    objective = jnp.sum(losses) + penalty.value(parts).astype(dtype)
    return Fit(
        weights=weights,
        intercepts=intercepts,
        parts=parts,
        duals=parts_of(penalty, solved.duals),
        objective=objective,
        certificate=solved.certificate,
        iterations=solved.iterations,
        converged=(solved.certificate <= tolerance) & jnp.isfinite(objective),
        rho=solved.rho,
        radius=solved.radius,
    )


def _started(name: str, problem: Problem, penalty: Penalty, start: Fit | None) -> Solved | None:
    if start is None:
        return None
    dtype = problem.targets.dtype
    expected = (problem.targets.shape[0], problem.inputs.shape[2])
    names = sorted(start.parts) if isinstance(start.parts, dict) else []
    if names != sorted(penalty.parts):
        raise ValueError(f"{name}: start has parts {names}, but the penalty has {sorted(penalty.parts)}")
    if jnp.shape(start.weights) != expected:
        raise ValueError(f"{name}: start must have weights of shape {expected}, found {jnp.shape(start.weights)}")
    return Solved(
        points=stacked_parts(penalty, start.parts).astype(dtype),
        duals=stacked_parts(penalty, start.duals).astype(dtype),
        rho=jnp.asarray(start.rho, dtype),
        objective=jnp.asarray(start.objective, dtype),
        certificate=jnp.asarray(jnp.inf, dtype),
        iterations=jnp.zeros((), jnp.int32),
        radius=jnp.asarray(start.radius, dtype),
    )


def check_problem(
    name: str,
    rows: TaskRows,
    penalty: Penalty,
    loss: Loss,
    *,
    intercept: bool,
    average: bool,
    tolerance: ArrayLike | None,
    max_iterations: int,
) -> None:
    """Check the arguments of `fit`, `fit_path` and `cross_validate`."""
    check_rows(name, rows)
    expect(isinstance(loss, Loss), name, "loss", "a Loss, such as squared or logistic", loss, TypeError)
    if check_penalty(name, penalty).prox is None:
        raise ValueError(f"{name}: penalty must have a prox, found none")
    check_flag(name, "intercept", intercept)
    check_flag(name, "average", average)
    if tolerance is not None:
        check_number(name, "tolerance", tolerance, above=0)
    check_count(name, "max_iterations", max_iterations)
