"""What wrappers share: the wrapped method's first state, checks of what it reads, lengths of updates."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from mtljax.methods.from_jacobian.common import row_norms
from mtljax.solvers.scaling import accurate_product, power_of_two, scale
from mtljax.types import Array, Method, MethodState, PyTree

LENGTH_RESOLUTION = 2.0**-11
"""A Gramian in float32 knows `|d|^2` to 2^-24 of `(sum_k |w_k| |g_k|)^2`: a length below its root is rounding."""


def first_state(method: Method, num_tasks: int, shared: PyTree) -> MethodState:
    """The wrapped method's first state in buffers of its own: a donated step must not be handed one twice."""
    return jax.tree.map(jnp.copy, method.init(num_tasks, shared))


def refuse_pick(name: str, method: Method, why: str) -> None:
    """Raises ValueError for a method that reads one task's gradient a step."""
    if method.pick is not None:
        raise ValueError(f"{name}: {method.name} reads one task's gradient a step, {why}")


def refuse_losses(name: str, method: Method) -> None:
    """Raises ValueError for a method that reads losses alone."""
    if method.reads == "losses":
        raise ValueError(f"{name}: {method.name} reads losses alone, so there is no gradient to measure")


def titled(wrapper: str, method: Method, setting: Any) -> str:
    """The wrapper's name, with its setting where that is known at trace time."""
    return f"{wrapper}({method.name})" if isinstance(setting, Tracer) else f"{wrapper}({method.name}, {setting:g})"


def present(state: MethodState, active: Array | None) -> Array:
    """Bool `[T]`, the tasks that take part."""
    return jnp.ones_like(state.weights, dtype=bool) if active is None else active


def tree_norm(tree: PyTree) -> Array:
    """Euclidean norm of a whole tree, float32 `[]`."""
    return row_norms(jax.tree.map(lambda leaf: leaf[None], tree), 1)[0]


def combined_length(gramian: Array, weights: Array, active: Array) -> Array:
    """`|sum_k w_k g_k|` from the Gramian, float32 `[]`; 0 where that is rounding alone.

    Args:
        gramian: `[T, T]`; rows and columns of inactive tasks are not read.
        weights: float32 `[T]`, of any sign and scale.
        active: bool `[T]`.
    """
    scaled = scale(gramian, active)
    z = jnp.where(scaled.nonzero, weights * scaled.norm, 0.0)
    unit = power_of_two(jnp.max(jnp.abs(z)))
    z = z / unit
    square = jnp.maximum(jnp.sum(z * accurate_product(scaled.matrix, z)), 0.0)
    size = jnp.sum(jnp.abs(z))
    length = jnp.sqrt(square)
    return jnp.where(length > LENGTH_RESOLUTION * size, length, 0.0) * unit
