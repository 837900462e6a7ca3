"""Learned task relations against matrices inverted, square roots taken, and turns taken, in float64."""

from __future__ import annotations

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from mtljax.penalties.learned_relation import learned_relation, relation, task_covariance

TASKS, STRENGTH = 3, 0.7
WEIGHTS = {
    "generic": np.random.default_rng(0).normal(size=(TASKS, 5)),
    "related": np.array([[1.0, 2, 0, 1, 0], [1.1, 1.9, 0.2, 1, 0], [-1, -2, 0.1, -1, 0.1]]),
    "equal values": np.eye(TASKS, 5) * 1.3,
    "equal tasks": np.ones((TASKS, 5)),
    "zero": np.zeros((TASKS, 5)),
}
DIRECTION = np.random.default_rng(1).normal(size=(TASKS, 5))
OMEGA = np.array([[0.5, 0.2, -0.1], [0.2, 0.3, 0.0], [-0.1, 0.0, 0.2]])
over_weights = pytest.mark.parametrize("name", WEIGHTS)


def split(matrix):
    return {"b": jnp.asarray(matrix[:, 4]), "w": jnp.asarray(matrix[:, :4].reshape(TASKS, 2, 2))}


def flat(stacked):
    return np.concatenate([np.reshape(stacked["w"], (TASKS, 4)), np.asarray(stacked["b"])[:, None]], 1)


@jax.jit
def compiled(w, omega, step_size):
    learned, given = learned_relation(STRENGTH), relation(omega, STRENGTH)
    return {
        "learned": jax.value_and_grad(learned.value)(w),
        "learned prox": learned.prox(w, step_size),
        "given": jax.value_and_grad(given.value)(w),
        "given prox": given.prox(w, step_size),
        "covariance": task_covariance(w),
        # Learned inside of the loss, where it must be a constant.
        "best": jax.value_and_grad(lambda w: relation(task_covariance(w), STRENGTH)(w))(w),
    }


def evaluated(matrix, *, omega=OMEGA, step_size=0.4):
    with jax.enable_x64(True):
        arguments = (jnp.asarray(x, jnp.float64) for x in (omega, step_size))
        return jax.tree.map(np.asarray, compiled(split(matrix), *arguments))


@over_weights
def test_learned_value_is_the_squared_trace_norm(name):
    values = np.linalg.svd(WEIGHTS[name], compute_uv=False)
    value, gradient = evaluated(WEIGHTS[name])["learned"]
    assert value == pytest.approx(STRENGTH * values.sum() ** 2, rel=1e-13)
    left, values, right = np.linalg.svd(WEIGHTS[name], full_matrices=False)
    expected = 2 * STRENGTH * values.sum() * (left * (values > 1e-12)[None, :]) @ right
    np.testing.assert_allclose(flat(gradient), expected, atol=1e-12)


def test_learned_value_is_the_minimum_over_omega():
    omega = cp.Variable((TASKS, TASKS), PSD=True)
    objective = cp.Minimize(cp.matrix_frac(WEIGHTS["generic"], omega))
    least = cp.Problem(objective, [cp.trace(omega) == 1]).solve(solver="CLARABEL")
    found = evaluated(WEIGHTS["generic"])
    assert found["learned"][0] == pytest.approx(STRENGTH * least, rel=1e-6)
    np.testing.assert_allclose(found["covariance"], omega.value, atol=1e-4)  # the minimum is flat


@over_weights
def test_the_covariance_is_a_square_root_of_trace_one(name):
    covariance = evaluated(WEIGHTS[name])["covariance"]
    if name == "zero":
        expected = np.eye(TASKS) / TASKS
    else:
        root = np.real(scipy.linalg.sqrtm(WEIGHTS[name] @ WEIGHTS[name].T))
        expected = root / np.trace(root)
    np.testing.assert_allclose(covariance, expected, atol=2e-8)  # sqrtm's own error where it is singular
    np.testing.assert_array_equal(covariance, covariance.T)


@over_weights
def test_the_best_relation_costs_what_the_learned_one_does_and_pulls_the_same_way(name):
    found = evaluated(WEIGHTS[name])
    assert found["best"][0] == pytest.approx(found["learned"][0], rel=1e-12)
    # Of rounding in forbidden directions, sqrt(eps) = 1.5e-8 is left.
    np.testing.assert_allclose(flat(found["best"][1]), flat(found["learned"][1]), atol=1e-7)


def test_taking_turns_ends_where_the_learned_prox_is():
    """The minimum over X and Omega of `1/2 |X - V|^2 + s tr(X^T Omega^-1 X)`: in turns, or Omega minimised out."""
    target, step_size = WEIGHTS["generic"], 0.05
    x = target
    for _ in range(60):
        x = flat(evaluated(target, omega=evaluated(x)["covariance"], step_size=step_size)["given prox"])
    np.testing.assert_allclose(x, flat(evaluated(target, step_size=step_size)["learned prox"]), atol=1e-9)


