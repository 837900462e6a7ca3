"""IMTL-G, Aligned-MTL, ConFIG, NTKMTL and Krum: golden values, their own equations, missing tasks, mistakes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_gramian import config_lengths as lengths
from mtljax.methods.from_gramian.aligned_mtl import aligned_mtl
from mtljax.methods.from_gramian.config import config
from mtljax.methods.from_gramian.imtl_g import imtl_g
from mtljax.methods.from_gramian.krum import krum
from mtljax.methods.from_gramian.ntkmtl import ntkmtl
from mtljax.solvers.spectral import mean, median
from tests.methods.padded_steps import step, weights_of

ROWS = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], np.float32)
METHODS = {
    "imtl_g": imtl_g(),
    "aligned_mtl": aligned_mtl(),
    "config": config(),
    "ntkmtl": ntkmtl(),
    "krum": krum(),
}
MEAN = aligned_mtl(mean=True)
SHORTEST = config(length=lengths.track_min)


def random_rows(num_tasks, seed=0, size=8):
    return np.random.default_rng(seed).normal(size=(num_tasks, size)).astype(np.float32)


@pytest.mark.parametrize(
    ("method", "direction"),
    [
        (METHODS["imtl_g"], [0.0767, 1.0, 1.0]),
        (METHODS["aligned_mtl"], [0.4266, 1.9347, 1.9347]),
        (MEAN, [0.2133, 0.9673, 0.9673]),
        (aligned_mtl(preference=[0.5] * 8), [0.2133, 0.9673, 0.9673]),
        (METHODS["config"], [0.1588, 2.0706, 2.0706]),
    ],
)
def test_golden_values(method, direction):
    np.testing.assert_allclose(weights_of(method, ROWS) @ ROWS, direction, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_state_and_form(name):
    method = METHODS[name]
    assert (method.name, method.reads, method.weigh_tasks) == (name, "gramian", False)
    state = method.init(4, shared={"w": jax.ShapeDtypeStruct((2,), jnp.float32)})
    assert state.weights.tolist() == [0.25] * 4 and state.residual == 0 and state.inner == ()
    weights, after = step(method, random_rows(4))
    assert weights.dtype == after.weights.dtype == after.residual.dtype == jnp.float32
    assert not after.weights.weak_type and 0 <= after.residual < 1e-4
    np.testing.assert_array_equal(weights, after.weights[:4])


def test_head_policy_is_an_argument():
    for make in (imtl_g, aligned_mtl, config, ntkmtl, krum):
        assert make(weigh_tasks=True).weigh_tasks


@pytest.mark.parametrize("name", METHODS)
def test_one_task_is_plain_descent(name):
    method = METHODS[name]
    assert weights_of(method, [[2.0, 1.0]]) == pytest.approx(1.0, abs=1e-6)
    alone = weights_of(method, random_rows(4), active=[False, True, False, False])
    np.testing.assert_allclose(alone, [0.0, 1.0, 0.0, 0.0], atol=1e-6)
    assert weights_of(method, random_rows(4), active=np.zeros(4, bool)).tolist() == [0.0] * 4


@pytest.mark.parametrize("name", METHODS)
def test_inactive_is_absent(name):
    method, rows = METHODS[name], random_rows(5, seed=2)
    first, apart = weights_of(method, rows), weights_of(method, rows, places=[1, 2, 4, 6, 7])
    np.testing.assert_allclose(apart, first, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e3, 1e12])
def test_weights_do_not_depend_on_scale(name, scale):
    method, rows = METHODS[name], random_rows(4, seed=1)
    plain = weights_of(method, rows)
    np.testing.assert_allclose(weights_of(method, np.float32(scale) * rows), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_tasks_without_gradient(name):
    method, rows = METHODS[name], random_rows(5)
    rows[2] = 0
    assert np.isfinite(weights_of(method, rows)).all()
    assert np.isfinite(weights_of(method, np.zeros((4, 2)))).all()
    if name in ("imtl_g", "config", "ntkmtl"):
        np.testing.assert_allclose(
            weights_of(method, rows), np.insert(weights_of(method, rows[[0, 1, 3, 4]]), 2, 0), rtol=1e-4
        )


def test_imtl_g_projects_alike_and_sums_to_one():
    for seed in range(3):
        rows = random_rows(5, seed) * np.array([5.0, 1.0, 1.0, 1.0, 1.0], np.float32)[:, None]
        weights = weights_of(METHODS["imtl_g"], rows)
        gains = rows @ (weights @ rows) / np.linalg.norm(rows, axis=1)
        assert weights.sum() == pytest.approx(1.0, abs=1e-4)
        np.testing.assert_allclose(gains, gains.mean(), rtol=1e-3)


def test_singular_gramians():
    rows = random_rows(4)
    twice = np.vstack([rows, 2 * rows[:1]])
    for method in (METHODS["imtl_g"], SHORTEST):
        once = weights_of(method, rows) @ rows
        again = weights_of(method, twice) @ twice
        cosine = once @ again / np.linalg.norm(once) / np.linalg.norm(again)
        assert cosine == pytest.approx(1.0, abs=1e-5)
    opposed = np.array([[1.0, 2.0], [-1.0, -2.0]], np.float32)
    for method in (METHODS["imtl_g"], METHODS["config"]):
        weights, state = step(method, opposed)
        assert weights.tolist() == [0.0, 0.0] and state.residual == 1


def test_imtl_g_without_a_sum():
    """Weights that cancel cannot be scaled to sum 1, nor may what rounding left of their sum be."""
    unit = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.6, np.sqrt(0.28)]])
    amounts = np.linalg.solve(unit @ unit.T, np.ones(3))
    lengths_of = np.array([1.0, 1.0, 0.25])
    assert np.sum(amounts / lengths_of) == pytest.approx(0.0, abs=1e-12)
    weights, state = step(METHODS["imtl_g"], lengths_of[:, None] * unit)
    assert weights.tolist() == [0.0] * 3 and state.residual == 1


@pytest.mark.parametrize(("level", "size"), [(median, np.median), (mean, np.mean)])
def test_levels_of_aligned_mtl(level, size):
    rows = random_rows(5, seed=3)
    values, vectors = np.linalg.eigh(rows.astype(float) @ rows.T.astype(float))
    expected = np.sqrt(size(values)) * (vectors / np.sqrt(values)) @ vectors.T @ np.ones(5)
    np.testing.assert_allclose(weights_of(aligned_mtl(level=level), rows), expected, rtol=1e-4)


def test_preference_of_aligned_mtl_and_mean():
    rows, share = random_rows(3), [1.0, 0.0, 3.0]
    shares = [*share, 9.0, 9.0, 9.0, 9.0, 9.0]
    values, vectors = np.linalg.eigh(rows.astype(float) @ rows.T.astype(float))
    expected = np.sqrt(values[0]) * (vectors / np.sqrt(values)) @ vectors.T @ np.array(share)
    np.testing.assert_allclose(weights_of(aligned_mtl(preference=shares), rows), expected, rtol=1e-4)
    active = [True, False, True]
    halves = weights_of(MEAN, rows, active=active)
    np.testing.assert_allclose(2 * halves, weights_of(METHODS["aligned_mtl"], rows, active=active), rtol=1e-6)


LENGTHS = {
    "projection": (METHODS["config"], lambda n: n),
    "track_min": (SHORTEST, np.min),
    "track_max": (config(length=lengths.track_max), np.max),
    "track_harmonic": (config(length=lengths.track_harmonic), lambda n: len(n) / np.sum(1 / n)),
    "track_arithmetic": (config(length=lengths.track_arithmetic), np.mean),
    "track_geometric": (config(length=lengths.track_geometric), lambda n: np.prod(n) ** (1 / len(n))),
    "track_task": (config(length=lengths.track_task(1)), lambda n: n[1]),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_length_models_of_config(name):
    method, tracked = LENGTHS[name]
    rows = random_rows(4, seed=2).astype(float) * np.array([1.0, 3.0, 0.5, 20.0])[:, None]
    norms = np.linalg.norm(rows, axis=1)
    unit = rows / norms[:, None]
    direction = np.linalg.pinv(unit) @ np.ones(4)
    direction /= np.linalg.norm(direction)
    expected = np.sum(tracked(norms) * (unit @ direction)) * direction
    np.testing.assert_allclose(weights_of(method, rows) @ rows, expected, rtol=1e-4, atol=1e-4)
    # A task without gradient and one that is absent leave the length alone.
    more = np.insert(rows, 2, 0.0, axis=0)
    np.testing.assert_allclose(weights_of(method, more) @ more, expected, rtol=1e-4, atol=1e-4)


def test_preference_of_config_sets_the_angles():
    rows, share = random_rows(3), np.array([1.0, 2.0, 4.0])
    direction = weights_of(config(preference=[*share, 9.0, 9.0, 9.0, 9.0, 9.0]), rows) @ rows
    cosines = rows @ direction / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(cosines / cosines[0], share, rtol=1e-4)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_ntkmtl_by_hand(exponent):
    rows = random_rows(4) * np.array([1.0, 1e-3, 10.0, 1.0], np.float32)[:, None]
    squares = np.sum(rows.astype(float) ** 2, axis=1)
    np.testing.assert_allclose(weights_of(ntkmtl(exponent), rows), (squares.sum() / squares) ** exponent, rtol=1e-5)
    balanced = weights_of(METHODS["ntkmtl"], rows) * np.sqrt(squares)
    np.testing.assert_allclose(balanced, balanced[0], rtol=1e-5)


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize(("faulty", "selected"), [(0, 1), (1, 2), (2, 3)])
def test_krum_by_hand(faulty, selected, squared):
    for seed in range(4):
        rows = random_rows(7, seed)
        rows[seed] += 30.0
        distances = np.sum((rows[:, None] - rows[None, :]) ** 2, axis=-1) ** (1.0 if squared else 0.5)
        nearest = np.sort(distances, axis=1)[:, 1 : 1 + 7 - faulty - 2]
        expected = np.zeros(7)
        expected[np.argsort(nearest.sum(1))[:selected]] = 1.0 / selected
        method = krum(faulty, n_selected=selected, squared=squared)
        np.testing.assert_allclose(weights_of(method, rows), expected, rtol=1e-6)
        assert expected[seed] == 0


def test_krum_with_few_tasks():
    method = krum(2, n_selected=3)
    np.testing.assert_allclose(weights_of(method, random_rows(2)), [0.5, 0.5])
    found = weights_of(method, random_rows(5), active=[True, False, True, False, False])
    np.testing.assert_allclose(found, [0.5, 0.0, 0.5, 0.0, 0.0])
    same = np.tile(random_rows(1), (5, 1))
    assert weights_of(METHODS["krum"], same).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_mistakes():
    with pytest.raises(ValueError, match=r"aligned_mtl: give either mean=True or a preference, found both"):
        aligned_mtl(mean=True, preference=[1.0])
    for make, name in ((aligned_mtl, "aligned_mtl"), (config, "config")):
        with pytest.raises(
            ValueError, match=rf"{name}: preference must be of shape \[T\], found an array of shape \(1, 2\)"
        ):
            make(preference=[[1.0, 2.0]])
        with pytest.raises(ValueError, match=rf"{name}: preference must be"):
            make(preference=[1.0, -2.0])
        with pytest.raises(ValueError, match=rf"{name}: preference must be of shape \[3\]"):
            make(preference=[1.0, 2.0]).init(3)
    with pytest.raises(ValueError, match="config: preference must be"):
        config(preference=[0.0, 0.0])
    with pytest.raises(ValueError, match="ntkmtl: exponent must be finite, found inf"):
        ntkmtl(float("inf"))
    with pytest.raises(TypeError, match=r"krum: n_byzantine must be an integer, found 0\.5"):
        krum(0.5)
    with pytest.raises(ValueError, match="krum: n_byzantine must be at least 0, found -1"):
        krum(-1)
    with pytest.raises(ValueError, match="krum: n_selected must be at least 1, found 0"):
        krum(n_selected=0)
    for name, method in METHODS.items():
        with pytest.raises(ValueError, match=rf"{name}: gramian must be of shape \(2, 2\).*2 tasks"):
            method.update(jnp.eye(3), method.init(2))
