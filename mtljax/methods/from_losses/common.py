"""What the methods that read losses share: the frame around a rule, sums over active tasks, checks of arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from mtljax.checks import check_number
from mtljax.methods.checked import checked
from mtljax.methods.common import initial_state
from mtljax.solvers.scaling import as_float32
from mtljax.types import Array, Key, Method, MethodState, PyTree


def method_of_losses(
    name: str,
    rule: Callable[..., tuple[Array, PyTree]],
    *,
    inner: Callable[[int], PyTree] = lambda num_tasks: (),
    observe: Callable[[Array, MethodState], MethodState] | None = None,
    least_loss: Any = None,
) -> Method:
    """A method out of a rule that need not know of missing masks, of dtypes or of `MethodState`.

    Args:
        name: the method's name.
        rule: `rule(losses, active, inner, *, key, **extra) -> (weights, inner)` with losses float32 `[T]`, 1 where not
            active, and active bool `[T]`. What it returns as an inactive task's weight is replaced by 0; what it
            returns as inner is taken as it is.
        inner: `inner(num_tasks)`, the first inner state; may raise where T does not go with the arguments.
        observe: as in `Method`.
        least_loss: as in `Method`.

    Returns:
        `Method` that reads losses; task-specific gradients are weighted too.

    Raises:
        ValueError, TypeError: from `update`, where losses or `active` do not go with the number of tasks.

    Example:
        >>> method = method_of_losses("halves", lambda losses, active, inner, **rest: (0.5 * losses, inner))
        >>> method.update(jnp.array([2.0, 4.0]), method.init(2))[0]
        Array([1., 2.], dtype=float32)
    """

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
        return initial_state(num_tasks)._replace(inner=inner(num_tasks))

    def update(
        evidence: Array,
        state: MethodState,
        *,
        losses: Array | None = None,
        active: Array | None = None,
        key: Key | None = None,
        **extra: Any,
    ) -> tuple[Array, MethodState]:
        present = jnp.ones_like(state.weights, dtype=bool) if active is None else active
        values = jnp.where(present, as_float32(evidence), 1.0)
        weights, moved = rule(values, present, state.inner, key=key, **extra)
        weights = jnp.where(present, weights, 0.0)
        return weights, state._replace(weights=weights, inner=moved)

    return checked(Method("losses", init, update, observe=observe, weigh_tasks=True, name=name, least_loss=least_loss))


def number(active: Array) -> Array:
    """How many tasks are active, float32 `[]`, at least 1 so that it may be divided by."""
    return jnp.maximum(jnp.sum(active.astype(jnp.float32)), 1.0)


def total(values: Array, active: Array) -> Array:
    """Sum of `values [T]` over active tasks, `[]`."""
    return jnp.sum(jnp.where(active, values, 0.0))


def mean(values: Array, active: Array) -> Array:
    """Mean of `values [T]` over active tasks, `[]`; 0 where there is none."""
    return total(values, active) / number(active)


def divide(values: Array, by: Array) -> Array:
    """`values / by`, and 0 where `by` is 0."""
    return jnp.where(by == 0, 0.0, values / jnp.where(by == 0, 1.0, by))


def softmax(values: Array, active: Array) -> Array:
    """Softmax of finite `values [T]` over active tasks; 0 for the others.

    Example:
        >>> softmax(jnp.array([3.0, 3.0, 9.0]), jnp.array([True, True, False]))
        Array([0.5, 0.5, 0. ], dtype=float32)
    """
    top = jnp.max(jnp.where(active, values, -jnp.inf))
    powers = jnp.exp(jnp.where(active, values - jnp.where(jnp.isfinite(top), top, 0.0), -jnp.inf))
    return divide(powers, jnp.sum(powers))


def length(values: Array) -> Array:
    """Euclidean norm of `values [T]`, whatever their scale."""
    largest = jnp.max(jnp.abs(values))
    return largest * jnp.sqrt(jnp.sum(jnp.square(divide(values, largest))))


def learner_state(learner: optax.GradientTransformation, values: Array) -> PyTree:
    """State of an optimiser of its own for every entry of `values [T]`: leaves `[T, ...]`, step counts included.

    So a task's moments are corrected for the steps that it has taken itself, and a task that sits out leaves no trace.
    """
    # Copied: a leaf that the optimiser takes from `values` would share its buffer, which cannot be donated twice.
    return jax.tree.map(jnp.copy, jax.vmap(learner.init)(values))


def learn(
    learner: optax.GradientTransformation, gradient: Array, state: PyTree, values: Array, active: Array
) -> tuple[Array, PyTree]:
    """One optimiser step of every active entry of `values [T]`; neither an inactive one nor its state moves.

    Args:
        learner: the optimiser.
        gradient: float32 `[T]`; not read where inactive.
        state: from `learner_state`.
        values: float32 `[T]`.
        active: bool `[T]`.

    Returns:
        New values and new state.
    """
    step, moved = jax.vmap(learner.update)(jnp.where(active, gradient, 0.0), state, values)

    def hold(new: Array, old: Array) -> Array:
        return jnp.where(active.reshape(active.shape + (1,) * (jnp.ndim(new) - 1)), new, old)

    new = jnp.asarray(optax.apply_updates(values, step))
    return hold(new, values), jax.tree.map(hold, moved, state)


def vector_argument(name: str, what: str, value: Any, **bounds: Any) -> Any:
    """A number or one number for each task, float32 `[]` or `[T]`; `bounds` are those of `mtljax.checks.check_number`.

    Raises:
        TypeError: no real numbers.
        ValueError: of more dimensions, not finite, or out of bounds.
    """
    value = check_number(name, what, value, shape=None, **bounds)
    if jnp.ndim(value) > 1:
        raise ValueError(f"{name}: {what} must be a number or of shape [T], found an array of shape {jnp.shape(value)}")
    return value.astype(jnp.float32) if isinstance(value, Tracer) else np.asarray(value, np.float32)


def check_length(name: str, what: str, table: Any, num_tasks: int) -> None:
    """Raises ValueError where there is one entry for each task, but not for T tasks; a single number and None pass."""
    if table is None or (hasattr(table, "ndim") and table.ndim == 0) or len(table) == num_tasks:
        return
    raise ValueError(f"{name}: {what} must have an entry for each of {num_tasks} tasks, found {len(table)} entries")


def preference_of(table: Any, active: Array) -> Array:
    """The preference `[T]` of active tasks, 0 for the others; None means one over the number of active tasks."""
    values = 1.0 / number(active) if table is None else jnp.asarray(table)
    return jnp.where(active, values, 0.0)
