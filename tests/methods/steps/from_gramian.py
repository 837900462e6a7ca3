"""Stateless methods that read the Gramian, compiled once."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.methods.from_gramian import cagrad, mgda, pcgrad, upgrad

METHODS = {"mgda": mgda(), "pcgrad": pcgrad(), "cagrad": cagrad(), "upgrad": upgrad()}


@functools.cache
def compiled(method):
    return jax.jit(lambda gramian, options: method.update(gramian, method.init(len(gramian)), **options)[0])


def weights_of(method, rows, **options):
    rows = jnp.asarray(rows, jnp.float32)
    return np.asarray(compiled(method)(rows @ rows.T, options))


def random_rows(num_tasks, seed=0):
    return np.random.default_rng(seed).normal(size=(num_tasks, 4)).astype(np.float32)