@over_weights
@pytest.mark.parametrize("step_size", [0.0, 0.02, 0.4, 1e6])
def test_learned_prox_lowers_singular_values_to_its_own_threshold(name, step_size):
    left, values, right = np.linalg.svd(WEIGHTS[name], full_matrices=False)
    prox = flat(evaluated(WEIGHTS[name], step_size=step_size)["learned prox"])
    lowered = np.linalg.svd(prox, compute_uv=False)
    # Stationary: what is left lost 2 s strength |X|_*, what is gone was no more than that.
    threshold = 2 * step_size * STRENGTH * lowered.sum()
    np.testing.assert_allclose(lowered, np.maximum(values - threshold, 0.0), atol=1e-9 * max(1.0, step_size))
    np.testing.assert_allclose(prox, (left * lowered[None, :]) @ right, atol=1e-9)


def test_a_given_relation_is_its_inverse_written_out():
    w, found = WEIGHTS["generic"], evaluated(WEIGHTS["generic"])
    inverse = np.linalg.inv(OMEGA)
    value, gradient = found["given"]
    assert value == pytest.approx(STRENGTH * np.trace(w.T @ inverse @ w), rel=1e-12)
    np.testing.assert_allclose(flat(gradient), 2 * STRENGTH * inverse @ w, atol=1e-12)
    expected = np.linalg.solve(np.eye(TASKS) + 2 * 0.4 * STRENGTH * inverse, w)
    np.testing.assert_allclose(flat(found["given prox"]), expected, atol=1e-13)


def test_unrelated_tasks_have_a_ridge():
    w = WEIGHTS["generic"]
    found = evaluated(w, omega=np.eye(TASKS) / TASKS)
    assert found["given"][0] == pytest.approx(STRENGTH * TASKS * np.sum(w**2), rel=1e-13)


def test_a_singular_relation_forbids_what_it_does_not_allow():
    alike = np.full((TASKS, TASKS), 1 / TASKS)
    allowed, forbidden = np.ones((TASKS, 5)), np.eye(TASKS, 5) - 1 / TASKS
    value, gradient = evaluated(allowed, omega=alike)["given"]
    assert value == pytest.approx(STRENGTH * np.sum(allowed**2), rel=1e-12)
    np.testing.assert_allclose(flat(gradient), 2 * STRENGTH * allowed, atol=1e-7)
    assert evaluated(forbidden, omega=alike)["given"][0] > 1e7
    prox = flat(evaluated(allowed + forbidden, omega=alike, step_size=1.0)["given prox"])
    np.testing.assert_allclose(prox, np.broadcast_to(prox.mean(0), prox.shape), atol=1e-7)


def test_half_precision_keeps_its_dtype_and_sums_in_float32():
    w, penalty = jax.ShapeDtypeStruct((TASKS, 5), jnp.bfloat16), relation(OMEGA)
    value, gradient = jax.eval_shape(jax.value_and_grad(penalty.value), w)
    prox, covariance = jax.eval_shape(lambda w: (penalty.prox(w, 0.1), task_covariance(w)), w)
    assert (value.dtype, gradient.dtype, prox.dtype) == (jnp.float32, jnp.bfloat16, jnp.bfloat16)
    assert covariance.dtype == jnp.float32


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: learned_relation(-1.0), ValueError, "learned_relation: strength must be at least 0, found -1.0"),
        (lambda: relation(np.ones((2, 3))), ValueError, "relation: omega must have shape [T, T], found (2, 3)"),
        (lambda: relation(np.full((2, 2), np.nan)), ValueError, "relation: omega must be finite"),
        (lambda: relation(np.zeros((2, 2))), ValueError, "relation: omega must not be zero, found"),
        (
            lambda: relation(np.array([[1.0, 0.5], [0.0, 1.0]])),
            ValueError,
            "relation: omega must be symmetric, found 0.5 at [0, 1] but 0.0 at [1, 0]",
        ),
        (
            lambda: relation(np.array([[0.0, 1.0], [1.0, 0.0]])),
            ValueError,
            "relation: omega must be positive semidefinite, found the eigenvalue -1.0",
        ),
        (
            lambda: relation(np.eye(3))(jnp.ones((2, 4))),
            ValueError,
            "relation: the relation is between 3 tasks, but leaf  stacks 2",
        ),
        (lambda: relation(np.eye(2)).prox(jnp.ones(2), -1.0), ValueError, "relation: step_size must be at least 0"),
        (lambda: task_covariance(jnp.ones(2, int)), TypeError, "task_covariance: leaf  must be of a floating-point"),
        (lambda: task_covariance({}), ValueError, "stacked must be a tree with leaves"),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
