"""Steps of methods that read task gradients."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtljax.methods import reconcile
from mtljax.methods.from_jacobian import adatask, db_mtl, excess_mtl, m_config, moco, sam_gs
from mtljax.methods.from_jacobian.moco import norms_over_losses, simplex_softmax

J_BASE = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
LIBMTL_MOCO = {"normalization": norms_over_losses, "projection": simplex_softmax}
KEY = jax.random.key(3)
STATEFUL = {
    "db_mtl": db_mtl(beta=0.8, decay=0.5),
    "moco": moco(gamma=0.05),
    "excess_mtl": excess_mtl(step_size=0.5),
    "sam_gs": sam_gs(threshold=0.7),
    "adatask": adatask(optax.scale_by_adam()),
    "m_config": m_config(),
}


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.cache
def compiled(method):
    """One step, traced once for each number of tasks."""

    @jax.jit
    def step(state, rows, losses, active):
        return reconcile(method, state, rows, losses=losses, active=active, key=KEY)[:2]

    return step


def run(method, rows, *, losses=None, active=None):
    """Rows [S, T, n] -> updates [S, n], weights [S, T], last state."""
    steps, num_tasks = rows.shape[:2]
    losses = np.ones((steps, num_tasks), np.float32) if losses is None else losses
    active = np.ones((steps, num_tasks), bool) if active is None else active
    state = method.init(num_tasks, jnp.zeros(rows.shape[2]))
    updates, weights = [], []
    for each in zip(rows, losses, active, strict=True):
        update, state = compiled(method)(state, *each)
        updates.append(np.asarray(update, np.float64))
        weights.append(np.asarray(state.weights, np.float64))
    return np.stack(updates), np.stack(weights), state
