"""ConFIG: equal angles to all task gradients, and the length of their projections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax.checks import check_callable, check_number, check_preference
from mtljax.methods.from_gramian.common import Answer, method_of_gramian
from mtljax.methods.from_gramian.config_lengths import projection
from mtljax.solvers.scaling import Solution
from mtljax.solvers.spectral import projections
from mtljax.types import Array, Method, PyTree


def config(
    *,
    length: Callable[[Array, Array, Array], Array] = projection,
    preference: ArrayLike | None = None,
    weigh_tasks: bool = False,
) -> Method:
    """Conflict-free inverse gradients.

    With U the task gradients divided by their lengths and `u = U^+ 1`, the direction that has the same angle to every
    task gradient, the update is `(sum_i <g_i, u> / |u|) u / |u|`. In weights, from the Gramian alone:
    `w = D^-1 (D^-1 G D^-1)^+ 1`, D being the diagonal of lengths, times a number for the length. The update does not
    conflict where task gradients are linearly independent, and is linear under scaling of single tasks.

    Args:
        length: the length model, a function of gradient lengths and cosines: `projection` (the paper's), `track_min`,
            `track_max`, `track_harmonic`, `track_arithmetic`, `track_geometric` or `track_task(k)` of
            `mtljax.methods.from_gramian.config_lengths`, or one of your own of that form.
        preference: numbers `[T]`, finite, non-negative and not all zero, that take the place of the ones: the cosines
            of the angles are in their proportion. None for 1 each.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; default False.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`, possibly negative, 0 for a
        task that has no gradient. `state.residual` is that of `mtljax.solvers.spectral.projections`: the larger
        of how far projections are from the prescription, `max_i |<g_i, u> / |g_i| - 1|`, and of the relative error of
        u, for what the Gramian's rounding does. It is small unless task gradients are linearly dependent, or nearly.

    References:
        Q. Liu, M. Chu, N. Thuerey (2025), "ConFIG: towards conflict-free training of physics informed neural
        networks", ICLR, arXiv 2408.11104. Departures: linearly dependent gradients in the least-squares sense, with
        the rank tolerance of `mtljax.solvers.spectral.projections`, since below it no float32 Gramian tells;
        weights 0 where unit gradients cancel, so that u is rounding. The authors' code and TorchJD agree with the
        default.

    Example:
        >>> method = config()
        >>> weights, state = method.update(jnp.array([[9.0, 0.0], [0.0, 1.0]]), method.init(2))
        >>> print(weights.round(4))
        [0.6667 2.    ]
    """
    check_callable("config", "length", length)
    shares = check_preference("config", preference)

    def rule(gramian: Array, active: Array, inner: PyTree, **rest: Any) -> Answer:
        found = projections(gramian, shares, active=active)
        certain = found.length > 0
        size = jnp.where(certain, found.length, 1.0)
        long = length(found.norms, found.gains / size, found.takes_part)
        check_number("config", "what length returned", long)
        weights = jnp.where(certain, found.amounts / found.norms * (long / size), 0.0)
        return Solution(weights, found.residual), inner

    return method_of_gramian("config", rule, per_task={"preference": shares}, weigh_tasks=weigh_tasks, refines=True)
