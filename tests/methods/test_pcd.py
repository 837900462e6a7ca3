"""PCD: TorchJD's numbers, an exact reference, its averages, which task has priority, contradicting constraints."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from mtljax.methods.from_gramian.pcd import pcd
from mtljax.solvers import TRUSTED

ROWS = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
SLOTS = 6


@jax.jit
def first_step(gramian, active, priority, tau):
    method = pcd(priority=priority, tau=tau)
    return method.update(gramian, method.init(SLOTS), active=active)


def step(rows, *, priority=0, tau=0.02, active=None):
    """The first step with the tasks as the first of `SLOTS`: one program for all of this file."""
    rows = np.asarray(rows, np.float64)
    padded = np.full((SLOTS, rows.shape[1]), np.nan)
    padded[: len(rows)] = rows
    mask = np.arange(SLOTS) < len(rows)
    if active is not None:
        mask[: len(rows)] &= np.asarray(active)
    weights, state = first_step(jnp.float32(padded @ padded.T), mask, priority, jnp.float32(tau))
    assert not np.asarray(weights)[~mask].any()
    return np.asarray(weights, np.float64)[: len(rows)] @ rows, state


def exact(rows, *, tau):
    """The equation in float64 at a first step, where averages are the norms; None where no direction exists."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    missing = tau - unit[1:] @ unit[0]
    solution, left = nnls(np.vstack([unit[1:].T, missing]), np.append(np.zeros(rows.shape[1]), 1.0))
    if left < 1e-8:
        return None
    direction = unit[0] + unit[1:].T @ solution / (1.0 - missing @ solution)
    return direction / np.linalg.norm(direction) * np.linalg.norm(rows[0])


@pytest.mark.parametrize(
    ("options", "direction"),
    [
        # torchjd 0.18.0: PCD(tau) in float64; the rows in the other order where the second one has priority.
        ({}, [-0.820033, 2.943429, 2.943429]),
        ({"tau": 0.5}, [2.0889, 2.611178, 2.611178]),
        ({"tau": 0.5, "priority": 1}, [-2.437038, 4.003801, 4.003801]),
        ({"tau": 1.0}, [3.169468, 1.994301, 1.994301]),
        ({"tau": 0.0}, [-0.973329, 2.919986, 2.919986]),
    ],
)
def test_the_numbers_of_torchjd(options, direction):
    found, state = step(ROWS, **options)
    np.testing.assert_allclose(found, direction, atol=1e-5)
    assert state.residual < TRUSTED


@pytest.mark.parametrize("tau", [0.0, 0.02, 0.5, 1.0])
def test_the_exact_direction(tau):
    """Tasks of lengths far apart, in as many dimensions as there are tasks or more."""
    draw = np.random.default_rng(3)
    for _ in range(40):
        num_tasks = draw.integers(2, SLOTS + 1)
        rows = draw.normal(size=(num_tasks, num_tasks + draw.integers(0, 4)))
        rows *= np.exp(2.0 * draw.normal(size=(num_tasks, 1)))
        expected = exact(rows, tau=tau)
        found, state = step(rows, tau=tau)
        assert expected is not None
        if state.residual <= TRUSTED:
            assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(rows[0])
        assert np.linalg.norm(found) <= np.linalg.norm(rows[0]) * (1 + 1e-5)


def test_constraints_that_contradict_one_another_are_dropped():
    rows = [[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, -2.0, 0.0]]
    found, state = step(rows)
    np.testing.assert_allclose(found, rows[0], rtol=1e-6)
    assert state.residual == 1


def test_with_nothing_asked_and_nothing_left_the_update_is_zero():
    """The others pull against the task with priority, and tau is 0: d' is 0, and has no direction to be scaled."""
    found, state = step([[1.0, 0.0], [-2.0, 0.0]], tau=0.0)
    np.testing.assert_array_equal(found, 0)
    assert state.residual == 1


@pytest.mark.parametrize("missing", ["absent", "without a gradient"])
def test_priority_goes_on_to_the_next_task(missing):
    rows = np.random.default_rng(0).normal(size=(3, 5))
    expected, _ = step(rows[[2, 0]], tau=0.3)
    if missing == "absent":
        found, _ = step(rows, priority=1, tau=0.3, active=[True, False, True])
    else:
        found, _ = step(rows * np.array([[1.0], [0.0], [1.0]]), priority=1, tau=0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_unit_of_another_loss_makes_no_difference():
    rows = np.random.default_rng(1).normal(size=(4, 6))
    expected, _ = step(rows, tau=0.5)
    found, _ = step(rows * np.array([[1.0], [100.0], [1e-6], [1.0]]), tau=0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_three_steps_against_the_recurrence():
    """A task that stays away for a step keeps its average; a Gramian that was scaled means the same."""
    draw = np.random.default_rng(2)
    beta, method = 0.9, pcd(tau=0.8, beta=0.9)
    state, root, count = method.init(3), np.zeros(3), np.zeros(3)
    update = jax.jit(method.update)
    for number, active in enumerate(np.array([[1, 1, 1], [1, 1, 0], [1, 1, 1]], bool)):
        rows = draw.normal(size=(3, 4)) * np.array([[1.0], [3.0], [0.2]])
        factor = 2.0 ** (8 * number)
        gramian = jnp.float32(rows @ rows.T * factor**2)
        weights, state = update(gramian, state, active=active, scale=jnp.float32(factor))
        count += active
        root = np.where(active, beta * root + (1 - beta) * np.sum(rows**2, axis=1), root)
        average = np.sqrt(root / (1 - beta ** np.maximum(count, 1)))
        np.testing.assert_allclose(state.inner.root, average, rtol=1e-5)
        scaled = (rows / average[:, None])[active]
        direction = np.asarray(weights)[active] @ rows[active]
        # Of the direction nearest to the first one that meets the constraints nothing but its length is changed.
        needed = 0.8 * np.sum(scaled[1:] ** 2, axis=1)
        missing = needed - scaled[1:] @ scaled[0]
        solution, _ = nnls(np.vstack([scaled[1:].T, missing]), np.append(np.zeros(4), 1.0))
        expected = scaled[0] + scaled[1:].T @ solution / (1.0 - missing @ solution)
        expected *= np.linalg.norm(rows[0]) / np.linalg.norm(expected)
        np.testing.assert_allclose(direction, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_arguments_may_be_traced():
    gramian = jnp.float32(ROWS @ ROWS.T)

    def weights(priority, tau, beta):
        method = pcd(priority=priority, tau=tau, beta=beta)
        return method.update(gramian, method.init(2))[0]

    together = jax.jit(jax.vmap(weights))(jnp.array([0, 1]), jnp.array([0.5, 1.0]), jnp.array([0.0, 0.9]))
    np.testing.assert_allclose(together[0], weights(0, 0.5, 0.0), rtol=1e-5)
    np.testing.assert_allclose(together[1], weights(1, 1.0, 0.9), rtol=1e-5)
