"""The methods on the bargaining fixed point: golden values, identities, limits, scores, mistakes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_gramian.consmtl import consmtl
from mtljax.methods.from_gramian.fairgrad import fairgrad
from mtljax.methods.from_gramian.mgda import mgda
from mtljax.methods.from_gramian.nash_mtl import nash_mtl
from mtljax.methods.from_gramian.pivrg import PivrgState, pivrg
from tests.methods.padded_steps import SLOTS, step, weights_of

ROWS = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], np.float32)
METHODS = {"nash_mtl": nash_mtl(), "fairgrad": fairgrad(), "pivrg": pivrg(), "consmtl": consmtl()}
CLIPPED = nash_mtl(max_norm=1.0)
FAIR = {alpha: fairgrad(alpha) for alpha in (0.0, 1e-3, 0.5, 2.0, 200.0)} | {1.0: METHODS["fairgrad"]}


def random_rows(num_tasks, seed=0, size=6):
    return np.random.default_rng(seed).normal(size=(num_tasks, size)).astype(np.float32)


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


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_equation_of_fairgrad_holds(alpha):
    rows = random_rows(4, seed=3)
    weights = weights_of(FAIR[alpha], rows)
    np.testing.assert_allclose(rows.astype(float) @ (weights @ rows), weights ** (-1 / alpha), rtol=1e-4)


def test_nash_is_fairgrad_at_one_and_consmtl_at_two():
    rows = random_rows(5, seed=1)
    np.testing.assert_array_equal(weights_of(METHODS["nash_mtl"], rows), weights_of(FAIR[1.0], rows))
    np.testing.assert_array_equal(weights_of(METHODS["consmtl"], rows), weights_of(FAIR[2.0], rows))
    np.testing.assert_allclose(weights_of(METHODS["pivrg"], rows), weights_of(METHODS["consmtl"], rows), rtol=1e-5)


def test_limits_of_fairgrad():
    agreeing = np.abs(random_rows(4, seed=2))
    np.testing.assert_allclose(weights_of(FAIR[1e-3], agreeing), 1.0, atol=0.02)
    assert weights_of(FAIR[0.0], agreeing).tolist() == [1.0] * 4
    rows = random_rows(4, seed=2)
    fair, shortest = weights_of(FAIR[200.0], rows) @ rows, weights_of(mgda(), rows) @ rows
    assert fair @ shortest / np.linalg.norm(fair) / np.linalg.norm(shortest) > 1 - 1e-3


def test_nash_does_not_see_the_scale_of_a_loss():
    rows = random_rows(4, seed=5)
    scales = np.array([1e-3, 1.0, 7.0, 1e3], np.float32)
    direction = weights_of(METHODS["nash_mtl"], rows) @ rows
    np.testing.assert_allclose(
        weights_of(METHODS["nash_mtl"], scales[:, None] * rows) @ (scales[:, None] * rows), direction, atol=1e-5
    )
    assert np.linalg.norm(direction) == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e3, 1e12])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_degree_under_scaling(alpha, scale):
    rows, method = random_rows(4, seed=1), FAIR[alpha]
    plain = weights_of(method, rows) @ rows
    scaled = weights_of(method, np.float32(scale) * rows) @ (scale * rows.astype(float))
    np.testing.assert_allclose(scaled / scale ** ((1 - alpha) / (1 + alpha)), plain, rtol=1e-3, atol=1e-4)


def test_clipping():
    rows = random_rows(4, seed=1)
    for scale in (1e-10, 1.0, 1e10):
        scaled = np.float32(scale) * rows
        found = weights_of(CLIPPED, scaled) @ scaled.astype(float)
        assert np.linalg.norm(found) == pytest.approx(1.0, rel=1e-4)
    roomy = nash_mtl(max_norm=2.5)
    np.testing.assert_array_equal(weights_of(roomy, rows), weights_of(METHODS["nash_mtl"], rows))


@pytest.mark.parametrize("name", METHODS)
def test_inactive_is_absent(name):
    method, rows = METHODS[name], random_rows(4, seed=2, size=8)
    first, apart = weights_of(method, rows), weights_of(method, rows, places=[1, 2, 5, 7])
    np.testing.assert_allclose(apart, first, rtol=1e-5)
    assert weights_of(method, rows, active=np.zeros(4, bool)).tolist() == [0.0] * 4


def test_alpha_zero_leaves_inactive_out():
    active = [True, False, True]
    assert weights_of(FAIR[0.0], random_rows(3), active=active).tolist() == [1.0, 0.0, 1.0]


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


def power(scores, bound=2.0, least=10.0):
    scores = np.asarray(scores, float)
    temperature = max((scores.max() - scores.min()) / np.log(bound), least)
    powers = np.exp((scores - scores.max()) / temperature)
    return len(scores) * powers / powers.sum()


def test_scores_of_pivrg_are_kept():
    rows = random_rows(SLOTS, seed=4, size=16)
    whole = rows.astype(float) @ rows.T.astype(float)
    update = jax.jit(METHODS["pivrg"].update)

    def check(weights, omega):
        weights = np.asarray(weights, float)
        np.testing.assert_allclose(whole @ weights, np.sqrt(omega / weights), rtol=1e-3)

    state = METHODS["pivrg"].init(SLOTS)
    first, state = update(jnp.asarray(whole, jnp.float32), state)
    check(first, np.ones(SLOTS))
    scores = np.linspace(30.0, -5.0, SLOTS, dtype=np.float32)
    assert power(scores).max() / power(scores).min() == pytest.approx(2.0)
    second, state = update(jnp.asarray(whole, jnp.float32), state, scores=scores)
    check(second, power(scores))
    third, _ = update(jnp.asarray(whole, jnp.float32), state)
    np.testing.assert_array_equal(third, second)
    by_hand, _ = update(jnp.asarray(whole, jnp.float32), state._replace(inner=PivrgState(jnp.asarray(scores))))
    np.testing.assert_array_equal(by_hand, second)
    # Scores within the least temperature hardly matter.
    close = np.linspace(0.0, 1.0, SLOTS, dtype=np.float32)
    check(update(jnp.asarray(whole, jnp.float32), state, scores=close)[0], power(close))


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


def test_mistakes():
    with pytest.raises(ValueError, match="nash_mtl: max_norm must be above 0, found 0"):
        nash_mtl(max_norm=0)
    with pytest.raises(ValueError, match="fairgrad: alpha must be at least 0, found -1"):
        fairgrad(-1.0)
    with pytest.raises(ValueError, match="pivrg: bound must be above 1, found 1"):
        pivrg(bound=1.0)
    with pytest.raises(ValueError, match="pivrg: min_temperature must be above 0, found 0"):
        pivrg(min_temperature=0.0)
    method = pivrg()
    with pytest.raises(ValueError, match=r"pivrg: scores must be of shape \[2\], found an array of shape \(3,\)"):
        method.update(jnp.eye(2), method.init(2), scores=jnp.ones(3))
    for name, method in METHODS.items():
        with pytest.raises(ValueError, match=rf"{name}: gramian must be of shape \(2, 2\).*2 tasks"):
            method.update(jnp.eye(3), method.init(2))
