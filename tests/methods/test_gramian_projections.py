"""Golden values of MGDA with normalisations, GradVac and DualProj; means over the tasks that take part."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_gramian.gradvac import gradvac
from mtljax.methods.from_gramian.pcgrad import pcgrad
from tests.methods.steps.gramian import METHODS, ROWS, STATEFUL, direction, four


def test_golden_values():
    rows, active = four(ROWS)
    for method, expected in (
        (STATEFUL["gradvac"], [0.58480, 3.80117, 3.80117]),
        (gradvac(mean=True), [0.29240, 1.90058, 1.90058]),
        (METHODS["dualproj"], [0.55556, 1.11111, 1.11111]),
        (METHODS["mgda"], [0.01526, 0.19896, 0.19896]),
    ):
        np.testing.assert_allclose(direction(method, rows, active=active), expected, atol=1e-5)


@pytest.mark.parametrize("make", [pcgrad, gradvac])
def test_the_mean_is_over_the_tasks_that_take_part(make):
    method = make(mean=True)
    active = jnp.array([True, True, False])
    weights, _ = method.update(jnp.eye(3), method.init(3), active=active, key=jax.random.key(0))
    np.testing.assert_allclose(weights, [0.5, 0.5, 0.0], atol=1e-6)
