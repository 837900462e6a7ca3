"""Methods to be wrapped, and steps of wrappers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import mtljax
from mtljax.methods.common import initial_state
from mtljax.types import Method

ROWS = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
KEY = jax.random.key(0)


def counting(reads="gramian", *, weigh_tasks=False) -> Method:
    """At its n-th step the weights are n, n + 1, ...; sees, observes and can be reused; nothing to solve."""

    def init(num_tasks, shared=None):
        inner = {"step": jnp.zeros((), jnp.int32), "seen": jnp.zeros(num_tasks), "after": jnp.zeros(num_tasks)}
        return initial_state(num_tasks, inner)

    def update(evidence, state, *, losses=None, active=None, key=None, **extra):
        weights = state.inner["step"] + jnp.arange(1.0, state.weights.shape[0] + 1)
        weights = weights if active is None else jnp.where(active, weights, 0.0)
        inner = {**state.inner, "step": state.inner["step"] + 1}
        if losses is not None:
            inner["seen"] = losses
        state = state._replace(weights=weights, inner=inner)
        if reads == "task_grads":
            return mtljax.trees.weighted_sum(weights, evidence), state
        return weights, state

    def observe(losses_after, state):
        return state._replace(inner={**state.inner, "after": losses_after})

    return Method(reads, init, update, observe, weigh_tasks, name="counting")


def picking() -> Method:
    """Task 1's gradient as it is."""
    return Method(
        "task_grads",
        lambda num_tasks, shared=None: initial_state(num_tasks),
        lambda evidence, state, **rest: (evidence, state),
        name="picking",
        pick=lambda state, *, active=None: jnp.asarray(1, jnp.int32),
    )


def steps(method, count, *, masks=None, losses=None, gramian=None):
    state = method.init(3)
    found = []
    for index in range(count):
        active = None if masks is None else jnp.array(masks[index])
        weights, state = method.update(jnp.eye(3) if gramian is None else gramian, state, losses=losses, active=active)
        np.testing.assert_array_equal(weights, state.weights)
        found.append(np.asarray(weights))
    return np.stack(found), state
