"""Inverse Cholesky factors of small matrices. A solver uses each factor several times."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from mtljax.solvers.scaling import multiply
from mtljax.types import Array

# Up to this size LAPACK runs on one thread; see `inverse_factor`.
SINGLE_THREAD = 28


def inverse_factor(block: Array) -> Array:
    """Inverse of the Cholesky factor of a matrix `[n, n]`. A large matrix is split in halves, and each half again.

    For n above about 32, the BLAS of XLA:CPU starts threads. On a busy machine these threads wait for milliseconds to
    do microseconds of work.
    """
    size = block.shape[0]
    if size <= SINGLE_THREAD:
        lower = lax.linalg.cholesky(block, symmetrize_input=False)
        return lax.linalg.triangular_solve(lower, jnp.diag(jnp.ones_like(lower[0])), left_side=True, lower=True)
    half = size // 2
    first = inverse_factor(block[:half, :half])
    below = multiply(block[half:, :half], first.T)
    second = inverse_factor(block[half:, half:] - multiply(below, below.T))
    across = -multiply(second, multiply(below, first))
    return jnp.block([[first, jnp.zeros_like(across.T)], [across, second]])


def solve_factored(inverse: Array, vector: Array) -> Array:
    """`M^-1 vector` from the inverse Cholesky factor of M."""
    return multiply(inverse.T, multiply(inverse, vector))
