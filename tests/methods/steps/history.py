"""Weights of methods that remember losses, over several steps."""

from __future__ import annotations

import functools

import jax
import numpy as np

STEPS = np.random.default_rng(1).uniform(0.3, 2.0, size=(9, 3)).astype(np.float32)


def softmax(x):
    powers = np.exp(x - x.max())
    return powers / powers.sum()


@functools.cache
def scanned(method):
    def run(losses, active, extra):
        def body(state, step):
            losses, active, extra = step
            weights, state = method.update(losses, state, active=active, **extra)
            return state, weights

        return jax.lax.scan(body, method.init(losses.shape[1]), (losses, active, extra))

    return jax.jit(run)


def weights_of(method, losses, active=None, **extra):
    """Weights of all steps, `[steps, T]`, and the last state."""
    active = np.ones(losses.shape, bool) if active is None else active
    state, weights = scanned(method)(losses, active, extra)
    return np.asarray(weights), state
