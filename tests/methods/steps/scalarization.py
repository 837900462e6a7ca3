"""Weights of scalarisations, one program for each."""

from __future__ import annotations

import functools

import jax
import numpy as np


@functools.cache
def compiled(method):
    def weights(losses, active):
        return method.update(losses, method.init(losses.shape[0]), active=active)[0]

    return jax.jit(jax.vmap(weights))


def weights_of(method, losses, active=None):
    losses = np.atleast_2d(np.asarray(losses, np.float32))
    active = np.ones(losses.shape, bool) if active is None else np.broadcast_to(active, losses.shape)
    return np.asarray(compiled(method)(losses, active))
