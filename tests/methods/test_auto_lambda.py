"""Tests of `auto_lambda`."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtljax import value_and_grad
from mtljax.methods.from_batches import auto_lambda
from mtljax.methods.from_batches.common import descend
from mtljax.types import Aux
from tests.methods.steps.bilevel import NAMES, differences, losses_fn, problem, quadratics, vector


@pytest.mark.parametrize("simplex", [False, True])
def test_auto_lambdas_meta_gradient_against_finite_differences(simplex):
    with jax.enable_x64(True):
        params, train, val = problem(jnp.float64)
        primary = np.array([1.0, 0.0, 2.0])
        method = auto_lambda(inner_lr=0.1, optimizer=optax.sgd(1.0), primary=primary.tolist(), simplex=simplex)
        state = method.init(3)
        start = np.asarray(state.inner.meta, np.float64)

        @jax.jit
        def ahead(meta):
            weights = jax.nn.softmax(meta) if simplex else meta
            moved = descend(params, jax.grad(lambda params: weights @ vector(params, train))(params), 0.1)
            return primary @ vector(moved, val)

        expected = differences(ahead, start)
        assert np.abs(expected).min() > 1e-3
        _, grads, state = jax.jit(value_and_grad(losses_fn, method))(params, state, train, val)
        np.testing.assert_allclose(start - np.asarray(state.inner.meta, np.float64), expected, rtol=2e-5, atol=1e-7)
        weights = np.asarray(state.weights, np.float64)
        plain = jax.grad(lambda params: weights @ vector(params, train))(params)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), grads, plain)
        assert grads.shared["w"].dtype == jnp.float64 and state.inner.meta.dtype == jnp.float32


def test_auto_lambda_on_quadratics():
    quadratic, params, point, centers, others = quadratics()
    method = auto_lambda(inner_lr=0.25, optimizer=optax.sgd(1.0))
    args = (jnp.asarray(centers, jnp.float32),), (jnp.asarray(others, jnp.float32),)
    losses, grads, state = value_and_grad(quadratic, method)(params, method.init(3), *args)
    slopes = point - centers
    ahead = point - 0.25 * 0.1 * slopes.sum(axis=0)
    weights = 0.1 + 0.25 * slopes @ (ahead - others).sum(axis=0)
    np.testing.assert_allclose(state.weights, weights, rtol=1e-5)
    np.testing.assert_allclose(grads.shared, weights @ slopes, rtol=1e-5)
    np.testing.assert_allclose(losses, 0.5 * (slopes**2).sum(axis=1), rtol=1e-6)
    assert grads.tasks == dict.fromkeys(NAMES, ())


@pytest.mark.parametrize("labeled", [True, False])
def test_an_auxiliary_task_of_auto_lambda_needs_no_labels_for_validation(labeled):
    """`primary` is 0 for b, of which the validation batch has labels or not; a task that counts sits out without."""
    params, train, val = problem()

    def with_counts(params, inputs, targets, count):
        return losses_fn(params, inputs, targets), Aux(weight_sum=count)

    method = auto_lambda(inner_lr=0.1, optimizer=optax.sgd(1.0), primary=[1.0, 0.0, 1.0])
    f = jax.jit(value_and_grad(with_counts, method, has_aux=True))
    counts = jnp.array([1.0, 1.0 * labeled, 1.0])
    _, _, state = f(params, method.init(3), (*train, jnp.ones(3)), (*val, counts))
    _, _, expected = jax.jit(value_and_grad(losses_fn, method))(params, method.init(3), train, val)
    np.testing.assert_allclose(state.weights, expected.weights, rtol=1e-6)
    _, _, state = f(params, method.init(3), (*train, jnp.ones(3)), (*val, jnp.array([0.0, 1.0, 1.0])))
    assert state.weights[0] == 0 and (state.weights[1:] != 0).all()
