"""Steps of methods that read the Gramian, compiled once for all test files."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.methods.from_gramian.conicgrad import conicgrad
from mtljax.methods.from_gramian.dualproj import dualproj
from mtljax.methods.from_gramian.epo import epo
from mtljax.methods.from_gramian.gradnorm import gradnorm
from mtljax.methods.from_gramian.gradvac import gradvac
from mtljax.methods.from_gramian.mgda import l2_norms, loss_times_l2, mgda
from mtljax.methods.from_gramian.modo import modo
from mtljax.methods.from_gramian.sdmgrad import sdmgrad

ROWS = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
STATEFUL = {
    "gradvac": gradvac(beta=0.3),
    "gradnorm": gradnorm(),
    # The default rate lets rounding grow from step to step.
    "sdmgrad": sdmgrad(rate=0.5),
    "modo": modo(gamma=0.02, rho=0.1),
}
METHODS = {
    "mgda": mgda(normalization=l2_norms),
    "dualproj": dualproj(),
    "conicgrad": conicgrad(0.8),
    "epo": epo(),
    **STATEFUL,
}
PLAIN = mgda()
BY_LOSS_AND_NORM = mgda(normalization=loss_times_l2)
KEY = jax.random.key(0)


@functools.cache
def compiled(method):
    return jax.jit(method.update)


def step(method, rows, state=None, *, losses=None, active=None, key=KEY):
    """One compilation for each method and number of tasks: compiling is most of these tests' time."""
    rows = np.asarray(rows)
    gramian = jnp.asarray(rows @ rows.T, jnp.float32)
    state = method.init(len(rows)) if state is None else state
    losses = jnp.linspace(0.5, 2.0, len(rows)) if losses is None else jnp.asarray(losses, jnp.float32)
    active = jnp.ones(len(rows), bool) if active is None else jnp.asarray(active)
    return compiled(method)(gramian, state, losses=losses, active=active, key=key)


def four(rows):
    """Two tasks as the active ones of four, so that they need no compilation of their own."""
    return np.concatenate([rows, np.zeros_like(rows)]), np.array([True, True, False, False])


def direction(method, rows, **options):
    return np.asarray(step(method, rows, **options)[0], np.float64) @ np.asarray(rows)


def random_rows(num_tasks, seed=0, width=8):
    return np.random.default_rng(seed).normal(size=(num_tasks, width))
