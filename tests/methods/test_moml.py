"""Tests of `moml`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize

from mtljax import value_and_grad
from mtljax.methods.from_batches import moml
from mtljax.methods.from_batches.common import slope_of
from mtljax.methods.from_batches.moml import hypergradients
from mtljax.types import Batches
from tests.methods.steps.bilevel import differences, losses_fn, problem, quadratics, vector


@pytest.mark.parametrize("steps", [1, 3])
def test_momls_meta_gradients_against_finite_differences(steps):
    with jax.enable_x64(True):
        params, train, val = problem(jnp.float64)
        meta = jnp.array([0.3, -0.2, 0.5])

        @jax.jit
        def after(meta):
            moved = params
            for _ in range(steps):
                gradient = jax.grad(lambda params: jax.nn.softmax(meta) @ vector(params, train))(moved)
                moved = jax.tree.map(lambda value, slope: value - 0.1 * slope, moved, gradient)
            return vector(moved, val)

        expected = differences(after, np.asarray(meta))
        found = jax.jit(
            lambda meta: hypergradients(
                slope_of(Batches(lambda params, index: losses_fn(params, *train), params, jnp.ones((2, 3), bool)), 0),
                lambda params: vector(params, val),
                params,
                meta,
                jnp.ones(3, bool),
                0.1,
                steps,
            )[0]
        )(meta)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("normalize", [False, True])
def test_moml_on_quadratics(normalize):
    quadratic, params, point, centers, others = quadratics()
    method = moml(inner_lr=0.25, optimizer=optax.sgd(1.0), normalize=normalize)
    args = (jnp.asarray(centers, jnp.float32),), (jnp.asarray(others, jnp.float32),)
    _, grads, state = jax.jit(value_and_grad(quadratic, method))(params, method.init(3), *args)
    slopes = point - centers
    ahead = point - 0.25 * slopes.mean(axis=0)
    by_weights = -0.25 * (ahead - others) @ slopes.T
    rows = (by_weights - by_weights.mean(axis=1, keepdims=True)) / 3  # through the softmax at even weights
    if normalize:
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    best = shortest(rows)
    np.testing.assert_allclose(state.inner.meta, -best, rtol=1e-4, atol=1e-6)
    weights = np.exp(-best) / np.exp(-best).sum()
    np.testing.assert_allclose(state.weights, weights, rtol=1e-4)
    np.testing.assert_allclose(grads.shared, weights @ slopes, rtol=1e-4)


def shortest(rows):
    """The shortest vector of a convex hull, in float64."""
    size = len(rows)
    scale = np.abs(rows).max()
    found = minimize(
        lambda w: 0.5 * np.sum((w @ rows / scale) ** 2),
        np.full(size, 1 / size),
        jac=lambda w: rows @ (w @ rows) / scale**2,
        bounds=[(0, 1)] * size,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(size)},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return found.x @ rows
