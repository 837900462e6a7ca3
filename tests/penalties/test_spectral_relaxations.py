"""Clustered and alternating-structure penalties against the matrix M that they minimise over, found by other means."""

from __future__ import annotations

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtljax.penalties.alternating_structure import alternating_structure
from mtljax.penalties.clustered import clustered

TASKS, STEP = 5, 1e-5
# Two clusters and one task between them; equal singular values; fewer directions than clusters; equal tasks; nothing.
WEIGHTS = {
    "clusters": np.array([[2.0, 0.1, 0], [2.1, -0.1, 0.2], [0, 3.0, 0.1], [0.1, 2.9, -0.1], [1.0, 1.5, 1.0]]),
    "equal values": np.concatenate([1.5 * np.eye(3), np.zeros((2, 3))]),
    "one direction": np.outer([1.0, 2.0, -1.0, 0.0, 0.5], [1.0, 0.0, -2.0]),
    "equal tasks": np.ones((TASKS, 3)),
    "zero": np.zeros((TASKS, 3)),
}
DIRECTION = np.random.default_rng(1).normal(size=(TASKS, 3))
over_weights = pytest.mark.parametrize("name", WEIGHTS)


def split(matrix):
    return {"b": jnp.asarray(matrix[:, 2]), "w": jnp.asarray(matrix[:, :2])}


def flat(stacked):
    return np.concatenate([stacked["w"], np.asarray(stacked["b"])[:, None]], 1)


@jax.jit
def compiled(w, strength, eta, step_size):
    def value(w, eta):
        return clustered(2, strength, eta=eta)(w)

    found, (gradient, of_eta) = jax.value_and_grad(value, argnums=(0, 1))(w, eta)
    return {
        "value": found,
        "gradient": gradient,
        "of eta": of_eta,
        "prox": clustered(2, strength, eta=eta).prox(w, step_size),
        "ridge": clustered(4, strength, eta=eta)(w),
        "features": alternating_structure(2, strength, eta=eta)(w),
    }


def evaluated(matrix, *, strength=0.7, eta=0.6, step_size=0.4):
    with jax.enable_x64(True):
        arguments = (jnp.asarray(x, jnp.float64) for x in (strength, eta, step_size))
        return jax.tree.map(np.asarray, compiled(split(matrix), *arguments))


def minimized(matrix, dim, eta):
    """`min tr(matrix^T (eta I + M)^-1 matrix)` over `0 <= M <= I`, `tr M = dim`, by an interior-point method."""
    size = len(matrix)
    m = cp.Variable((size, size), symmetric=True)
    inverted = cp.matrix_frac(matrix, eta * np.eye(size) + m)
    problem = cp.Problem(cp.Minimize(inverted), [m >> 0, np.eye(size) - m >> 0, cp.trace(m) == dim])
    return problem.solve(solver="CLARABEL")


def memberships(values, dim, eta):
    """`m` with `m_i = clip(sigma_i / u - eta, 0, 1)` and `sum m = dim`, by bisection for u."""
    low, high = 0.0, values.max() / eta
    for _ in range(200):
        middle = 0.5 * (low + high)
        total = np.clip(values / middle - eta, 0, 1).sum() if middle > 0 else len(values)
        low, high = (middle, high) if total > dim else (low, middle)
    return np.clip(values / high - eta, 0, 1)


def test_clustered_by_hand():
    # Singular values sqrt(8), sqrt(2) and 0.1. At u = 0.5, sigma / u - 0.6 is above 1, above 1, below 0: m = (1, 1, 0).
    matrix = np.array([[2.0, 0, 0], [2.0, 0, 0], [0, 1.0, 0], [0, 1.0, 0], [0, 0, 0.1]])
    assert evaluated(matrix)["value"] == pytest.approx(0.7 * 0.6 * 1.6 * ((8 + 2) / 1.6 + 0.01 / 0.6), rel=1e-13)


