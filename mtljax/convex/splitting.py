"""Quadratic model plus penalty: Douglas-Rachford splitting, extrapolated, with a certificate."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from mtljax.convex.extrapolation import History, clear_where, empty_history, extrapolation, push
from mtljax.convex.quadratic import Quadratic
from mtljax.penalties.common import Penalty
from mtljax.types import Array, PyTree

BLOCK = 5
"""Iterations from one certificate to the next."""
FIRST_BALANCE = 10
"""Iterations before rho is first balanced; twice as many before each further time, so that it settles."""
WORTH, MOST = 1.3, 100.0
"""The least and the largest factor by which balancing changes rho."""
START = 1e-2
"""Of the mean curvature, the first rho."""
ROUNDING = 4.0
"""In rounding units, the step relative to the iterate below which nothing more is gained."""


class Solved(NamedTuple):
    """A minimiser and what it takes to go on from it.

    Attributes:
        points: `[K, T, p]`, the parts of the parameters; one where the penalty has no parts.
        duals: `[K, T, p]`, a subgradient of the penalty there: minus the gradient of the loss at a minimiser.
        rho: `[]`, the inverse step size that was found to suit.
        objective: `[]`, the model's value plus the penalty's.
        certificate: `[]`, a bound on how far the objective is from its least value, relative to itself.
        iterations: int32 `[]`.
        radius: `[]`, what the certificate takes the distance to the nearest minimiser not to exceed.
    """

    points: Array
    duals: Array
    rho: Array
    objective: Array
    certificate: Array
    iterations: Array
    radius: Array


class _State(NamedTuple):
    s: Array
    points: Array
    duals: Array
    other: Array
    last_points: Array
    last_other: Array
    rho: Array
    history: History
    fallback: Array
    allowed: Array
    iterations: Array
    balance_at: Array
    objective: Array
    certificate: Array
    stalled: Array


def parts_of(penalty: Penalty, points: Array) -> PyTree:
    """`[K, T, p]` as the tree that the penalty takes: the array itself, or a dict of arrays by part.

    Example:
        >>> parts_of(Penalty(value=jnp.sum), jnp.zeros((1, 3, 2))).shape
        (3, 2)
    """
    return dict(zip(penalty.parts, points, strict=True)) if penalty.parts else points[0]


def stacked_parts(penalty: Penalty, parts: PyTree) -> Array:
    """The inverse of `parts_of`.

    Example:
        >>> stacked_parts(Penalty(value=jnp.sum), jnp.zeros((3, 2))).shape
        (1, 3, 2)
    """
    return jnp.stack([parts[name] for name in penalty.parts]) if penalty.parts else parts[None]


def starting_rho(model: Quadratic) -> Array:
    """The first rho, `[]`, in the units of the curvature."""
    mean = jnp.mean(model.curvature)
    return jnp.where(mean > 0, START * mean, 1.0)


def minimize(
    model: Quadratic,
    penalty: Penalty,
    start: Solved | None = None,
    *,
    tolerance: Array | float,
    max_iterations: Array | int,
) -> Solved:
    r"""Minimises `f(sum_k x_k) + penalty(x)` for a quadratic f.

        x = prox_{penalty / rho}(s),   w = prox_{f / rho}(2 x - s),   s <- s + w - x

    whose fixed points have `rho (s - x)` both in the penalty's subdifferential at x and equal to `-grad f(x)`. Both
    proximal steps are exact, so the conditioning of f, which stops proximal gradient methods, hardly matters; with f
    in its own coordinates an iteration takes one product `O(T p r)` more than one of those. Each iterate is then
    extrapolated from the last eight (see `extrapolation`); where the step that follows is longer than the one it was
    extrapolated from, the plain iterate is taken instead. Steps of the plain iteration never grow.

    rho is balanced ever more seldom, so that primal and dual residuals become alike relative to what they are
    residuals of. Nothing depends on the units of f, of the penalty or of the parameters.

    Douglas and Rachford 1956; Lions and Mercier, "Splitting algorithms for the sum of two nonlinear operators", SIAM
    Journal on Numerical Analysis 16, 1979. Safeguard: Zhang, O'Donoghue and Boyd, "Globally convergent type-I Anderson
    acceleration for nonsmooth fixed-point iterations", SIAM Journal on Optimization 30, 2020.
    Balancing: Wohlberg, "ADMM penalty parameter selection by residual balancing", arXiv 1704.06209, 2017.

    Args:
        model: f, of parameters `[T, p]`.
        penalty: convex, with a prox.
        start: where to start; from 0 without. A rho of 0: the solver's own.
        tolerance: the certificate that is good enough.
        max_iterations: rounded up to a multiple of `BLOCK`.

    Returns:
        `Solved`; the iteration also ends where steps vanish in rounding, or are not finite.
    """
    assert penalty.prox is not None
    num_tasks, size = model.slope.shape[0], model.basis.shape[1]
    dtype = model.slope.dtype
    shape = (max(len(penalty.parts), 1), num_tasks, size)
    eps = jnp.finfo(dtype).eps
    if start is None:
        rho = starting_rho(model)
        s = jnp.zeros(shape, dtype)
    else:
        rho = jnp.where(start.rho > 0, start.rho, starting_rho(model))
        s = start.points + start.duals / rho
    prox: Callable[[PyTree, Array], PyTree] = penalty.prox

    def iterate(_: int, state: _State) -> _State:
        s, rho = state.s, state.rho
        points = stacked_parts(penalty, prox(parts_of(penalty, s), 1.0 / rho)).astype(dtype)
        ahead = 2.0 * points - s
        total = jnp.sum(ahead, 0)
        other = ahead + ((model.prox(total, rho / shape[0]) - total) / shape[0])[None]
        step = other - points
        length = _norm(step)
        rejected = length > state.allowed
        history = clear_where(rejected, push(state.history, s, step))
        plain = jnp.where(rejected, state.fallback, s + step)
        # Balancing needs two iterates in a row that nothing was extrapolated between.
        careful = rejected | (state.iterations + 2 == state.balance_at)
        return state._replace(
            s=jnp.where(careful, plain, plain - extrapolation(history, step)),
            points=points,
            duals=rho * (s - points),
            other=other,
            last_points=state.points,
            last_other=state.other,
            history=history,
            fallback=plain,
            allowed=jnp.where(careful, jnp.inf, length),
            iterations=state.iterations + 1,
        )

    def assess(state: _State) -> _State:
        length, other_length = _norm(state.points), _norm(state.other)
        value = model.value(jnp.sum(state.points, 0))
        objective = value + penalty.value(parts_of(penalty, state.points)).astype(dtype)
        gap = model.bound(state.points, state.duals, length + other_length)
        scale = jnp.maximum(jnp.abs(objective), eps * jnp.abs(model.constant))
        smallest = ROUNDING * eps * (length + other_length + _norm(state.duals) / state.rho)
        return state._replace(
            objective=objective,
            certificate=jnp.where(gap == 0, 0.0, gap / scale),
            # Not before rho had a chance: steps are small also where it is far too large.
            stalled=(_norm(state.other - state.points) <= smallest) & (state.iterations > FIRST_BALANCE),
        )

    def balance(state: _State) -> _State:
        primal = _norm(state.last_other - state.points) * _norm(state.duals)
        dual = state.rho * _norm(state.points - state.last_points)
        dual = dual * jnp.maximum(_norm(state.last_other), _norm(state.points))
        ratio = jnp.where(dual > 0, jnp.sqrt(primal / jnp.where(dual > 0, dual, 1.0)), jnp.where(primal > 0, MOST, 1.0))
        ratio = jnp.clip(ratio, 1.0 / MOST, MOST)
        due = state.iterations >= state.balance_at
        change = due & ((ratio > WORTH) | (ratio < 1.0 / WORTH))
        rho = jnp.where(change, ratio * state.rho, state.rho)
        return state._replace(
            s=jnp.where(change, state.points + state.duals / rho, state.s),
            rho=rho,
            history=clear_where(change, state.history),
            allowed=jnp.where(change, jnp.inf, state.allowed),
            balance_at=jnp.where(due, 2 * state.balance_at, state.balance_at),
        )

    def block(state: _State) -> _State:
        state = assess(lax.fori_loop(0, BLOCK, iterate, state))
        return balance(state)

    def unfinished(state: _State) -> Array:
        return (state.certificate > tolerance) & ~state.stalled & (state.iterations < max_iterations)

    zero = jnp.zeros(shape, dtype)
    one = jnp.asarray(jnp.inf, dtype)
    state = _State(
        s=s,
        points=zero,
        duals=zero,
        other=zero,
        last_points=zero,
        last_other=zero,
        rho=rho.astype(dtype),
        history=empty_history(zero),
        fallback=zero,
        allowed=one,
        iterations=jnp.zeros((), jnp.int32),
        balance_at=jnp.asarray(FIRST_BALANCE, jnp.int32),
        objective=one,
        certificate=one,
        stalled=jnp.array(False),
    )
    state = lax.while_loop(unfinished, block, state)
    radius = _norm(state.points) + _norm(state.other)
    return Solved(state.points, state.duals, state.rho, state.objective, state.certificate, state.iterations, radius)


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(x)))
