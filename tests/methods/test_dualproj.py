"""Tests of `dualproj`."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from mtljax.methods.from_gramian.dualproj import dualproj
from mtljax.methods.from_gramian.upgrad import upgrad
from tests.methods.steps.gramian import METHODS, direction, random_rows


@pytest.mark.parametrize("preference", [None, pytest.param([0.2, 3.0, 0.0, 1.0], marks=pytest.mark.slow)])
def test_dualproj_is_the_projection(preference):
    method = METHODS["dualproj"] if preference is None else dualproj(preference=preference)
    for seed in range(3):
        rows = random_rows(4, seed)
        target = (np.full(4, 0.25) if preference is None else np.asarray(preference)) @ rows
        x = cp.Variable(8)
        cp.Problem(cp.Minimize(cp.sum_squares(x - target)), [rows @ x >= 0]).solve(solver="CLARABEL")
        np.testing.assert_allclose(direction(method, rows), x.value, atol=2e-4)


def test_dualproj_leaves_a_mean_that_hurts_nobody():
    rows = np.abs(random_rows(4))
    np.testing.assert_allclose(direction(METHODS["dualproj"], rows), rows.mean(0), rtol=1e-5)


@pytest.mark.slow
def test_dualproj_of_one_task_is_its_part_of_upgrad():
    rows, second = random_rows(4), np.eye(4)[1]
    expected = direction(upgrad(preference=second), rows)
    np.testing.assert_allclose(direction(dualproj(preference=second), rows), expected, atol=1e-5)
