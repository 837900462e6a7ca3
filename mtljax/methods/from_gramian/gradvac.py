"""GradVac: each task gradient turned towards the others until each cosine reaches its running average."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from mtljax.checks import check_flag, check_number
from mtljax.methods.arithmetic import number
from mtljax.methods.from_gramian.common import Answer, exact, method_of_gramian, random_order
from mtljax.solvers.scaling import as_float32, scale
from mtljax.types import Array, Key, Method

# A cosine is known to about 2^-23. A target nearer to 1 than this would make rounding turn a gradient by its own size.
STEEPEST_TARGET = 1.0 - 2.0**-20
# Share of its length, squared, at which what projections have left of a gradient is rounding.
NOTHING_LEFT = 2.0**-20


class GradVacState(NamedTuple):
    """State of GradVac.

    Attributes:
        target: float32 `[T, T]`, moving averages of the cosines; row i for the gradient that is changed.
    """

    target: Array


def gradvac(*, beta: float = 0.01, follow_all: bool = True, mean: bool = False, weigh_tasks: bool = False) -> Method:
    """Gradient vaccine.

    For each task i, starting from `a = g_i` and going through the other tasks j in random order, with
    `phi = cos(a, g_j)` and `phi_ij` the moving average: where `phi < phi_ij`,

        a <- a + |a| (phi_ij sqrt(1 - phi^2) - phi sqrt(1 - phi_ij^2)) / (|g_j| sqrt(1 - phi_ij^2)) g_j,

    which makes `cos(a, g_j) = phi_ij`; then `phi_ij <- (1 - beta) phi_ij + beta phi`. The update is the sum over i of
    the results. Averages start at 0, at which the first step is PCGrad's.

    Args:
        beta: share of the newest cosine in its average, in [0, 1]; the paper's 0.01. 0 gives PCGrad at every step.
        follow_all: whether averages follow every pair at every step (the paper, TorchJD), or only pairs that have just
            been corrected (LibMTL 1.1.5).
        mean: whether the update is the mean over active tasks of the changed gradients instead of their sum.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; False (default) in
            LibMTL and TorchJD.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`, and above two tasks needs `key`. Weights are float32
        `[T]`. The average of a pair with a task that is inactive or has no gradient is held. `state.residual` is 0:
        nothing is solved for.

    Raises:
        ValueError: from `update`, `key` is None with more than two tasks.

    References:
        Z. Wang, Y. Tsvetkov, O. Firat, Y. Cao (2021), "Gradient vaccine: investigating and improving multi-task
        optimization in massively multilingual models", ICLR, arXiv 2010.05874. Departures: one group of parameters,
        all that are shared (the paper's best choice is one a layer, which a method for each group of leaves gives).
        A target above `1 - 2^-20` acts as that. TorchJD's numbers: `beta=0.5`, and those of LibMTL's main; those of
        LibMTL 1.1.5: `beta=0.5, follow_all=False`.

    Example:
        >>> method = gradvac()
        >>> weights, state = method.update(jnp.array([[1.0, -0.5], [-0.5, 1.0]]), method.init(2))
        >>> print(weights, state.inner.target[0].round(4))
        [1.5 1.5] [ 0.    -0.005]
    """
    check_number("gradvac", "beta", beta, least=0, most=1)
    check_flag("gradvac", "follow_all", follow_all)
    check_flag("gradvac", "mean", mean)

    def first(num_tasks: int) -> GradVacState:
        return GradVacState(jnp.zeros((num_tasks, num_tasks), jnp.float32))

    def rule(gramian: Array, active: Array, inner: GradVacState, *, key: Key | None, **rest: Any) -> Answer:
        order = random_order("gradvac", key, active)
        changed, target = _vaccinate(gramian, order, active, inner.target, beta, follow_all)
        weights = jnp.sum(changed, axis=0)
        return exact(weights / number(active) if mean else weights), GradVacState(target)

    return method_of_gramian("gradvac", rule, inner=first, weigh_tasks=weigh_tasks)


def _vaccinate(gramian, order, active, target, beta, follow_all) -> tuple[Array, Array]:
    """Coefficients `[T, T]` of the changed gradients, a row each, and the new averages; all rows advance together."""
    matrix, norm, active, nonzero = scale(gramian, active)
    num_tasks = norm.shape[0]
    diagonal = jnp.where(nonzero, jnp.diagonal(matrix), 1.0)
    rows = jnp.arange(num_tasks)

    def meet(s, carry):
        z, square, target = carry
        other = order[:, s]
        meets = nonzero & nonzero[other] & (other != rows)
        own = jnp.sqrt(diagonal[other])
        overlap = jnp.sum(z * matrix[other], axis=1)
        size = jnp.sum(jnp.abs(z), axis=1)
        left = square > NOTHING_LEFT * size * size
        length = jnp.sqrt(jnp.where(left, square, 1.0))
        cosine = jnp.where(left, jnp.clip(overlap / (length * own), -1.0, 1.0), 0.0)
        wanted = target[rows, other]
        held = jnp.clip(wanted, -STEEPEST_TARGET, STEEPEST_TARGET)
        corrects = meets & left & (cosine < held)
        sine, sine_held = jnp.sqrt(1.0 - cosine * cosine), jnp.sqrt(1.0 - held * held)
        gain = length * (held * sine - cosine * sine_held) / (own * sine_held)
        gain = jnp.where(corrects, gain, 0.0)
        z = z.at[rows, other].add(gain, unique_indices=True)
        square = square + gain * (2.0 * overlap + gain * diagonal[other])
        follows = meets if follow_all else corrects
        moved = jnp.where(follows, (1.0 - beta) * wanted + beta * cosine, wanted)
        return z, square, target.at[rows, other].set(moved, unique_indices=True)

    # In units of each row's own norm, every number is about 1 whatever the spread of the norms.
    start = jnp.diag(jnp.where(active, jnp.ones_like(norm + matrix[0]), 0.0))
    # The averages too must vary over the devices of a mesh as the Gramian does.
    first = (start, diagonal + 0.0 * start[0], target + 0.0 * start)
    z, _, target = lax.fori_loop(0, jnp.shape(order)[1], meet, first)
    return z * as_float32(norm)[:, None] / norm[None, :], target
