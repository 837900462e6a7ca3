"""Tests of `fairgrad`."""

from __future__ import annotations

import numpy as np
import pytest

from mtljax.methods.from_gramian.mgda import mgda
from tests.methods.steps.bargaining import FAIR, METHODS, random_rows
from tests.methods.steps.padded import weights_of


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_equation_of_fairgrad_holds(alpha):
    rows = random_rows(4, seed=3)
    weights = weights_of(FAIR[alpha], rows)
    np.testing.assert_allclose(rows.astype(float) @ (weights @ rows), weights ** (-1 / alpha), rtol=1e-4)


def test_nash_is_fairgrad_at_one_and_consmtl_at_two():
    rows = random_rows(5, seed=1)
    np.testing.assert_array_equal(weights_of(METHODS["nash_mtl"], rows), weights_of(FAIR[1.0], rows))
    np.testing.assert_array_equal(weights_of(METHODS["consmtl"], rows), weights_of(FAIR[2.0], rows))
    np.testing.assert_allclose(weights_of(METHODS["pivrg"], rows), weights_of(METHODS["consmtl"], rows), rtol=1e-5)


def test_limits_of_fairgrad():
    agreeing = np.abs(random_rows(4, seed=2))
    np.testing.assert_allclose(weights_of(FAIR[1e-3], agreeing), 1.0, atol=0.02)
    assert weights_of(FAIR[0.0], agreeing).tolist() == [1.0] * 4
    rows = random_rows(4, seed=2)
    fair, shortest = weights_of(FAIR[200.0], rows) @ rows, weights_of(mgda(), rows) @ rows
    assert fair @ shortest / np.linalg.norm(fair) / np.linalg.norm(shortest) > 1 - 1e-3


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e3, 1e12])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_degree_under_scaling(alpha, scale):
    rows, method = random_rows(4, seed=1), FAIR[alpha]
    plain = weights_of(method, rows) @ rows
    scaled = weights_of(method, np.float32(scale) * rows) @ (scale * rows.astype(float))
    np.testing.assert_allclose(scaled / scale ** ((1 - alpha) / (1 + alpha)), plain, rtol=1e-3, atol=1e-4)


def test_alpha_zero_leaves_inactive_out():
    active = [True, False, True]
    assert weights_of(FAIR[0.0], random_rows(3), active=active).tolist() == [1.0, 0.0, 1.0]
