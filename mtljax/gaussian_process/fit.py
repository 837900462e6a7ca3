"""`fit`: hyper-parameters of Gaussian processes that maximise the log marginal likelihood, by L-BFGS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from mtljax.checks import check_callable, check_number
from mtljax.gaussian_process.data import Hyperparameters, check_hyperparameters, working_dtype
from mtljax.gaussian_process.dense import log_marginal_likelihood
from mtljax.types import Array

MEMORY = 10
"""The number of steps that L-BFGS remembers."""
DECREASE = 1e-4
"""A step is taken if it reaches at least this share of the increase that the slope predicts (Armijo)."""


class Fitted(NamedTuple):
    """The result of `fit`.

    Attributes:
        params: `Hyperparameters`, with the dtypes of the initial ones.
        log_likelihood: `[]`, the log marginal likelihood there, in nats.
        gradient: `[]`, the certificate: the largest derivative by a hyper-parameter, in nats per observation. The units
            are 1 for logarithms, and the standard deviation of an observation at the start for the mean and W.
        evaluations: int32 `[]`, number of evaluations of the likelihood and its gradient.
        converged: bool `[]`, whether `gradient` is at most the tolerance.
    """

    params: Hyperparameters
    log_likelihood: Array
    gradient: Array
    evaluations: Array
    converged: Array


class _Memory(NamedTuple):
    """The last steps and the changes of the gradient, oldest first; `inverse` is 0 for unused entries.

    Attributes:
        steps: `[m, P]`, s.
        changes: `[m, P]`, y.
        inverse: `[m]`, 1 / <s, y>.
    """

    steps: Array
    changes: Array
    inverse: Array


class _Search(NamedTuple):
    """The best point so far, and the step to try from there."""

    point: Array
    value: Array
    gradient: Array
    direction: Array
    length: Array
    memory: _Memory
    evaluations: Array


def fit(
    params: Hyperparameters,
    data: Any,
    *,
    log_likelihood: Callable[[Hyperparameters, Any], Array] = log_marginal_likelihood,
    max_evaluations: int | Array = 300,
    tolerance: float | Array = 1e-4,
) -> Fitted:
    """Hyper-parameters that maximise the log marginal likelihood (type II maximum likelihood), by L-BFGS.

    A step that does not raise the likelihood enough is shortened, so the likelihood never falls, except by rounding.
    The search is one `lax.while_loop`: jit it, or vmap it over starts or splits of the data. It does not depend on the
    unit of the targets and the start.

    The likelihood is unbounded if a task with its own noise can be fitted exactly, for example a task with a handful of
    rows. Its noise then falls to the limit of the precision, and `converged` is False. Add the logarithm of a prior to
    `log_likelihood`, or tie the noise of all tasks: `params._replace(log_noise=tied)` with
    `tied = jnp.full_like(params.log_noise, params.log_noise.mean())`.

    Args:
        params: initial `Hyperparameters`, for example from `init`. The likelihood is not concave: for a better optimum,
            start from several and keep the best.
        data: the argument of `log_likelihood`, with a property `observed`, the number of observed targets.
        log_likelihood: `log_likelihood(params, data) -> []`. Default `log_marginal_likelihood` with its defaults;
            `functools.partial(log_marginal_likelihood, kernel=...)` for another kernel; `block_log_likelihood` and
            `linear_log_likelihood` for their forms of the data. Your own function may fix or tie hyper-parameters:
            `lambda params, data: log_marginal_likelihood(params._replace(mean=jnp.zeros(())), data)`.
        max_evaluations: largest number of evaluations of the likelihood and its gradient, at least 1; default 300. May
            be traced.
        tolerance: the search ends if `Fitted.gradient` is at most this; default 1e-4. In float32 rounding may end it
            before.

    Returns:
        `Fitted`. If the likelihood of the start is not finite, the result is the start, not converged.

    Raises:
        ValueError: shapes do not match.

    References:
        Liu and Nocedal, "On the Limited Memory BFGS Method for Large Scale Optimization", Mathematical Programming 45,
        1989. Departures: backtracking with quadratic interpolation in place of a search for the Wolfe conditions; a
        step with negative curvature is not remembered. So the likelihood is only once in the program; searches that
        have it four times take four times as long to compile.

    Example:
        >>> from mtljax import gaussian_process as gp
        >>> @jax.jit
        ... def learn(data, inputs, tasks):
        ...     start, statistics = gp.init(data, 3, kernel=gp.linear()), gp.linear_statistics(data, 3)
        ...     fitted = gp.fit(start, statistics, log_likelihood=gp.linear_log_likelihood)
        ...     return gp.linear_predict(fitted.params, statistics, inputs, tasks)
        >>> x, tasks = jnp.linspace(-1.0, 1.0, 24), jnp.arange(24) % 3
        >>> data = gp.Observations(x[:, None], tasks, (1.0 + tasks) * x + 0.1 * jnp.cos(9.0 * x))
        >>> learn(data, jnp.ones((3, 1)), jnp.arange(3)).mean.round().tolist()
        [1.0, 2.0, 3.0]
    """
    check_hyperparameters("fit", params)
    check_callable("fit", "log_likelihood", log_likelihood)
    check_number("fit", "max_evaluations", max_evaluations, least=1)
    check_number("fit", "tolerance", tolerance, above=0)
    dtype = working_dtype(params)
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    variance = jnp.sum(jnp.square(start.factor), axis=1) + jnp.exp(start.log_kappa) + jnp.exp(start.log_noise)
    scale = jnp.sqrt(jnp.mean(variance))
    count = jnp.maximum(data.observed, 1).astype(dtype)
    # In units of the data, so that a step does not depend on the units.
    origin, unravel = ravel_pytree(start._replace(mean=jnp.zeros_like(start.mean), factor=start.factor / scale))

    def at(point: Array) -> Hyperparameters:
        units = unravel(point)
        return units._replace(mean=start.mean + units.mean * scale, factor=units.factor * scale)

    def objective(point: Array) -> Array:
        return -log_likelihood(at(point), data).astype(dtype) / count

    def goes_on(search: _Search) -> Array:
        shorter = jnp.any(search.point + search.length * search.direction != search.point)
        first = search.evaluations == 0
        unfinished = jnp.max(jnp.abs(search.gradient)) > tolerance
        return first | ((search.evaluations < max_evaluations) & jnp.isfinite(search.value) & shorter & unfinished)

    def advance(search: _Search) -> _Search:
        point = search.point + search.length * search.direction
        value, gradient = jax.value_and_grad(objective)(point)
        slope = search.length * jnp.sum(search.direction * search.gradient)
        # With a margin for rounding, since of two equal values either may be rounded to the smaller one.
        enough = search.value + DECREASE * jnp.minimum(slope, 0.0) + jnp.finfo(dtype).eps * jnp.abs(search.value)
        first = search.evaluations == 0
        taken = first | ((value <= enough) & jnp.all(jnp.isfinite(gradient)))
        memory = _remember(search.memory, point - search.point, gradient - search.gradient)
        least = -0.5 * slope / (value - search.value - slope)
        shrink = jnp.clip(jnp.where(jnp.isfinite(least), least, 0.0), 0.1, 0.5)
        direction = _direction(memory, gradient)
        onwards = _Search(point, value, gradient, direction, jnp.ones((), dtype), memory, search.evaluations)
        again = search._replace(length=search.length * shrink)
        chosen = jax.tree.map(lambda new, old: jnp.where(taken, new, old), onwards, again)
        return chosen._replace(evaluations=search.evaluations + 1)

    nothing = jnp.zeros_like(origin)
    empty = jnp.zeros((MEMORY, origin.size), dtype)
    # The first evaluation is at the start, by a step of length 0.
    search = _Search(
        point=origin,
        value=jnp.zeros((), dtype),
        gradient=nothing,
        direction=nothing,
        length=jnp.ones((), dtype),
        memory=_Memory(empty, empty, jnp.zeros(MEMORY, dtype)),
        evaluations=jnp.zeros((), jnp.int32),
    )
    last = lax.while_loop(goes_on, advance, search)
    largest = jnp.max(jnp.abs(last.gradient))
    return Fitted(
        params=jax.tree.map(lambda leaf, given: leaf.astype(jnp.result_type(given)), at(last.point), params),
        log_likelihood=-last.value * count,
        gradient=largest,
        evaluations=last.evaluations,
        converged=largest <= tolerance,
    )


def _remember(memory: _Memory, step: Array, change: Array) -> _Memory:
    """The memory with one more pair in place of the oldest; unchanged if the curvature is not positive."""
    curvature = jnp.sum(step * change)
    # Relative to the change, so that rounding does not count as curvature.
    useful = curvature > jnp.finfo(step.dtype).eps * jnp.sum(jnp.square(change))
    inverse = 1.0 / jnp.where(useful, curvature, 1.0)

    def push(rows: Array, row: Array) -> Array:
        return jnp.where(useful, jnp.concatenate([rows[1:], row[None]]), rows)

    return _Memory(push(memory.steps, step), push(memory.changes, change), push(memory.inverse, inverse))


def _direction(memory: _Memory, gradient: Array) -> Array:
    """Minus the gradient times the inverse Hessian of the memory; if the memory is empty, of length at most 1."""

    def back(vector: Array, pair: _Memory) -> tuple[Array, Array]:
        amount = pair.inverse * jnp.sum(pair.steps * vector)
        return vector - amount * pair.changes, amount

    def forth(vector: Array, pair_and_amount: tuple[_Memory, Array]) -> tuple[Array, None]:
        pair, amount = pair_and_amount
        return vector + (amount - pair.inverse * jnp.sum(pair.changes * vector)) * pair.steps, None

    vector, amounts = lax.scan(back, gradient, memory, reverse=True)
    squared = jnp.sum(jnp.square(memory.changes[-1]))
    known = memory.inverse[-1] > 0
    size = 1.0 / (jnp.where(known, memory.inverse[-1], 1.0) * jnp.where(known, squared, 1.0))
    length = jnp.sqrt(jnp.sum(jnp.square(gradient)))
    vector = vector * jnp.where(known, size, 1.0 / jnp.maximum(length, 1.0))
    return -lax.scan(forth, vector, (memory, amounts))[0]
