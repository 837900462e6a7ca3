"""The methods that read the Gramian: golden values, identities, missing tasks, mistakes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_gramian import cagrad, mgda, pcgrad, upgrad
from mtljax.methods.from_gramian.pcgrad import random_order

ROWS = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], np.float32)
METHODS = {"mgda": mgda(), "pcgrad": pcgrad(), "cagrad": cagrad(), "upgrad": upgrad()}


@functools.cache
def compiled(method):
    return jax.jit(lambda gramian, options: method.update(gramian, method.init(len(gramian)), **options)[0])


def weights_of(method, rows, **options):
    rows = jnp.asarray(rows, jnp.float32)
    return np.asarray(compiled(method)(rows @ rows.T, options))


def random_rows(num_tasks, seed=0):
    return np.random.default_rng(seed).normal(size=(num_tasks, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("method", "direction"),
    [
        (mgda(), [0.0, 1.0, 1.0]),
        (upgrad(), [0.29240, 1.90058, 1.90058]),
        (cagrad(0.5), [0.18350, 1.20412, 1.20412]),
        (cagrad(0.5, rescale=True), np.array([0.18350, 1.20412, 1.20412]) / 1.25),
        (cagrad(0.0), [1.0, 1.0, 1.0]),
        (pcgrad(), [0.58480, 3.80117, 3.80117]),
        (pcgrad(mean=True), [0.29240, 1.90058, 1.90058]),
    ],
)
def test_golden_values(method, direction):
    np.testing.assert_allclose(weights_of(method, ROWS) @ ROWS, direction, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_state_and_form(name):
    method = METHODS[name]
    assert (method.name, method.reads) == (name, "gramian")
    state = method.init(3, shared={"w": jax.ShapeDtypeStruct((2,), jnp.float32)})
    assert state.weights.tolist() == pytest.approx([1 / 3] * 3) and state.residual == 0 and state.inner == ()
    rows = jnp.asarray(random_rows(3))

    def update(gramian):
        return method.update(gramian, state, key=jax.random.key(0), losses=jnp.ones(3), unknown=1)

    weights, after = jax.jit(update)(rows @ rows.T)
    assert weights.dtype == after.weights.dtype == after.residual.dtype == jnp.float32
    assert weights.shape == (3,) and after.residual.shape == ()
    np.testing.assert_array_equal(weights, after.weights)
    assert jax.eval_shape(update, jax.ShapeDtypeStruct((3, 3), jnp.bfloat16))[0].dtype == jnp.float32


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("scale", [1e-8, *(pytest.param(s, marks=pytest.mark.slow) for s in (1e-3, 1e3, 1e8))])
def test_weights_do_not_depend_on_scale(name, scale):
    method, rows, key = METHODS[name], random_rows(4, seed=1), jax.random.key(0)
    plain = weights_of(method, rows, key=key)
    np.testing.assert_allclose(weights_of(method, np.float32(scale) * rows, key=key), plain, rtol=1e-4, atol=1e-5)


def test_two_tasks_of_pcgrad_are_the_sum_of_upgrad():
    for seed in range(5):
        rows = random_rows(2, seed)
        np.testing.assert_allclose(
            weights_of(METHODS["pcgrad"], rows), 2 * weights_of(METHODS["upgrad"], rows), rtol=1e-5
        )


def test_pcgrad_draws_a_uniform_order_for_each_task():
    keys = jax.random.split(jax.random.key(0), 600)
    orders = np.asarray(jax.vmap(random_order, (0, None))(keys, jnp.ones(4, bool)))
    assert (np.sort(orders, axis=2) == np.arange(4)).all()
    first = np.stack([(orders[:, :, 0] == j).mean(0) for j in range(4)])
    np.testing.assert_allclose(first, 0.25, atol=0.08)
    # Rows are drawn independently: two of them start alike a quarter of the time, not always.
    alike = (orders[:, :1, 0] == orders[:, 1:, 0]).mean(0)
    np.testing.assert_allclose(alike, 0.25, atol=0.08)


def test_pcgrad_depends_on_the_order_and_on_nothing_else():
    rows = random_rows(5, seed=5)
    keys = jax.random.split(jax.random.key(0), 12)
    draws = np.stack([weights_of(METHODS["pcgrad"], rows, key=key) for key in keys])
    assert len(np.unique(draws.round(4), axis=0)) > 5
    np.testing.assert_array_equal(draws[0], weights_of(METHODS["pcgrad"], rows, key=keys[0]))


def test_upgrad_preference():
    rows = random_rows(3)
    shares = [weights_of(upgrad(preference=np.eye(3)[k]), rows) for k in range(3)]
    np.testing.assert_allclose(np.mean(shares, 0), weights_of(METHODS["upgrad"], rows), rtol=1e-5)
    mixed = weights_of(upgrad(preference=[0.5, 2.0, 0.0]), rows)
    np.testing.assert_allclose(mixed, 0.5 * shares[0] + 2.0 * shares[1], rtol=1e-5)


def test_mistakes():
    for name, method in METHODS.items():
        with pytest.raises(
            ValueError,
            match=rf"{name}: gramian must be of shape \(2, 2\), .* initialised for 2 tasks, found shape \(3, 3\)",
        ):
            method.update(jnp.eye(3), method.init(2))
        with pytest.raises(
            ValueError, match=rf"{name}: active must be of shape \(2,\), found an array of shape \(3,\)"
        ):
            method.update(jnp.eye(2), method.init(2), active=jnp.ones(3, bool))
        with pytest.raises(TypeError, match=f"{name}: active must be of dtype bool, found float32"):
            method.update(jnp.eye(2), method.init(2), active=jnp.ones(2))
        with pytest.raises(TypeError, match=f"{name}: gramian must be of a floating-point type, found int32"):
            method.update(jnp.eye(2, dtype=jnp.int32), method.init(2))
        with pytest.raises(ValueError, match="num_tasks must be at least 1, found 0"):
            method.init(0)
    with pytest.raises(ValueError, match="pcgrad: key is None, but with 3 tasks"):
        pcgrad().update(jnp.eye(3), pcgrad().init(3))
    with pytest.raises(ValueError, match=r"cagrad: c must be at least 0, found -1"):
        cagrad(-1)
    with pytest.raises(
        ValueError, match=r"upgrad: preference must be of shape \[T\], found an array of shape \(1, 2\)"
    ):
        upgrad(preference=[[1.0, 2.0]])
    with pytest.raises(ValueError, match="upgrad: preference must be"):
        upgrad(preference=[1.0, -1.0])
    with pytest.raises(ValueError, match=r"upgrad: preference must be of shape \[3\], found an array of shape \(2,\)"):
        upgrad(preference=[1.0, 1.0]).init(3)
