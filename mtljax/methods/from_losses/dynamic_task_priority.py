"""Dynamic task prioritisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from mtljax.checks import check_callable, check_number
from mtljax.methods.common import check_evidence, vector_argument
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.participation import held
from mtljax.solvers.scaling import as_float32
from mtljax.types import Array, Key, Method


class DynamicTaskPriorityState(NamedTuple):
    """State of dynamic task prioritisation.

    Attributes:
        kpi: float32 `[T]`, the running mean of each task's performance; 0 before there is one.
        started: bool `[T]`, whether there is one.
    """

    kpi: Array
    started: Array


def likelihood(losses: Array) -> Array:
    """The performance that belongs to a cross-entropy L: `exp(-L)`, the geometric mean probability of the right answer.

    Args:
        losses: float32 `[T]`.

    Returns:
        float32 `[T]`, in (0, 1]; NaN (not measured) for a negative loss, because a cross-entropy is not negative.
    """
    return jnp.where(losses < 0, jnp.nan, jnp.exp(-losses))


def dynamic_task_priority(
    gamma: float | Array = 1.0,
    *,
    kpi: Callable[[Array], Array] = likelihood,
    smoothing: float = 0.1,
    floor: float = 1e-6,
) -> Method:
    """Dynamic task prioritisation: difficult tasks first, by the focal loss of a key performance indicator.

    A KPI k in [0, 1], 1 for a perfect task, is averaged over steps, `m <- smoothing k + (1 - smoothing) m`, and

        w_k = -(1 - m_k)^gamma_k log m_k.

    A KPI is a measure such as an accuracy. The caller passes it at each step, `update(losses, state, kpi=[T])`; NaN
    means that the KPI of this task was not measured. Without it, the KPI is estimated from the losses.

    Args:
        gamma: the focusing parameter, at least 0, a number or `[T]`; default 1.
        kpi: `kpi(losses [T]) -> [T]`, the estimate where no KPI is passed to `update`; default `likelihood`, right for
            cross-entropies.
        smoothing: weight of the newest KPI, in (0, 1], default 0.1. A task's first KPI is taken whole.
        floor: positive, the least m whose logarithm is taken; default 1e-6, which bounds weights by 14.

    Returns:
        `Method` that reads losses, floating point `[T]`; one backward pass. Weights are float32 `[T]`. Task-specific
        gradients are weighted too. `state.residual` is 0.

    References:
        M. Guo, A. Haque, D.-A. Huang, S. Yeung, L. Fei-Fei (2018), "Dynamic task prioritization for multitask
        learning", ECCV.
        Departures: this is only the weighting of tasks; the focal loss on examples belongs in the task's own loss. The
        estimate from losses is not in the paper, nor are the defaults of gamma and smoothing. KPIs outside [0, 1] are
        clipped. A task without a KPI so far, which only NaN can bring about, gets weight 1.

    Example:
        >>> method = dynamic_task_priority()
        >>> weights, _ = method.update(jnp.array([1.0, 1.0]), method.init(2), kpi=jnp.array([0.5, 0.9]))
        >>> [f"{weight:.4f}" for weight in weights]
        ['0.3466', '0.0105']
    """
    focus = vector_argument("dynamic_task_priority", "gamma", gamma, least=0)
    check_number("dynamic_task_priority", "smoothing", smoothing, above=0.0, most=1.0)
    check_number("dynamic_task_priority", "floor", floor, above=0.0)
    estimate = check_callable("dynamic_task_priority", "kpi", kpi)

    def inner(num_tasks: int) -> DynamicTaskPriorityState:
        return DynamicTaskPriorityState(jnp.zeros((num_tasks,), jnp.float32), jnp.zeros((num_tasks,), bool))

    def rule(
        losses: Array,
        active: Array,
        inner: DynamicTaskPriorityState,
        *,
        key: Key | None,
        kpi: Array | None = None,
        **extra: object,
    ) -> tuple[Array, DynamicTaskPriorityState]:
        if kpi is None:
            newest = estimate(losses)
            check_evidence("dynamic_task_priority", "what kpi returned", newest, losses.shape)
        else:
            check_evidence("dynamic_task_priority", "kpi", kpi, losses.shape)
            newest = as_float32(kpi)
        measured = active & ~jnp.isnan(newest)
        newest = jnp.clip(jnp.where(measured, newest, 0.0), 0.0, 1.0)
        running = jnp.where(inner.started, inner.kpi + smoothing * (newest - inner.kpi), newest)
        moved = held(DynamicTaskPriorityState(running, jnp.ones_like(inner.started)), inner, measured)
        weights = -jnp.power(1.0 - moved.kpi, focus) * jnp.log(jnp.maximum(moved.kpi, floor))
        return jnp.where(moved.started, weights, 1.0), moved

    return method_of_losses("dynamic_task_priority", rule, inner=inner, per_task={"gamma": focus})
