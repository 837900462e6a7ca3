"""The frame of wrappers that scale every task's gradient: the method reads `f_k g_k` in place of `g_k`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtljax import trees
from mtljax.methods.checked import checked
from mtljax.methods.common import mask_of
from mtljax.methods.wrappers.common import lifted
from mtljax.types import Array, Method, MethodState


class ScaledState(NamedTuple):
    """State of a wrapper that scales task gradients.

    Attributes:
        factor: float32 `[T]`, the factors of the last step that computed weights, for steps that use them again.
        method: `MethodState` of the wrapped method.
    """

    factor: Array
    method: MethodState


def scale_tasks(
    method: Method,
    name: str,
    factors: Callable[[Any, Array | None, Array], tuple[Array, Array]],
    see: Callable[[Array], Array] = lambda losses: losses,
    *,
    weigh_tasks: bool | None = None,
    least_loss: Any = None,
    unit_free: bool = False,
) -> Method:
    """A method that reads scaled task gradients; its weights are converted to weights of the plain gradients.

    Args:
        method: the method.
        name: the result's name.
        factors: `factors(evidence, losses, active) -> (factor, active)`, float32 `[T]` and bool `[T]`; a factor that is
            not of an active task is not used.
        see: how the method sees losses, entry by entry.
        weigh_tasks: as in `Method`; None for what the method says. Where a method that reads task gradients leaves
            heads alone and this is True, heads are multiplied by the factors.
        least_loss: as in `Method`; None for what the method says.
        unit_free: whether the scaled gradients have no unit, so that of a Gramian that came times `scale` squared (see
            `Method`) one without a scale is left.
    """

    def begin(first: MethodState) -> ScaledState:
        return ScaledState(jnp.ones_like(first.weights), first)

    def wrap(weights: Array, inner: MethodState, factor: Array) -> MethodState:
        return MethodState(weights, inner.residual, ScaledState(factor, inner))

    def update(
        evidence: Any,
        state: MethodState,
        *,
        losses: Array | None = None,
        active: Array | None = None,
        **rest: Any,
    ) -> tuple[Any, MethodState]:
        kept: ScaledState = state.inner
        scale = rest.pop("scale", 1.0) if unit_free else 1.0
        factor, mask = factors(evidence, losses, mask_of(state, active))
        # 1 and not 0, so that the method gets an inactive task's gradient unchanged and leaves it out itself.
        factor = jnp.where(mask, factor, 1.0).astype(jnp.float32)
        if method.reads == "gramian":
            # One side after the other: the product of two factors may leave float32's range.
            evidence = evidence * factor[:, None] * factor[None, :]
        elif method.reads == "task_grads":
            evidence = jax.vmap(trees.scale)(factor, evidence)
        else:
            evidence = see(evidence)
        factor = factor * scale
        seen = None if losses is None else see(losses)
        result, inner = method.update(evidence, kept.method, losses=seen, active=mask, **rest)
        if method.reads == "task_grads":
            own = inner.weights if method.weigh_tasks else jnp.ones_like(inner.weights)
            shown = jnp.where(mask, own * factor, 0.0) if weigh_tasks else inner.weights
            return result, wrap(shown, inner, factor)
        weights = jnp.where(mask, result * factor, 0.0)
        return weights, wrap(weights, inner, jnp.where(mask, factor, 0.0))

    def reuse(state: MethodState, *, active: Array | None = None) -> tuple[Array, MethodState]:
        assert method.reuse is not None
        weights, inner = method.reuse(state.inner.method, active=active)
        weights = weights * state.inner.factor
        return weights, wrap(weights, inner, state.inner.factor)

    wrapper = lifted(method, name, begin=begin, update=update, reuse=reuse)
    told = wrapper.observe
    return checked(
        wrapper._replace(
            observe=None if told is None else lambda losses_after, state: told(see(losses_after), state),
            weigh_tasks=method.weigh_tasks if weigh_tasks is None else weigh_tasks,
            least_loss=method.least_loss if least_loss is None else least_loss,
        )
    )
