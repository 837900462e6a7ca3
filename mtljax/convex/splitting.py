"""Minimising a quadratic model plus a penalty: Douglas-Rachford splitting with extrapolation and a certificate."""

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
"""The number of iterations between certificates."""
FIRST_BALANCE = 10
"""The iteration at which rho is first balanced; the number doubles for each further time, so that rho settles."""
WORTH, MOST = 1.3, 100.0
"""The smallest and the largest factor by which balancing changes rho."""
START = 1e-2
"""The first rho, as a share of the mean curvature."""
ROUNDING = 4.0
"""The step relative to the iterate, in rounding units, below which the iteration ends."""


class Solved(NamedTuple):
    """A minimiser, and the state from which another minimisation may start.

    Attributes:
        points: `[K, T, p]`, the parts of the parameters; K = 1 if the penalty has no parts.
        duals: `[K, T, p]`, a subgradient of the penalty there; at a minimiser it equals minus the gradient of the loss.
        rho: `[]`, the final inverse step size.
        objective: `[]`, the model's value plus the penalty's.
        certificate: `[]`, a bound of `objective - least objective`, relative to `objective`.
        iterations: int32 `[]`, number of iterations.
        radius: `[]`, the bound of the distance to the nearest minimiser that the certificate assumes.
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
    """`[K, T, p]` as the argument of the penalty: an array, or a dict of arrays by part.

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
    r"""Minimise `f(sum_k x_k) + penalty(x)` for a quadratic f.

        x = prox_{penalty / rho}(s),   w = prox_{f / rho}(2 x - s),   s <- s + w - x

    At a fixed point, `rho (s - x)` is a subgradient of the penalty at x and equals `-grad f(x)`. Both proximal steps
    are exact, so the conditioning of f hardly matters, unlike for proximal gradient methods. In the coordinates in
    which f is diagonal, an iteration takes one product `O(T p r)` more than a proximal gradient step. Each iterate is
    extrapolated from the last eight (see `extrapolation`). If the next step is longer than the step before the
    extrapolation, the plain iterate is taken instead, since steps of the plain iteration never grow.

    rho is balanced at growing intervals, so that the relative primal and dual residuals become similar. Nothing depends
    on the units of f, of the penalty or of the parameters.

    Args:
        model: f, of parameters `[T, p]`.
        penalty: convex, with a prox.
        start: the state to start from; None starts from 0. If its rho is 0, the solver chooses rho.
        tolerance: the iteration ends at a certificate of at most this.
        max_iterations: rounded up to a multiple of `BLOCK`.

    Returns:
        `Solved`. The iteration also ends if steps are below rounding or not finite.

    References:
        Lions and Mercier, "Splitting Algorithms for the Sum of Two Nonlinear Operators", SIAM Journal on Numerical
        Analysis 16, 1979, for the iteration of Douglas and Rachford, 1956.
        Zhang, O'Donoghue and Boyd, "Globally Convergent Type-I Anderson Acceleration for Nonsmooth Fixed-Point
        Iterations", SIAM Journal on Optimization 30, 2020, for the safeguard.
        Wohlberg, "ADMM Penalty Parameter Selection by Residual Balancing", arXiv 1704.06209, 2017, for the balancing.
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
        # Balancing needs two consecutive iterates without an extrapolation between them.
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
            # Not before rho is balanced: if rho is far too large, steps are small far from a solution.
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
