"""The frame around the rule of a method that reads losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from mtljax.methods.checked import checked
from mtljax.methods.common import check_lengths, initial_state, mask_of
from mtljax.solvers.scaling import as_float32
from mtljax.types import Array, Key, Method, MethodState, PyTree


def method_of_losses(
    name: str,
    rule: Callable[..., tuple[Array, PyTree]],
    *,
    inner: Callable[[int], PyTree] = lambda num_tasks: (),
    per_task: Mapping[str, Any] | None = None,
    observe: Callable[[Array, MethodState], MethodState] | None = None,
    least_loss: Any = None,
) -> Method:
    """Makes a method of a rule. The frame handles missing masks, dtypes and `MethodState`.

    Args:
        name: the method's name.
        rule: `rule(losses, active, inner, *, key, **extra) -> (weights, inner)` with losses float32 `[T]`, 1 where not
            active, and active bool `[T]`. What it returns as an inactive task's weight is replaced by 0; what it
            returns as inner is taken as it is.
        inner: `inner(num_tasks)`, the first inner state; may raise where T does not match the arguments.
        per_task: arguments with an entry for each task, by name; `init` raises where there are not T entries.
        observe: as in `Method`.
        least_loss: as in `Method`.

    Returns:
        `Method` that reads losses; task-specific gradients are weighted too.

    Example:
        >>> method = method_of_losses("halves", lambda losses, active, inner, **rest: (0.5 * losses, inner))
        >>> method.update(jnp.array([2.0, 4.0]), method.init(2))[0]
        Array([1., 2.], dtype=float32)
    """

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
        check_lengths(name, per_task, num_tasks)
        return initial_state(num_tasks, inner(num_tasks))

    def update(
        evidence: Array,
        state: MethodState,
        *,
        losses: Array | None = None,
        active: Array | None = None,
        key: Key | None = None,
        **extra: Any,
    ) -> tuple[Array, MethodState]:
        present = mask_of(state, active)
        values = jnp.where(present, as_float32(evidence), 1.0)
        weights, moved = rule(values, present, state.inner, key=key, **extra)
        weights = jnp.where(present, weights, 0.0)
        return weights, state._replace(weights=weights, inner=moved)

    return checked(Method("losses", init, update, observe=observe, weigh_tasks=True, name=name, least_loss=least_loss))
