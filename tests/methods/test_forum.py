"""Tests of `forum`."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize

from mtljax import value_and_grad
from mtljax.methods.from_batches import forum
from mtljax.methods.from_batches.common import descend
from mtljax.methods.from_batches.forum import barrier_weights
from tests.methods.steps.bilevel import problem, quadratics, stepper, vector


def constrained(rows, q, rho):
    """`-d` of FORUM's problem, from its primal, in float64."""
    size = rows.shape[1]
    start = np.append(-rho * q, np.max(rows @ (-rho * q)))
    found = minimize(
        lambda x: x[-1] + 0.5 * x[:-1] @ x[:-1],
        start,
        jac=lambda x: np.append(x[:-1], 1.0),
        constraints=[
            {"type": "ineq", "fun": lambda x: x[-1] - rows @ x[:-1], "jac": lambda x: np.c_[-rows, np.ones(len(rows))]},
            {"type": "ineq", "fun": lambda x: -rho * q @ q - q @ x[:-1], "jac": lambda x: np.append(-q, 0.0)},
        ],
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success and found.x.size == size + 1
    return -found.x[:-1]


@functools.cache
def barrier():
    return jax.jit(jax.vmap(barrier_weights, in_axes=(0, 0, 0, None, None)), static_argnums=3)


def test_forums_problem_against_its_primal():
    generator = np.random.default_rng(1)
    rows, q = generator.normal(size=(12, 3, 6)), generator.normal(size=(12, 6))
    rows[0] += 2 * q[0]  # the constraint is slack: all descend along it anyway
    rows[1] -= 2 * q[1]
    rows[2] = rows[2] * np.array([[1e-3], [1.0], [30.0]])
    length = np.linalg.norm(q, axis=1)
    along = np.einsum("btp,bp->bt", rows, q) / length[:, None]
    gramian = np.einsum("btp,bsp->bts", rows, rows)
    solution = barrier()(*(jnp.asarray(x, jnp.float32) for x in (gramian, along, length)), 0.1, jnp.ones(3, bool))
    weights = np.asarray(solution.weights, np.float64)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-6)
    push = np.maximum(0.1 - (weights * along).sum(axis=1) / length, 0.0)
    found = np.einsum("bt,btp->bp", weights, rows) + push[:, None] * q
    assert push[0] == 0 and push[1] > 0
    for index in range(12):
        expected = constrained(rows[index], q[index], 0.1)
        np.testing.assert_allclose(found[index], expected, atol=2e-4 * float(np.linalg.norm(expected)))
    scaled = barrier()(
        *(jnp.asarray(x, jnp.float32) for x in (1e-16 * gramian, 1e-8 * along, 1e-8 * length)), 0.1, jnp.ones(3, bool)
    )
    np.testing.assert_allclose(scaled.weights, weights, atol=1e-3)


def forum_step(point, meta, average, share, centers, others, *, rate, steps, rho, normalize):
    """One step of FORUM on quadratics in float64."""
    weights = np.exp(meta) / np.exp(meta).sum()
    losses = lambda point, centers: 0.5 * ((point - centers) ** 2).sum(axis=1)  # noqa: E731
    inner = point
    for _ in range(steps):
        inner = inner - rate * weights @ (inner - centers)
    by_weights = losses(point, centers) - losses(inner, centers)
    q = np.concatenate([weights @ (point - centers), weights * (by_weights - weights @ by_weights)])
    rows = point - others
    if normalize:
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.c_[rows, np.zeros((3, 3))]
    direction = constrained(rows, q, rho)
    # The last row: multipliers of the rows sum to 1.
    system = np.vstack([np.c_[rows.T, q], [1.0, 1.0, 1.0, 0.0]])
    multipliers = np.linalg.lstsq(system, np.append(direction, 1.0), rcond=None)[0]
    average = (1 - share) * average + share * multipliers[:3]
    push = max(average @ (rho - rows @ q / (q @ q)), 0.0)
    final = average @ rows + push * q
    return final[:2], meta - final[2:], average


@pytest.mark.parametrize("normalize", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_steps_of_forum_on_quadratics(normalize):
    quadratic, params, point, centers, others = quadratics()
    centers = centers + 0.3
    method = forum(inner_lr=0.2, steps=2, rho=0.5, optimizer=optax.sgd(1.0), normalize=normalize)
    update = jax.jit(value_and_grad(quadratic, method))
    args = (jnp.asarray(centers, jnp.float32),), (jnp.asarray(others, jnp.float32),)
    state = method.init(3)
    meta, average = np.zeros(3), np.zeros(3)
    for index in range(2):
        expected, meta, average = forum_step(
            point,
            meta,
            average,
            (index + 1) ** -0.75,
            centers,
            others,
            rate=0.2,
            steps=2,
            rho=0.5,
            normalize=normalize,
        )
        _, grads, state = update(params, state, *args)
        np.testing.assert_allclose(state.inner.rest.average, average, atol=1e-3)
        np.testing.assert_allclose(grads.shared, expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(state.inner.meta, meta, rtol=1e-3, atol=1e-4)


def test_forum_lowers_every_validation_loss():
    params, train, val = problem()
    method, update = stepper("forum")
    before = vector(params, val)
    state = method.init(3)
    for _ in range(5):
        _, grads, state = update(params, state, train, val, jnp.ones(3, bool))
        params = descend(params, grads, 0.02)
    assert (vector(params, val) < before).all()
