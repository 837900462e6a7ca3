"""Steps of methods that learn their weights beside the network, and Adam in float64."""

from __future__ import annotations

import functools

import jax
import numpy as np

STEPS = np.random.default_rng(3).uniform(0.3, 2.0, size=(6, 3)).astype(np.float32)
AFTER = (STEPS * np.random.default_rng(4).uniform(0.7, 1.1, size=STEPS.shape)).astype(np.float32)


@functools.cache
def scanned(method):
    def run(losses, active, after):
        def body(state, step):
            losses, active, after = step
            weights, state = method.update(losses, state, active=active)
            if method.observe is not None:
                state = method.observe(after, state)
            return state, (weights, state)

        return jax.lax.scan(body, method.init(losses.shape[1]), (losses, active, after))

    return jax.jit(run)


def history(method, losses=STEPS, active=None, after=AFTER):
    """Weights `[steps, T]`, and the states after each step with a leading axis."""
    active = np.ones(losses.shape, bool) if active is None else active
    _, (weights, states) = scanned(method)(losses, active, after)
    return np.asarray(weights), states


class Adam:
    """Adam in float64, as its paper writes it."""

    def __init__(self, rate):
        self.rate, self.first, self.second, self.count = rate, 0.0, 0.0, 0

    def __call__(self, gradient):
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        return (
            -self.rate * (self.first / (1 - 0.9**self.count)) / (np.sqrt(self.second / (1 - 0.999**self.count)) + 1e-8)
        )
