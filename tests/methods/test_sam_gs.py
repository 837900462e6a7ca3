"""Tests of `sam_gs`."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.methods import aggregate
from mtljax.methods.from_jacobian import sam_gs
from tests.methods.steps.jacobian import draw, run


def test_sam_gs_by_hand():
    rows = draw(4, 3, 5).astype(np.float64)
    rows[[0, 2], 0] *= 30
    found, _, _ = run(sam_gs(momentum=0.8, beta=0.9, threshold=0.5), rows.astype(np.float32))
    moment, spread, equal = np.zeros((3, 5)), 0.0, []
    for step in range(4):
        norms = np.linalg.norm(rows[step], axis=1)
        pairs = [(0, 1), (0, 2), (1, 2)]
        similarity = np.mean([2 * norms[i] * norms[j] / (norms[i] ** 2 + norms[j] ** 2) for i, j in pairs])
        moment = 0.8 * moment + 0.2 * rows[step]
        spread = 0.9 * spread + 0.1 * (1 - similarity) ** 2 + 1e-8
        equal.append(similarity < 0.5)
        if equal[-1]:
            expected = norms.mean() * (rows[step] / norms[:, None]).sum(axis=0)
        else:
            corrected = np.abs(moment) / (1 - 0.8 ** (step + 1)) / np.sqrt(spread / (1 - 0.9 ** (step + 1)))
            expected = (rows[step] * corrected).sum(axis=0)
        np.testing.assert_allclose(found[step], expected, rtol=1e-4, atol=1e-5)
    assert equal == [True, False, True, False]


def test_sam_gs_edges():
    method = jax.jit(functools.partial(aggregate, sam_gs()))
    rows = jnp.asarray(draw(3, 5))
    np.testing.assert_allclose(method(rows, active=jnp.array([False, True, False])), rows[1], rtol=1e-6)
    np.testing.assert_array_equal(method(jnp.zeros((3, 5))), 0)
    one_zero = method(rows.at[1].set(0))
    assert np.isfinite(one_zero).all()
    np.testing.assert_array_equal(aggregate(sam_gs(eps=0.0), jnp.stack([rows[0], -rows[0]])), 0)
    # Quadratic in the gradients where they are of similar lengths, and the order of tasks does not matter.
    np.testing.assert_allclose(method(1e-3 * rows), 1e-6 * method(rows), rtol=1e-3)
    np.testing.assert_allclose(method(rows[::-1]), method(rows), rtol=1e-4)
