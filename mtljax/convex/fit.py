"""Linear models of several tasks under one convex penalty."""

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
    """A fitted model of every task: `f_t(x) = weights_t' x + intercepts_t`.

    Attributes:
        weights: `[T, p]`.
        intercepts: `[T]`; 0 where none were asked for.
        parts: what is penalised: the weights, or a dict by part of the `[T, p]` that they are the sum of.
        duals: like `parts`, a subgradient of the penalty there; at a minimiser minus the gradient of the loss.
        objective: `[]`, the loss plus the penalty.
        certificate: `[]`, a bound on `objective - least objective`, relative to `objective`; see `fit`.
        iterations: int32 `[]`.
        converged: bool `[]`, whether the certificate is at most the tolerance.
        rho: `[]`, the inverse step size that suited, for the next fit to start with.
        radius: `[]`, what the certificate takes the distance to the nearest minimiser not to exceed.
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
    """Rows as the solvers take them: clean, of one dtype, with weights for the mask.

    Attributes:
        inputs: `[T or 1, N, p]`, 0 where nobody reads them.
        targets: `[T, N]`, 0 where masked.
        weights: `[T or 1, N]`, what a row's loss is multiplied by; 0 where masked.
        model: with a quadratic loss, the quadratic that it is; else None.
        means: what gives the intercepts, beside the model.
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
    r"""A linear model of every task, all of them under one convex penalty.

        minimise  sum_t a_t sum_n loss(w_t' x_tn + b_t, y_tn) + penalty(W),   a_t = 1, or 1/n_t with `average`

    With squared loss, `1/2 (y - f)^2`, that is half the sum of squared errors, not their mean. What depends on the rows
    is computed once, in `O(T (N + p) min(N, p) p)`; an iteration then takes `O(T p min(N, p))` and a prox, whatever N
    is. Both halves of an iteration are exact (see `splitting.minimize`), so features may be of very different scales:
    on School as it is, trace norm and l21 take 25 to 55 iterations for a certificate of 1e-6, where accelerated
    proximal gradient steps have as few as three digits after 4000. Norms with many corners (`l1`, `l1_inf`, `dirty`)
    are slow in the last digits: a few hundred iterations for 1e-4, up to a few thousand for 1e-6. Losses that are not
    quadratic take a few proximal Newton steps, each of them such a problem, with a new model.

    Call it under `jax.jit`; called directly it is compiled anew each time. It may be vmapped over everything that is an
    array: strengths (`jax.vmap(lambda s: fit(rows, trace_norm(s)))`), masks, targets. It cannot be differentiated in
    reverse mode.

    Args:
        rows: the data, from `pad` or `columns`.
        penalty: convex and with a prox, of parameters `[T, p]`, or of a dict of those by its `parts`. Not convex: there
            may be no convergence, and the certificate says nothing.
        loss: `squared` (default), `logistic`, or any `Loss`.
        intercept: whether each task has an intercept, which is not penalised.
        average: whether each task's loss is divided by its number of rows, so that tasks count alike.
        tolerance: the certificate that is good enough; default 1e-6 in float64 and 1e-5 in float32, where rounding adds
            about 1e-6 to what it bounds. For more digits, make the data and call within `with jax.enable_x64(True):`.
        max_iterations: rounded up to a multiple of 5.
        start: a fit to start from, of the same shapes and parts: at a neighbouring strength, or on similar rows.

    Returns:
        `Fit`. The parts are the prox's own output, so that zeros are exact zeros. A task without rows gets what the
        penalty makes of it, and an intercept with which all tasks' mean input gets their mean target.

        `certificate` bounds the relative error of the objective by weak duality, whatever the penalty is, since a prox
        hands out a subgradient with each point. Where the Gramians are regular it is a duality gap. Directions without
        data take a bound on how far away a minimiser is, for which `radius` stands, the length of the last two iterates
        together; it is no proof there. For losses that are not quadratic it is that of the second-order model.

    Raises:
        ValueError: rows whose shapes do not match; a penalty without prox; a tolerance that is not positive; a `start` of
            other shapes.
        TypeError: rows, penalty or loss of another type.

    Splitting: Lions and Mercier, SIAM Journal on Numerical Analysis 16, 1979. Linear multi-task learning under such
    penalties: Argyriou, Evgeniou and Pontil, "Convex multi-task feature learning", Machine Learning 73, 2008.

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
    """What depends on the rows alone, and serves all strengths."""
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
    """`fit` from what `prepare` made of the rows."""
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
    """Raises where `fit` and its kind cannot do what they are asked to."""
    check_rows(name, rows)
    expect(isinstance(loss, Loss), name, "loss", "a Loss, such as squared or logistic", loss, TypeError)
    if check_penalty(name, penalty).prox is None:
        raise ValueError(f"{name}: penalty must have a prox, to be split from the loss, found none")
    check_flag(name, "intercept", intercept)
    check_flag(name, "average", average)
    if tolerance is not None:
        check_number(name, "tolerance", tolerance, above=0)
    check_count(name, "max_iterations", max_iterations)
