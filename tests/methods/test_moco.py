"""Tests of `moco`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from mtljax.methods.from_jacobian import moco
from tests.methods.steps.jacobian import J_BASE, LIBMTL_MOCO, draw, run


def projected(values: np.ndarray) -> np.ndarray:
    ordered = np.sort(values)[::-1]
    shifts = (np.cumsum(ordered) - 1) / np.arange(1, values.size + 1)
    return np.maximum(values - shifts[np.flatnonzero(ordered > shifts)[-1]], 0)


def test_moco_by_hand():
    rows = draw(3, 3, 4).astype(np.float64)
    found, weights, _ = run(moco(beta=0.6, gamma=0.7, gamma_decay=1.0, rho=0.2), rows.astype(np.float32))
    average, share = np.zeros((3, 4)), np.full(3, 1 / 3)
    for step in range(3):
        average = average - 0.6 / np.sqrt(step + 1) * (average - rows[step])
        share = projected(share - 0.7 / (step + 1) * (average @ average.T @ share + 0.2 * share))
        np.testing.assert_allclose(weights[step], share, atol=1e-6)
        np.testing.assert_allclose(found[step], share @ average, atol=1e-6)


def test_moco_as_in_libmtl_by_hand():
    rows, losses = draw(3, 2, 4).astype(np.float64), np.array([[2.0, 0.5], [1.0, 0.25], [0.5, 3.0]])
    found, weights, _ = run(moco(**LIBMTL_MOCO), rows.astype(np.float32), losses=losses.astype(np.float32))
    average, share = np.zeros((2, 4)), np.full(2, 0.5)
    for step in range(3):
        scaled = rows[step] / np.linalg.norm(rows[step], axis=1, keepdims=True) * losses[step][:, None]
        average = average - 0.5 / np.sqrt(step + 1) * (average - scaled)
        values = share - 0.1 / np.sqrt(step + 1) * (average @ average.T) @ share
        share = np.exp(values) / np.exp(values).sum()
        np.testing.assert_allclose(weights[step], share, rtol=1e-5)
        np.testing.assert_allclose(found[step], share @ average, rtol=1e-5, atol=1e-6)


def test_moco_tends_to_mgda():
    """With the same gradients at every step, lambda descends on the length of their combination."""
    rows = np.broadcast_to(np.asarray(J_BASE), (200, 2, 3))
    found, _, _ = run(moco(gamma=0.02, gamma_decay=0.0), rows)
    np.testing.assert_allclose(found[-1], [0.0, 1.0, 1.0], atol=1e-2)


def test_the_average_of_an_absent_task_is_held():
    method, rows = moco(), jnp.array([[1.0, 2.0], [3.0, -1.0]])
    _, before = method.update(rows, method.init(2, rows[0]))
    _, after = method.update(5.0 * rows, before, active=jnp.array([True, False]))
    assert (after.inner.average[0] != before.inner.average[0]).all()
    assert (after.inner.average[1] == before.inner.average[1]).all()
