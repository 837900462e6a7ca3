"""Tests of `trimmed_mean`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods import aggregate
from mtljax.methods.from_jacobian import trimmed_mean
from tests.methods.steps.jacobian import draw


@pytest.mark.parametrize(("num_tasks", "trim"), [(3, 1), (8, 3), (5, 0), (70, 2)])
def test_trimmed_mean_is_the_mean_of_the_sorted_middle(num_tasks, trim):
    rows = draw(num_tasks, 40)
    rows[:, 0] = 1.5
    expected = np.sort(rows.astype(np.float64), axis=0)[trim : num_tasks - trim].mean(axis=0)
    np.testing.assert_allclose(jax.jit(lambda rows: aggregate(trimmed_mean(trim), rows))(rows), expected, atol=1e-6)


@pytest.mark.parametrize("trim", [1, 3])
def test_trimmed_mean_of_the_active(trim):
    rows, rng = draw(8, 30), np.random.default_rng(0)
    active = np.stack([rng.permutation(np.arange(8) < n) for n in range(9)])
    poisoned = np.where(active[:, :, None], rows, np.nan)
    found = jax.jit(jax.vmap(lambda rows, active: aggregate(trimmed_mean(trim), rows, active=active)))(poisoned, active)
    np.testing.assert_array_equal(found[0], 0)
    for n in range(1, 9):
        cut = min(trim, (n - 1) // 2)
        expected = np.sort(rows[active[n]].astype(np.float64), axis=0)[cut : n - cut].mean(axis=0)
        np.testing.assert_allclose(found[n], expected, atol=1e-6)


def test_trimmed_mean_loses_no_digit_to_an_outlier():
    rows = np.concatenate([draw(3, 10), np.full((1, 10), 1e30, np.float32), np.full((1, 10), -1e30, np.float32)])
    expected = rows[:3].astype(np.float64).mean(axis=0)
    # Of the rounding of three numbers around 1.
    np.testing.assert_allclose(aggregate(trimmed_mean(1), jnp.asarray(rows)), expected, atol=2e-7)


def test_trimmed_mean_wants_enough_tasks():
    with pytest.raises(ValueError, match="num_tasks must be at least 5 for trim 2, found 4"):
        trimmed_mean(2).init(4)
    with pytest.raises(TypeError, match=r"trim must be an integer, found 1\.5"):
        trimmed_mean(1.5)
