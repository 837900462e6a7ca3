"""The methods on the bargaining fixed point: golden values, identities, limits, scores, mistakes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_gramian.consmtl import consmtl
from mtljax.methods.from_gramian.fairgrad import fairgrad
from mtljax.methods.from_gramian.nash_mtl import nash_mtl
from mtljax.methods.from_gramian.pivrg import pivrg
from tests.methods.steps.bargaining import CLIPPED, FAIR, METHODS, power, random_rows
from tests.methods.steps.padded import SLOTS, step, weights_of

ROWS = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], np.float32)


@pytest.mark.parametrize(
    ("method", "direction"),
    [
        (METHODS["nash_mtl"], [0.07658, 0.99853, 0.99853]),
        (CLIPPED, np.array([0.07658, 0.99853, 0.99853]) / np.sqrt(2.0)),
        (FAIR[1.0], [0.07658, 0.99853, 0.99853]),
        (FAIR[0.0], [2.0, 2.0, 2.0]),
    ],
)
def test_golden_values(method, direction):
    np.testing.assert_allclose(weights_of(method, ROWS) @ ROWS, direction, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_state_and_form(name):
    method = METHODS[name]
    assert (method.name, method.reads, method.weigh_tasks) == (name, "gramian", name == "nash_mtl")
    state = method.init(3, shared={"w": jax.ShapeDtypeStruct((2,), jnp.float32)})
    assert state.weights.tolist() == pytest.approx([1 / 3] * 3) and state.residual == 0
    weights, after = step(method, random_rows(3))
    assert weights.dtype == after.weights.dtype == after.residual.dtype == jnp.float32
    np.testing.assert_array_equal(weights, after.weights[:3])
    assert jax.tree.structure(after) == jax.tree.structure(state) and 0 <= after.residual < 1e-3


def test_head_policy_is_an_argument():
    for make in (nash_mtl, fairgrad, pivrg, consmtl):
        assert make(weigh_tasks=True).weigh_tasks and not make(weigh_tasks=False).weigh_tasks


@pytest.mark.parametrize("name", METHODS)
def test_inactive_is_absent(name):
    method, rows = METHODS[name], random_rows(4, seed=2, size=8)
    first, apart = weights_of(method, rows), weights_of(method, rows, places=[1, 2, 5, 7])
    np.testing.assert_allclose(apart, first, rtol=1e-5)
    assert weights_of(method, rows, active=np.zeros(4, bool)).tolist() == [0.0] * 4


@pytest.mark.parametrize("name", METHODS)
def test_a_task_without_gradient_takes_no_part(name):
    rows = random_rows(3)
    rows[1] = 0
    weights, state = step(METHODS[name], rows)
    expected = weights_of(METHODS[name], rows[[0, 2]])
    np.testing.assert_allclose(np.asarray(weights)[[0, 2]], expected, rtol=1e-5)
    assert weights[1] == 0 and state.residual < 1e-3
    nothing = weights_of(METHODS[name], np.zeros((3, 2)))
    assert nothing.tolist() == [0.0] * 3


def test_scores_of_absent_tasks_do_not_count():
    rows, scores = random_rows(3, seed=4), np.array([30.0, 1.0, 0.0])
    spread = np.full(SLOTS, np.nan, np.float32)
    spread[[1, 4, 5]] = scores
    found = weights_of(METHODS["pivrg"], rows, places=[1, 4, 5], scores=spread)
    gains = rows.astype(float) @ (found @ rows)
    np.testing.assert_allclose(gains, np.sqrt(power(scores) / found), rtol=1e-3)


def test_stationary_points_are_said():
    rows = np.array([[1.0, 2.0], [-2.0, -4.0]], np.float32)
    for method in METHODS.values():
        weights, state = step(method, rows)
        assert state.residual == 1 and np.isfinite(weights).all()
        assert np.linalg.norm(np.asarray(weights, float) @ rows) < 1e-2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nash_mtl(max_norm=0), "nash_mtl: max_norm must be above 0, found 0"),
        (lambda: fairgrad(-1.0), "fairgrad: alpha must be at least 0, found -1"),
        (lambda: pivrg(bound=1.0), "pivrg: bound must be above 1, found 1"),
        (lambda: pivrg(min_temperature=0.0), "pivrg: min_temperature must be above 0, found 0"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_scores_of_another_number_of_tasks():
    method = pivrg()
    with pytest.raises(ValueError, match=r"pivrg: scores must be of shape \[2\], found an array of shape \(3,\)"):
        method.update(jnp.eye(2), method.init(2), scores=jnp.ones(3))


@pytest.mark.parametrize("name", METHODS)
def test_a_gramian_of_another_number_of_tasks(name):
    with pytest.raises(ValueError, match=rf"{name}: gramian must be of shape \(2, 2\).*2 tasks"):
        METHODS[name].update(jnp.eye(3), METHODS[name].init(2))
