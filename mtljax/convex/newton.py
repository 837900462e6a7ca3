"""Smooth losses that are not quadratic: proximal Newton steps, each of which solves a quadratic problem."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from mtljax.convex.linear import Linear, predict
from mtljax.convex.losses import Loss, derivatives
from mtljax.convex.quadratic import Means, Quadratic, least_squares
from mtljax.convex.splitting import Solved, minimize, parts_of, starting_rho
from mtljax.penalties.common import Penalty
from mtljax.types import Array

DECREASE = 1e-4
"""The share of the model's predicted decrease that a step must reach."""
SHORTEST = 2.0**-40
"""The share of a step below which the line search gives up."""
ROUNDING = 16.0
"""The increase of the objective that counts as rounding, in rounding units."""
FORCING = 0.01
"""The problem of a step is solved to this share of the last certificate."""
MARGIN = 0.1
"""The problem of the last step is solved to this share of the tolerance."""


class _State(NamedTuple):
    solved: Solved
    intercepts: Array
    model: Quadratic
    means: Means
    stalled: Array


def minimize_smooth(
    inputs: Array,
    targets: Array,
    weights: Array,
    loss: Loss,
    penalty: Penalty,
    start: tuple[Solved, Array] | None = None,
    *,
    intercept: bool,
    tolerance: Array | float,
    max_iterations: int,
) -> tuple[Solved, Array]:
    r"""Minimise `sum_tn a_tn loss(x_tn' w_t + b_t, y_tn) + penalty(w)` by proximal Newton steps.

    Each step minimises the second-order model of the loss plus the penalty, by `splitting.minimize`. It is solved more
    exactly as the certificate falls. A line search then shortens the step until the objective decreases by a share of
    the decrease that the model predicts. The last steps have full length, so that zeros and rank are those of the
    output of a prox.

    Args:
        inputs: `[T or 1, N, p]`.
        targets: `[T, N]`.
        weights: `[T or 1, N]`, a.
        loss: the loss.
        penalty: convex, with a prox.
        start: a solution and its intercepts to start from; None starts from 0.
        intercept: whether there are intercepts.
        tolerance: the iteration ends at a certificate of at most this. The certificate is that of the second-order
            model at the solution, so it holds up to terms of third order.
        max_iterations: largest number of iterations, summed over all steps.

    Returns:
        The solution and the intercepts `[T]`.

    References:
        Lee, Sun and Saunders, "Proximal Newton-Type Methods for Minimizing Composite Functions", SIAM Journal on
        Optimization 24, 2014.
        Tseng and Yun, "A Coordinate Gradient Descent Method for Nonsmooth Separable Minimization", Mathematical
        Programming 117, 2009, for the condition of decrease.
    """
    dtype = targets.dtype

    def outputs(points: Array, intercepts: Array) -> Array:
        return predict(Linear(jnp.sum(points, 0), intercepts), inputs)

    def penalty_of(points: Array) -> Array:
        return penalty.value(parts_of(penalty, points)).astype(dtype)

    def objective(points: Array, intercepts: Array) -> Array:
        losses = loss.value(outputs(points, intercepts), targets)
        return jnp.sum(jnp.where(weights > 0, weights * losses, 0.0)) + penalty_of(points)

    def slopes(points: Array, intercepts: Array) -> tuple[Array, Array, Array]:
        f = outputs(points, intercepts)
        slope, curvature = (jnp.where(weights > 0, weights * x, 0.0) for x in derivatives(loss, f, targets))
        return f, slope, curvature

    def settle(solved: Solved, intercepts: Array, stalled: Array) -> _State:
        """The state at a solution: its objective, the model of the loss there, and the certificate of that model."""
        f, slope, curvature = slopes(solved.points, intercepts)
        model, means = least_squares(inputs, curvature, curvature * f - slope, intercept=intercept)
        value = objective(solved.points, intercepts)
        total = jnp.sum(solved.points, 0)
        model = model._replace(constant=value - penalty_of(solved.points) - model.value(total))
        gap = model.bound(solved.points, solved.duals, solved.radius)
        if intercept:
            # The decrease that is left in the intercepts.
            height = jnp.sum(curvature, 1)
            gap = gap + jnp.sum(jnp.square(jnp.sum(slope, 1)) / jnp.where(height > 0, 2.0 * height, 1.0))
        certificate = jnp.where(gap == 0, 0.0, gap / jnp.abs(value))
        # An infinite certificate means that the duals do not belong to these points.
        certificate = jnp.where(jnp.isinf(solved.certificate), jnp.inf, certificate)
        return _State(solved._replace(objective=value, certificate=certificate), intercepts, model, means, stalled)

    def step(state: _State) -> _State:
        old = state.solved
        enough = jnp.maximum(MARGIN * tolerance, FORCING * jnp.minimum(old.certificate, 1.0))
        new = minimize(state.model, penalty, old, tolerance=enough, max_iterations=max_iterations - old.iterations)
        move = new.points - old.points
        turn = state.means.intercepts(jnp.sum(new.points, 0)) - state.intercepts
        f, slope, _ = slopes(old.points, state.intercepts)
        along = outputs(new.points, state.intercepts + turn) - f
        promised = jnp.sum(slope * along) + penalty_of(new.points) - penalty_of(old.points)

        def too_far(share: Array) -> Array:
            value = objective(old.points + share * move, state.intercepts + share * turn)
            rounding = ROUNDING * jnp.finfo(dtype).eps * jnp.abs(old.objective)
            return (value > old.objective + DECREASE * share * promised + rounding) & (share > SHORTEST)

        share = lax.while_loop(too_far, lambda share: 0.5 * share, jnp.ones((), dtype))
        whole = share == 1.0
        return settle(
            new._replace(
                points=jnp.where(whole, new.points, old.points + share * move),
                certificate=jnp.where(whole, new.certificate, jnp.inf),
                iterations=old.iterations + new.iterations,
            ),
            state.intercepts + share * turn,
            share <= SHORTEST,
        )

    def unfinished(state: _State) -> Array:
        solved = state.solved
        return (solved.certificate > tolerance) & ~state.stalled & (solved.iterations < max_iterations)

    if start is None:
        zero = jnp.zeros((max(len(penalty.parts), 1), targets.shape[0], inputs.shape[2]), dtype)
        nothing = jnp.zeros((), dtype)
        start = Solved(zero, zero, nothing, nothing, nothing, jnp.zeros((), jnp.int32), nothing), zero[0, :, 0]
    # The start has no certificate, so there is at least one step.
    unknown = start[0]._replace(certificate=jnp.asarray(jnp.inf, dtype), iterations=jnp.zeros((), jnp.int32))
    first = settle(unknown, start[1], jnp.array(False))
    rho = jnp.where(first.solved.rho > 0, first.solved.rho, starting_rho(first.model))
    final = lax.while_loop(unfinished, step, first._replace(solved=first.solved._replace(rho=rho)))
    return final.solved, final.intercepts
