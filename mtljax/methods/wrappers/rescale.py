"""Rescale and clip: keep the direction of the shared update and change its length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from mtljax import ranges, trees
from mtljax.checks import check_method_of_evidence, check_number
from mtljax.methods.checked import checked
from mtljax.methods.common import mask_of
from mtljax.methods.wrappers.common import (
    combined_length,
    lifted,
    refuse_losses,
    refuse_pick,
    titled,
    tree_norm,
)
from mtljax.ranges import Ranged
from mtljax.types import Array, Method, MethodState

Length = Callable[[Array, Array], Array]


class LengthState(NamedTuple):
    """State of a wrapper that sets lengths.

    Attributes:
        factor: float32 `[]`, what the last computed update was multiplied by, for steps that use its weights again.
        method: `MethodState` of the wrapped method.
    """

    factor: Array
    method: MethodState


def sum_norm(gramian: Array, active: Array) -> Array:
    """The length of the sum of active task gradients, `|sum_k g_k|`.

    Args:
        gramian: `[T, T]`.
        active: bool `[T]`.

    Returns:
        float32 `[]`; 0 where the sum is zero up to rounding.

    Example:
        >>> float(sum_norm(jnp.diag(jnp.array([9.0, 16.0])), jnp.array([True, True])))
        5.0
    """
    return combined_length(gramian, jnp.where(active, 1.0, 0.0), active)


def mean_norm(gramian: Array, active: Array) -> Array:
    """The length of the mean of active task gradients, `|sum_k g_k| / T`.

    Args:
        gramian: `[T, T]`.
        active: bool `[T]`.

    Returns:
        float32 `[]`; 0 where the mean is zero up to rounding.

    Example:
        >>> float(mean_norm(jnp.diag(jnp.array([9.0, 16.0])), jnp.array([True, True])))
        2.5
    """
    return sum_norm(gramian, active) / jnp.maximum(jnp.sum(active), 1)


def rescale(method: Method, to: float | Length = sum_norm) -> Method:
    """Set the length of the shared update: `d <- l d / |d|`.

    Use it to compare a method's direction with plain descent at the same learning rate. A d that is zero, up to
    rounding of the Gramian where the method reads it, has no direction and stays as it is.

    Args:
        method: reads "gramian" or "task_grads".
        to: l, a positive number or a function `(gramian [T, T], active bool [T]) -> []`: `sum_norm` (default) for the
            length of the plain sum of task gradients, `mean_norm` for the mean's. It must not read what belongs to a
            task that is not active. A function of your own is given the true Gramian, which must be in float32's range.

    Returns:
        `Method` that reads what `method` reads. Weights are multiplied, so heads follow where the method weighs them.

    Raises:
        ValueError: the method reads losses only; `to` is a function and the method reads one task's gradient per step.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> jacobian = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> print(mtljax.aggregate(rescale(mtljax.methods.mgda(), 2**0.5), jacobian).round(3))
        [0. 1. 1.]
    """
    check_method_of_evidence("rescale", "method", method)
    if not callable(to):
        check_number("rescale", "to", to, above=0)
    refuse_losses("rescale", method)
    if callable(to):
        refuse_pick("rescale", method, "since only the Gramian tells the length, or to= must be a number")

    def factor(length: Array, gramian: Callable[[], Ranged], active: Array) -> Array:
        target: Any = to
        if callable(to):
            found = gramian()
            # Lengths go with the scale; what another function makes of a Gramian is known for the true one alone.
            lengths = to in (sum_norm, mean_norm)
            seen = found.gramian if lengths else found.gramian / found.scale / found.scale
            target = check_number("rescale", "what to returned", to(seen, active))
            target = target / found.scale if lengths else target
        return jnp.where(length > 0, target / jnp.where(length > 0, length, 1.0), 1.0)

    return _set_length(method, f"rescale({method.name})", factor)


def clip(method: Method, max_norm: float) -> Method:
    """Shorten the shared update to `max_norm` where it is longer: `d <- d min(1, max_norm / |d|)`.

    nash-mtl and related code clip the shared gradient at 1 for every method: `clip(method, 1.0)`. Unlike in
    `optax.clip_by_global_norm`, heads do not count in the length.

    Args:
        method: reads "gramian" or "task_grads".
        max_norm: a positive number.

    Returns:
        `Method` that reads what `method` reads. Weights are multiplied, so heads follow where the method weighs them.

    Raises:
        ValueError: the method reads losses only. Clip its update with optax.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> jacobian = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> print(mtljax.aggregate(clip(mtljax.methods.mgda(), 1.0), jacobian).round(3))
        [0.    0.707 0.707]
    """
    check_method_of_evidence("clip", "method", method)
    check_number("clip", "max_norm", max_norm, above=0, finite=False)
    refuse_losses("clip", method)

    def factor(length: Array, gramian: Callable[[], Ranged], active: Array) -> Array:
        return jnp.where(length > max_norm, max_norm / jnp.where(length > max_norm, length, 1.0), 1.0)

    return _set_length(method, titled("clip", method, max_norm), factor)


def _set_length(method: Method, name: str, factor: Callable[[Array, Callable[[], Ranged], Array], Array]) -> Method:
    """The method with its update times `factor(length, gramian, active)`."""

    def begin(first: MethodState) -> LengthState:
        return LengthState(jnp.ones((), jnp.float32), first)

    def wrap(weights: Array, inner: MethodState, by: Array) -> MethodState:
        return MethodState(weights, inner.residual, LengthState(by, inner))

    def update(
        evidence: Any, state: MethodState, *, active: Array | None = None, **rest: Any
    ) -> tuple[Any, MethodState]:
        result, inner = method.update(evidence, state.inner.method, active=active, **rest)
        mask = mask_of(state, active)
        if method.reads == "gramian":
            scale = jnp.asarray(rest.get("scale", 1.0), jnp.float32)
            length = combined_length(evidence, result, mask) / scale
            by = factor(length, lambda: Ranged(evidence, scale, mask), mask).astype(jnp.float32)
            return result * by, wrap(result * by, inner, by)
        by = factor(tree_norm(result), lambda: ranges.gramian(evidence, num_tasks=mask.shape[0]), mask)
        by = by.astype(jnp.float32)
        return trees.scale(by, result), wrap(inner.weights * by, inner, by)

    def reuse(state: MethodState, *, active: Array | None = None) -> tuple[Array, MethodState]:
        assert method.reuse is not None
        weights, inner = method.reuse(state.inner.method, active=active)
        by = state.inner.factor
        return weights * by, wrap(weights * by, inner, by)

    return checked(lifted(method, name, begin=begin, update=update, reuse=reuse))
