"""Total variation along the tasks: its optimality conditions, runs that are equal to the bit, its own derivative."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtljax.penalties.fused import fused, total_variation_prox
from mtljax.penalties.temporal_group_lasso import temporal_group_lasso

# Swept over strengths: [T, p], [S] -> [S, T, p].
denoised = jax.jit(jax.vmap(total_variation_prox, (None, 0)))


def violation(x, y, strength):
    """How far x is from `x - y + strength * (differences of signs of jumps) = 0`, the sign of no jump in [-1, 1]."""
    pull = np.cumsum(x - y, 0)  # at t: strength times the sign of the jump from t to t + 1, and 0 at the end
    signs = np.sign(x[1:] - x[:-1])
    inner = np.where(signs, np.abs(pull[:-1] - strength * signs), np.maximum(np.abs(pull[:-1]) - strength, 0.0))
    return max(np.abs(pull[-1]).max(), inner.max(initial=0.0))


KINDS = {
    "normal": lambda random, shape: random.normal(size=shape),
    "walks": lambda random, shape: np.cumsum(random.normal(size=shape), 0),
    "integers": lambda random, shape: 1.0 * random.integers(-2, 3, shape),
    "steps": lambda random, shape: np.repeat(random.normal(size=(shape[0] // 4 + 1, *shape[1:])), 4, 0)[: shape[0]],
    "powers": lambda random, shape: 10.0 ** np.arange(shape[0])[:, None] * random.choice([-1, 1], shape),
}


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(list(KINDS)))
def test_total_variation_meets_its_optimality_conditions(seed, kind):
    y, strengths = KINDS[kind](np.random.default_rng(seed), (7, 16)), np.array([0, 1e-3, 0.25, 0.5, 1, 1e3])
    with jax.enable_x64(True):
        found = np.asarray(denoised(y, strengths))
    for strength, x in zip(strengths, found, strict=True):
        assert violation(x, y, strength) <= 1e-13 * (np.abs(y).max() + strength)


@pytest.mark.slow
def test_total_variation_of_a_hundred_tasks():
    random = np.random.default_rng(0)
    y = np.concatenate([KINDS[kind](random, (128, 8)) for kind in ("normal", "walks", "integers", "steps")], 1)
    strengths = np.array([0.0, 0.01, 1.0, 30.0])
    with jax.enable_x64(True):
        found = np.asarray(denoised(y, strengths))
    for strength, x in zip(strengths, found, strict=True):
        assert violation(x, y, strength) <= 1e-12 * np.abs(y).max() + 1e-12


def test_runs_are_equal_to_the_bit_and_equal_tasks_stay_as_they_are():
    y = np.random.default_rng(1).normal(size=(7, 16))
    y[:, 0] = 1e5 / 3
    with jax.enable_x64(True):
        found = np.asarray(denoised(y, np.array([0.0, 1e-20, 0.25, 0.5, 1, 1e30])))
    nothing, slightly, some, everything = found[[0, 1, 3, 5]]
    np.testing.assert_array_equal(nothing, y)
    np.testing.assert_allclose(slightly, y, atol=1e-15, rtol=1e-15)
    assert 0 < (some[1:, 1:] == some[:-1, 1:]).mean() < 1
    assert (everything == everything[:1]).all()
    np.testing.assert_allclose(everything[0], y.mean(0), rtol=1e-13, atol=1e-15)
    for x in (slightly, some, everything):
        np.testing.assert_array_equal(x[:, 0], y[:, 0])


def test_one_task_has_no_jumps():
    y = np.array([[0.1, -2.0]], np.float32)
    np.testing.assert_array_equal(jax.jit(fused(9.0).prox)(y, 2.0), y)


def test_the_temporal_prox_ends_for_many_groups_in_float32():
    # Groups just above the threshold, whose equations float32 solves to rounding and no better.
    v = np.random.default_rng(0).normal(size=(4, 20_000))
    v = (v / np.linalg.norm(v, axis=0, keepdims=True) * np.linspace(1.0001, 2, 20_000)[None, :]).astype(np.float32)
    x = np.asarray(jax.jit(temporal_group_lasso(1.0, 50.0, 1.0).prox)(v, 1.0), np.float64)
    length, curvature = np.linalg.norm(x, axis=0, keepdims=True), np.diff(np.eye(4), axis=0)
    assert (length > 0).all()
    left = 3 * x + 100 * curvature.T @ curvature @ x + x / length - v
    assert np.abs(left).max() < 3e-5  # the matrix has norm 350: this is the rounding of x


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [lambda s: fused(s, sparse=0.1, joint=0.2), lambda s: temporal_group_lasso(0.3, s, 0.4, per=())],
    ids=["fused", "temporal"],
)
def test_the_prox_itself_has_a_derivative(make):
    random = np.random.default_rng(3)
    v, moved, towards = random.normal(size=(3, 4, 5))

    def projected(v, s):
        return jnp.vdot(make(s).prox(v, 0.5), towards)

    with jax.enable_x64(True):
        value_and_slopes = jax.jit(jax.value_and_grad(projected, (0, 1)))
        _, (slope, slope_s) = value_and_slopes(v, 0.6)
        ahead, behind = (value_and_slopes(v + sign * 1e-6 * moved, 0.6 + sign * 1e-6)[0] for sign in (1, -1))
        assert np.vdot(slope, moved) + slope_s == pytest.approx(float(ahead - behind) / 2e-6, rel=1e-7)
        assert np.isfinite(value_and_slopes(0 * v, 0.6)[1][0]).all()
