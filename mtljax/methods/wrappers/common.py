"""Parts of wrappers: the frame around a method, checks of its `reads`, lengths of updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from mtljax.methods.rows import row_norms
from mtljax.solvers.scaling import accurate_product, power_of_two, scale
from mtljax.types import Array, Method, MethodState, PyTree

LENGTH_RESOLUTION = 2.0**-11
"""A Gramian in float32 knows `|d|^2` to 2^-24 of `(sum_k |w_k| |g_k|)^2`: a length below its root is rounding."""


def lifted(
    method: Method,
    name: str,
    *,
    begin: Callable[[MethodState], PyTree],
    update: Callable[..., tuple[Any, MethodState]],
    reuse: Callable[..., tuple[Array, MethodState]] | None = None,
) -> Method:
    """A method around another method, whose state is `state.inner.method`; all else is as in that method.

    `observe`, `due` and `pick` call those of the method, if it has them. A wrapper replaces the fields that it changes,
    and passes the result through `checked`.

    Args:
        method: the method inside.
        name: the result's name.
        begin: `begin(state)`, the wrapper's own first state around the method's: a NamedTuple with a field `method`.
        update: as in `Method`.
        reuse: as in `Method`; used where the method has one.
    """

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
        first = method.init(num_tasks, shared)
        return first._replace(inner=begin(first))

    def observe(losses_after: Array, state: MethodState) -> MethodState:
        assert method.observe is not None
        inner = method.observe(losses_after, state.inner.method)
        return state._replace(inner=state.inner._replace(method=inner))

    def due(state: MethodState) -> Array:
        assert method.due is not None
        return method.due(state.inner.method)

    def pick(state: MethodState, *, active: Array | None = None) -> Array:
        assert method.pick is not None
        return method.pick(state.inner.method, active=active)

    return method._replace(
        name=name,
        init=init,
        update=update,
        observe=None if method.observe is None else observe,
        due=None if method.due is None else due,
        reuse=None if method.reuse is None else reuse,
        pick=None if method.pick is None else pick,
    )


def refuse_pick(name: str, method: Method, why: str) -> None:
    """Raises ValueError for a method that reads one task's gradient per step."""
    if method.pick is not None:
        raise ValueError(f"{name}: method must be one that reads all tasks in each step, {why}, found {method.name}")


def refuse_losses(name: str, method: Method) -> None:
    """Raises ValueError for a method that reads losses alone."""
    if method.reads == "losses":
        raise ValueError(f"{name}: method must be one that reads gradients, found {method.name}, which reads losses")


def titled(wrapper: str, method: Method, setting: Any) -> str:
    """The wrapper's name, with its setting where that is known at trace time."""
    return f"{wrapper}({method.name})" if isinstance(setting, Tracer) else f"{wrapper}({method.name}, {setting:g})"


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
