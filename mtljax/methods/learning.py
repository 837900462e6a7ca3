"""Numbers that methods learn, one per task, each with an optimiser state of its own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from mtljax.participation import held
from mtljax.types import Array, PyTree


def learner_state(learner: optax.GradientTransformation, values: Array) -> PyTree:
    """State of an optimiser of its own for every entry of `values [T]`: leaves `[T, ...]`, step counts included.

    So a task's moments are corrected for the task's own steps, and an inactive task changes nothing.
    """
    # Copied: a leaf that the optimiser takes from `values` would share its buffer, which cannot be donated twice.
    return jax.tree.map(jnp.copy, jax.vmap(learner.init)(values))


def learn(
    learner: optax.GradientTransformation, gradient: Array, state: PyTree, values: Array, active: Array
) -> tuple[Array, PyTree]:
    """One optimiser step of every active entry of `values [T]`; an inactive entry and its state do not change.

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
    new = jnp.asarray(optax.apply_updates(values, step))
    return held((new, moved), (values, state), active)
