"""Arithmetic over the tasks that take part."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from mtljax.types import Array


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
    """Softmax of finite `values [T]` over active tasks; 0 for the others. Differentiable, with no active task too.

    Example:
        >>> softmax(jnp.array([3.0, 3.0, 9.0]), jnp.array([True, True, False]))
        Array([0.5, 0.5, 0. ], dtype=float32)
    """
    top = lax.stop_gradient(jnp.max(jnp.where(active, values, -jnp.inf)))
    above = jnp.where(active, values - jnp.where(jnp.isfinite(top), top, 0.0), 0.0)
    powers = jnp.where(active, jnp.exp(above), 0.0)
    return divide(powers, jnp.sum(powers))


def length(values: Array) -> Array:
    """Euclidean norm of `values [T]`, whatever their scale."""
    largest = jnp.max(jnp.abs(values))
    return largest * jnp.sqrt(jnp.sum(jnp.square(divide(values, largest))))


def preference_of(table: Any, active: Array) -> Array:
    """The preference `[T]` of active tasks, 0 for the others; None means one over the number of active tasks."""
    values = 1.0 / number(active) if table is None else jnp.asarray(table)
    return jnp.where(active, values, 0.0)
