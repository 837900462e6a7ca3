"""IMTL-G, Aligned-MTL, ConFIG, NTKMTL and Krum: golden values, their own equations, missing tasks, mistakes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_gramian.aligned_mtl import aligned_mtl
from mtljax.methods.from_gramian.config import config
from mtljax.methods.from_gramian.imtl_g import imtl_g
from mtljax.methods.from_gramian.krum import krum
from mtljax.methods.from_gramian.ntkmtl import ntkmtl
from tests.methods.steps.padded import step, weights_of
from tests.methods.steps.spectral import MEAN, METHODS, SHORTEST, random_rows

ROWS = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], np.float32)


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


@pytest.mark.parametrize("make", [aligned_mtl, config])
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda make: make(preference=[[1.0, 2.0]]), r"must be of shape \[T\], found an array of shape \(1, 2\)"),
        (lambda make: make(preference=[1.0, -2.0]), "must be"),
        (lambda make: make(preference=[1.0, 2.0]).init(3), "must have an entry for each of 3 tasks"),
    ],
    ids=["shape", "sign", "tasks"],
)
def test_mistaken_preferences(make, call, message):
    with pytest.raises(ValueError, match=f"{make.__name__}: preference {message}"):
        call(make)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: aligned_mtl(mean=True, preference=[1.0]),
            ValueError,
            "aligned_mtl: preference must be None where mean is True",
        ),
        (lambda: config(preference=[0.0, 0.0]), ValueError, "config: preference must be"),
        (lambda: ntkmtl(float("inf")), ValueError, "ntkmtl: exponent must be finite, found inf"),
        (lambda: krum(0.5), TypeError, r"krum: n_byzantine must be an integer, found 0\.5"),
        (lambda: krum(-1), ValueError, "krum: n_byzantine must be at least 0, found -1"),
        (lambda: krum(n_selected=0), ValueError, "krum: n_selected must be at least 1, found 0"),
    ],
)
def test_mistakes(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", METHODS)
def test_a_gramian_of_another_number_of_tasks(name):
    with pytest.raises(ValueError, match=rf"{name}: gramian must be of shape \(2, 2\).*2 tasks"):
        METHODS[name].update(jnp.eye(3), METHODS[name].init(2))
