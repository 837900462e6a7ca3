"""PIVRG: fair gains, with more bargaining power for tasks that lag behind."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike

from mtljax.checks import check_number
from mtljax.methods.from_gramian.common import Answer, method_of_gramian
from mtljax.solvers.bargaining import bargaining
from mtljax.solvers.scaling import as_float32
from mtljax.types import Array, Method


class PivrgState(NamedTuple):
    """State of PIVRG.

    Attributes:
        scores: float32 `[T]`, the last scores it was given; 0 until there are some.
    """

    scores: Array


def pivrg(*, bound: float = 2.0, min_temperature: float = 10.0, weigh_tasks: bool = False) -> Method:
    """Performance-informed variance reduction of gradients.

    The weights solve `G w = (omega / w)^(1/2), w > 0`. Omega gives more bargaining power to the tasks whose performance
    is below that of single-task training:

        omega = T softmax(score / tau),   tau = max((max score - min score) / log(bound), min_temperature).

    The caller gives the scores as the keyword `scores` of `update`: float `[T]`, each task's drop in performance
    against single-task training in per cent. A score is positive where the task is worse, as `mtljax.metrics.delta_m`
    is for one task. The state keeps the scores, so it is enough to give them once per evaluation.
    `state._replace(inner=PivrgState(scores))` has the same effect. Before the first scores, all scores are equal, and
    the method equals `consmtl`.

    Args:
        bound: the largest ratio between two tasks' omega, above 1.
        min_temperature: the least tau, positive, in the unit of the scores. Smaller differences of scores have little
            effect.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; default False, as in the
            authors' code.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`, with a `PivrgState`. Weights are float32 `[T]`,
        positive, 0 for a task that has no gradient. `state.residual` bounds the relative error of the direction, see
        `mtljax.solvers.bargaining`. Every task gains, except at a Pareto-stationary point. T, the maximum, the minimum
        and the softmax are over active tasks.

    References:
        X. Qin, X. Wang, J. Yan (2025), "Revisiting fairness in multitask learning: a performance-driven approach
        for variance reduction", CVPR.
        Departures: Newton's method solves the equation to rounding, instead of least squares. The authors' code also
        multiplies the update by T and then clips it at length 1; here this is left to the optimizer.

    Example:
        >>> method = pivrg()
        >>> scores = jnp.array([20.0, 0.0])
        >>> weights, state = method.update(jnp.eye(2), method.init(2), scores=scores)
        >>> print(weights.round(4), state.inner.scores)
        [1.1006 0.8736] [20.  0.]
    """
    check_number("pivrg", "bound", bound, above=1)
    check_number("pivrg", "min_temperature", min_temperature, above=0)
    log_bound = jnp.log(bound) if isinstance(bound, Tracer) else math.log(bound)

    def first(num_tasks: int) -> PivrgState:
        return PivrgState(jnp.zeros((num_tasks,), jnp.float32))

    def rule(
        gramian: Array,
        active: Array,
        inner: PivrgState,
        *,
        scale: ArrayLike,
        scores: ArrayLike | None = None,
        **rest: Any,
    ) -> Answer:
        if scores is not None:
            inner = PivrgState(as_float32(check_number("pivrg", "scores", scores, shape=active.shape)))
        worst = jnp.max(jnp.where(active, inner.scores, -jnp.inf))
        best = jnp.min(jnp.where(active, inner.scores, jnp.inf))
        temperature = jnp.maximum((worst - best) / log_bound, min_temperature)
        powers = jnp.exp(jnp.where(active, (inner.scores - worst) / temperature, -jnp.inf))
        total = jnp.sum(powers)
        shares = jnp.sum(active) * powers / jnp.where(total > 0, total, 1.0)
        return bargaining(gramian, shares=shares, alpha=2.0, active=active, magnified=scale), inner

    return method_of_gramian("pivrg", rule, inner=first, weigh_tasks=weigh_tasks, refines=True)
