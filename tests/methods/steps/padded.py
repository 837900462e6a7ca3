"""First steps of methods that read the Gramian, with one trace a method whatever the number of tasks."""

from __future__ import annotations

import functools

import jax
import numpy as np

SLOTS = 8


@functools.cache
def compiled(method):
    return jax.jit(lambda gramian, options: method.update(gramian, method.init(len(gramian)), **options))


def step(method, rows, *, active=None, places=None, **options):
    """The first step, with the tasks among `SLOTS` of which the others are inactive and NaN: one trace a method."""
    rows = np.asarray(rows, np.float32)
    places = np.arange(len(rows)) if places is None else np.asarray(places)
    padded = np.full((SLOTS, rows.shape[1]), np.nan, np.float32)
    padded[places] = rows
    mask = np.zeros(SLOTS, bool)
    mask[places] = True if active is None else np.asarray(active)
    weights, state = compiled(method)(padded @ padded.T, {"active": mask, **options})
    assert not np.asarray(weights)[~mask].any()
    return np.asarray(weights)[places], state


def weights_of(method, rows, **options):
    return np.asarray(step(method, rows, **options)[0], np.float64)