@pytest.mark.parametrize("eta", [0.05, 0.6, 5.0])
@pytest.mark.parametrize("name", ["clusters", "equal values"])
def test_values_are_the_minimum_over_m_on_either_side(name, eta):
    matrix = WEIGHTS[name]
    found = evaluated(matrix, eta=eta)
    scale = 0.7 * eta * (1 + eta)
    assert found["value"] == pytest.approx(scale * minimized(matrix, 2, eta), rel=1e-6)
    assert found["features"] == pytest.approx(scale * minimized(matrix.T, 2, eta), rel=1e-6)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    eta=st.floats(1e-3, 1e3),
    scale=st.sampled_from([1e-8, 1.0, 1e8]),
    spread=st.sampled_from([0.0, 0.1, 1.0, 4.0]),
)
def test_values_and_prox_equal_bisection_for_the_multiplier(seed, eta, scale, spread):
    random = np.random.default_rng(seed)
    left, right = (np.linalg.qr(random.normal(size=(size, 3)))[0] for size in (TASKS, 3))
    values = scale * 10.0 ** -np.sort(random.uniform(0, spread, 3))
    found = evaluated((left * values[None, :]) @ right.T, eta=eta)
    members = memberships(values, 2, eta)
    expected = 0.7 * eta * (1 + eta) * np.sum(values**2 / (eta + members))
    assert found["value"] == pytest.approx(expected, rel=1e-9)
    assert found["value"] == pytest.approx(found["features"], rel=1e-12)
    stiffness = 2 * 0.4 * 0.7 * eta * (1 + eta)
    members = eta + memberships(values, 2, eta + stiffness)
    pulled = (left * (values * members / (members + stiffness))[None, :]) @ right.T
    np.testing.assert_allclose(flat(found["prox"]), pulled, atol=1e-9 * scale)


@over_weights
def test_gradients_equal_finite_differences(name):
    gradient = flat(evaluated(WEIGHTS[name])["gradient"])
    ahead, behind = (evaluated(WEIGHTS[name] + s * DIRECTION)["value"] for s in (STEP, -STEP))
    # Where some m_i leaves 0 or 1 the curvature jumps, and the difference is as good as the step.
    assert np.sum(gradient * DIRECTION) == pytest.approx((ahead - behind) / (2 * STEP), abs=2 * STEP)
    ahead, behind = (evaluated(WEIGHTS[name], eta=0.6 + s)["value"] for s in (STEP, -STEP))
    assert evaluated(WEIGHTS[name])["of eta"] == pytest.approx((ahead - behind) / (2 * STEP), rel=1e-8, abs=1e-12)


@over_weights
@pytest.mark.parametrize("step_size", [0.0, 0.4, 1e6])
def test_prox_is_where_its_objective_is_stationary(name, step_size):
    prox = flat(evaluated(WEIGHTS[name], step_size=step_size)["prox"])
    residual = prox - WEIGHTS[name] + step_size * flat(evaluated(prox)["gradient"])
    np.testing.assert_allclose(residual, 0.0, atol=1e-13 * max(1.0, step_size))


@over_weights
def test_as_many_clusters_as_directions_leave_a_ridge(name):
    matrix = WEIGHTS[name]
    assert evaluated(matrix)["ridge"] == pytest.approx(0.7 * 0.6 * np.sum(matrix**2), rel=1e-12)


def test_the_penalty_is_k_means_relaxed():
    """Never above k-means with a ridge, whatever the clusters; and for large eta at its spectral relaxation."""
    matrix = WEIGHTS["clusters"]
    member = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]])
    means = member.T @ (member @ matrix / member.sum(1)[:, None])
    for eta in (0.1, 1.0, 10.0):
        within = 0.7 * np.sum((matrix - means) ** 2) + 0.7 * eta * np.sum(matrix**2)
        assert evaluated(matrix, eta=eta)["value"] <= within
    smallest = np.linalg.svd(matrix, compute_uv=False)[2] ** 2
    relaxed = evaluated(matrix, eta=1e6)["value"] - 0.7e6 * np.sum(matrix**2)
    assert relaxed == pytest.approx(0.7 * smallest, rel=1e-3)


def test_half_precision_keeps_its_dtype_and_sums_in_float32():
    w = jnp.asarray(WEIGHTS["clusters"], jnp.bfloat16)
    value, gradient = jax.eval_shape(jax.value_and_grad(clustered(2).value), w)
    prox = jax.eval_shape(clustered(2).prox, w, 0.1)
    assert (value.dtype, gradient.dtype, prox.dtype) == (jnp.float32, jnp.bfloat16, jnp.bfloat16)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: clustered(2.0), TypeError, "clustered: num_clusters must be an integer, found 2.0"),
        (lambda: clustered(0), ValueError, "clustered: num_clusters must be at least 1, found 0"),
        (lambda: clustered(3)(jnp.ones((2, 4))), ValueError, "clustered: num_clusters must be at most 2, found 3"),
        (lambda: clustered(1, -1.0), ValueError, "clustered: strength must be at least 0"),
        (lambda: clustered(1, eta=0.0), ValueError, "clustered: eta must be above 0, found 0.0"),
        (lambda: clustered(1).prox(jnp.ones((2, 4)), -1.0), ValueError, "clustered: step_size must be at least 0"),
        (
            lambda: alternating_structure(3)({"w": jnp.ones((5, 1)), "b": jnp.ones(5)}),
            ValueError,
            "alternating_structure: dim must be at most 2, found 3",
        ),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
