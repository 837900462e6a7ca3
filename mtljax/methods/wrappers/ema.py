"""Ema: weights averaged over steps (CR-MOGM)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from mtljax.checks import check_method_of_evidence, check_number
from mtljax.methods.checked import checked
from mtljax.methods.common import mask_of, weights_of
from mtljax.methods.wrappers.common import lifted
from mtljax.participation import held
from mtljax.types import Array, Method, MethodState


class EmaState(NamedTuple):
    """State of `ema`: the averages.

    Attributes:
        count: int32 `[T]`, steps at which each task was active.
        average: float32 `[T]`, averaged weights; an inactive task keeps its own.
        method: `MethodState` of the wrapped method.
    """

    count: Array
    average: Array
    method: MethodState


def ema(
    method: Method,
    decay: float | Callable[[Array], Array] = 0.9,
    *,
    initial: Sequence[float] | Array | None = None,
) -> Method:
    """Average a method's weights over steps: `l_k <- a l_k + (1 - a) w_k`.

    w are the method's weights for this step, l the ones that are used. Each task's first weight is used as it is, so
    there is no bias to correct; an inactive task keeps its average and gets weight 0.

    Args:
        method: reads "losses" or "gramian".
        decay: a in [0, 1], or a function of the steps that a task has seen before (int32 `[T]`) that returns `[T]` or
            `[]`; 0 changes nothing.
        initial: `[T]`, the averages to start from, in sorted order of task names; None (default) for each task's first
            weight.

    Returns:
        `Method` that reads what `method` reads. Heads follow the averages where the method weighs them.

    Raises:
        ValueError: the method returns a gradient, so it has no weights to average.

    References:
        S. Zhou, W. Zhang, J. Jiang, W. Zhong, J. Gu, W. Zhu (2022), "On the convergence of stochastic
        multi-objective gradient manipulation and beyond", NeurIPS: CR-MOGM, for which `cr_mogm` is another name of
        this function. Without averages, weights made of the same mini-batch as the gradients bias the update, and
        the method need not converge.
        Departures: a constant decay by default, where the paper's theory lets it rise to 1 as the learning rate
        falls; for that give a function, for example `lambda count: 1 - schedule(count) / schedule(0)`.
        TorchJD (`CRMOGMWeighting`): the defaults.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> method = ema(mtljax.methods.mgda(), 0.75)
        >>> first, state = method.update(jnp.diag(jnp.array([1.0, 1.0])), method.init(2))
        >>> second, state = method.update(jnp.diag(jnp.array([1.0, 3.0])), state)
        >>> print(first, second)
        [0.5 0.5] [0.5625 0.4375]
    """
    check_method_of_evidence("ema", "method", method)
    if not callable(decay):
        check_number("ema", "decay", decay, least=0, most=1)
    if method.reads == "task_grads":
        raise ValueError(f"ema: method must return weights, found {method.name}, which returns a gradient")
    start = None if initial is None else check_number("ema", "initial", initial, shape=("T",))

    def begin(first: MethodState) -> EmaState:
        if start is not None:
            check_number("ema", "initial", start, shape=first.weights.shape)
        average = jnp.zeros_like(first.weights) if start is None else jnp.array(start, jnp.float32)
        return EmaState(jnp.zeros(average.shape, jnp.int32), average, first)

    def smooth(
        result: tuple[Array, MethodState], state: MethodState, active: Array | None
    ) -> tuple[Array, MethodState]:
        weights, inner = result
        kept: EmaState = state.inner
        share = decay
        if callable(decay):
            share = check_number("ema", "what decay returned", decay(kept.count), shape=None)
        share = jnp.asarray(share, jnp.float32)
        if start is None:
            share = jnp.where(kept.count == 0, 0.0, share)
        # Not `share * average` alone: the average before a task's first step must not be read.
        mixed = jnp.where(share > 0, share * kept.average, 0.0) + (1.0 - share) * weights
        average = held(mixed.astype(jnp.float32), kept.average, active)
        count = kept.count + mask_of(state, active)
        used = weights_of(average, active)
        return used, MethodState(used, inner.residual, EmaState(count, average, inner))

    def update(
        evidence: Array, state: MethodState, *, active: Array | None = None, **rest: Any
    ) -> tuple[Array, MethodState]:
        return smooth(method.update(evidence, state.inner.method, active=active, **rest), state, active)

    def reuse(state: MethodState, *, active: Array | None = None) -> tuple[Array, MethodState]:
        assert method.reuse is not None
        return smooth(method.reuse(state.inner.method, active=active), state, active)

    return checked(lifted(method, f"ema({method.name})", begin=begin, update=update, reuse=reuse))


cr_mogm = ema
