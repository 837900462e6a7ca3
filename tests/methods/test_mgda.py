"""Tests of `mgda`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_gramian.mgda import l2_norms, loss_times_l2, loss_values, mgda
from tests.methods.steps.gramian import BY_LOSS_AND_NORM, PLAIN, random_rows, step


def test_mgda_normalizations_are_mgda_of_scaled_gradients():
    rows, losses = random_rows(4, 1), np.array([0.5, 2.0, 1.0, 3.0])
    norms = np.linalg.norm(rows, axis=1)
    for function, divisor in ((l2_norms, norms), (loss_values, losses), (loss_times_l2, losses * norms)):
        np.testing.assert_allclose(
            function(jnp.asarray(norms), jnp.asarray(losses)), jnp.asarray(divisor, jnp.float32), rtol=1e-6
        )
    divisor = losses * norms
    plain = np.asarray(step(PLAIN, rows / divisor[:, None])[0])
    found = step(BY_LOSS_AND_NORM, rows, losses=losses)[0]
    np.testing.assert_allclose(found, plain / divisor, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_mgda_may_apply_the_weights_of_normalized_gradients_to_the_gradients_themselves():
    rows = random_rows(4, 1)
    raw = mgda(normalization=loss_times_l2, normalized_update=False)
    divisor = np.linspace(0.5, 2.0, 4) * np.linalg.norm(rows, axis=1)
    expected = np.asarray(step(BY_LOSS_AND_NORM, rows)[0]) * divisor
    np.testing.assert_allclose(step(raw, rows)[0], expected, rtol=1e-4, atol=1e-6)


def test_mgda_divisors_that_are_no_number_to_divide_by_count_as_one():
    rows = random_rows(4)
    losses = np.array([0.0, -2.0, np.nan, np.inf])
    np.testing.assert_allclose(step(BY_LOSS_AND_NORM, rows, losses=losses)[0], step(PLAIN, rows)[0], atol=1e-6)
    rows[0] = 0
    np.testing.assert_allclose(step(BY_LOSS_AND_NORM, rows)[0], [1.0, 0.0, 0.0, 0.0], atol=1e-6)
