"""Tests of `pivrg`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_gramian.pivrg import PivrgState
from tests.methods.steps.bargaining import METHODS, power, random_rows
from tests.methods.steps.padded import SLOTS


def test_scores_of_pivrg_are_kept():
    rows = random_rows(SLOTS, seed=4, size=16)
    whole = rows.astype(float) @ rows.T.astype(float)
    update = jax.jit(METHODS["pivrg"].update)

    def check(weights, omega):
        weights = np.asarray(weights, float)
        np.testing.assert_allclose(whole @ weights, np.sqrt(omega / weights), rtol=1e-3)

    state = METHODS["pivrg"].init(SLOTS)
    first, state = update(jnp.asarray(whole, jnp.float32), state)
    check(first, np.ones(SLOTS))
    scores = np.linspace(30.0, -5.0, SLOTS, dtype=np.float32)
    assert power(scores).max() / power(scores).min() == pytest.approx(2.0)
    second, state = update(jnp.asarray(whole, jnp.float32), state, scores=scores)
    check(second, power(scores))
    third, _ = update(jnp.asarray(whole, jnp.float32), state)
    np.testing.assert_array_equal(third, second)
    by_hand, _ = update(jnp.asarray(whole, jnp.float32), state._replace(inner=PivrgState(jnp.asarray(scores))))
    np.testing.assert_array_equal(by_hand, second)
    # Scores within the least temperature hardly matter.
    close = np.linspace(0.0, 1.0, SLOTS, dtype=np.float32)
    check(update(jnp.asarray(whole, jnp.float32), state, scores=close)[0], power(close))
