"""The frame around the rule of a method that reads task gradients, and zeros for its first state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mtljax import trees
from mtljax.methods.checked import checked
from mtljax.methods.common import check_lengths, initial_state, mask_of
from mtljax.methods.rows import widened
from mtljax.participation import rows_of
from mtljax.solvers.scaling import as_float32
from mtljax.types import Array, Key, Method, MethodState, PyTree


def method_of_gradients(
    name: str,
    rule: Callable[..., tuple[PyTree, Array, PyTree]],
    *,
    inner: Callable[[int, PyTree], PyTree] = lambda num_tasks, shared: (),
    per_task: Mapping[str, Any] | None = None,
    weigh_tasks: bool = False,
    least_loss: Any = None,
) -> Method:
    """Makes a method of a rule. The frame handles missing masks, narrow dtypes and `MethodState`.

    Args:
        name: the method's name.
        rule: `rule(rows, active, inner, *, losses, key) -> (update, weights, inner)`. Rows are float32 at least and 0
            where not active, active is bool `[T]`, losses are None or float32 `[T]` with 1 where not active. The update
            is cast to the gradients' dtype; an inactive task's weight is replaced by 0; inner is taken as it is.
        inner: `inner(num_tasks, shared)`, the first inner state; may raise where T or shared do not match the
            arguments.
        per_task: arguments with an entry for each task, by name; `init` raises where there are not T entries.
        weigh_tasks: as in `Method`.
        least_loss: as in `Method`.

    Returns:
        `Method` that reads task gradients.

    Example:
        >>> def add(rows, active, inner, **rest):
        ...     return jnp.sum(rows, axis=0), jnp.ones(2), inner
        >>> method = method_of_gradients("add", add)
        >>> method.update(jnp.ones((2, 3)), method.init(2))[0]
        Array([2., 2., 2.], dtype=float32)
    """

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
        check_lengths(name, per_task, num_tasks)
        return initial_state(num_tasks, inner(num_tasks, shared))

    def update(
        evidence: PyTree,
        state: MethodState,
        *,
        losses: Array | None = None,
        active: Array | None = None,
        key: Key | None = None,
        **extra: Any,
    ) -> tuple[PyTree, MethodState]:
        present = mask_of(state, active)
        if losses is not None:
            losses = jnp.where(present, as_float32(losses), 1.0)
        rows = widened(evidence)
        if active is not None:
            rows = rows_of(active, rows)
        found, weights, moved = rule(rows, present, state.inner, losses=losses, key=key)
        found = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), found, evidence)
        return found, state._replace(weights=jnp.where(present, weights, 0.0), inner=moved)

    return checked(Method("task_grads", init, update, weigh_tasks=weigh_tasks, name=name, least_loss=least_loss))


def zero_rows(name: str, num_tasks: int, shared: PyTree) -> PyTree:
    """Zeros for every task: leaves `[T, *p]`, float32 at least.

    Args:
        name: the method's name, for the message.
        num_tasks: T.
        shared: pytree of arrays or of `jax.ShapeDtypeStruct`.

    Raises:
        ValueError: shared is None.

    Example:
        >>> zero_rows("moco", 2, {"w": jax.ShapeDtypeStruct((3,), jnp.bfloat16)})["w"].shape
        (2, 3)
    """
    if shared is None:
        raise ValueError(f"{name}: shared must be the shared parameters or their shapes, found None")
    return jax.tree.map(lambda leaf: jnp.zeros((num_tasks, *leaf.shape), trees.accumulator(leaf.dtype)), shared)
