"""Tests of `krum`."""

from __future__ import annotations

import numpy as np
import pytest

from mtljax.methods.from_gramian.krum import krum
from tests.methods.steps.padded import weights_of
from tests.methods.steps.spectral import METHODS, random_rows


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize(("faulty", "selected"), [(0, 1), (1, 2), (2, 3)])
def test_krum_by_hand(faulty, selected, squared):
    for seed in range(4):
        rows = random_rows(7, seed)
        rows[seed] += 30.0
        distances = np.sum((rows[:, None] - rows[None, :]) ** 2, axis=-1) ** (1.0 if squared else 0.5)
        nearest = np.sort(distances, axis=1)[:, 1 : 1 + 7 - faulty - 2]
        expected = np.zeros(7)
        expected[np.argsort(nearest.sum(1))[:selected]] = 1.0 / selected
        method = krum(faulty, n_selected=selected, squared=squared)
        np.testing.assert_allclose(weights_of(method, rows), expected, rtol=1e-6)
        assert expected[seed] == 0


def test_krum_with_few_tasks():
    method = krum(2, n_selected=3)
    np.testing.assert_allclose(weights_of(method, random_rows(2)), [0.5, 0.5])
    found = weights_of(method, random_rows(5), active=[True, False, True, False, False])
    np.testing.assert_allclose(found, [0.5, 0.0, 0.5, 0.0, 0.0])
    same = np.tile(random_rows(1), (5, 1))
    assert weights_of(METHODS["krum"], same).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
