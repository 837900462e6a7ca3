"""The methods that read the Gramian: golden values, identities, missing tasks, mistakes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_gramian import cagrad, mgda, pcgrad, upgrad
from tests.methods.steps.from_gramian import METHODS, random_rows, weights_of

ROWS = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], np.float32)


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


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda method, state: method.update(jnp.eye(3), state),
            ValueError,
            r"gramian must be of shape \(2, 2\), .* initialised for 2 tasks, found shape \(3, 3\)",
        ),
        (
            lambda method, state: method.update(jnp.eye(2), state, active=jnp.ones(3, bool)),
            ValueError,
            r"active must be of shape \(2,\), found an array of shape \(3,\)",
        ),
        (
            lambda method, state: method.update(jnp.eye(2), state, active=jnp.ones(2)),
            TypeError,
            "active must be of dtype bool, found float32",
        ),
        (
            lambda method, state: method.update(jnp.eye(2, dtype=jnp.int32), state),
            TypeError,
            "gramian must be of a floating-point type, found int32",
        ),
        (lambda method, state: method.init(0), ValueError, "num_tasks must be at least 1, found 0"),
    ],
)
def test_mistakes_that_every_method_names(name, call, error, message):
    with pytest.raises(error, match=f"{name}: {message}"):
        call(METHODS[name], METHODS[name].init(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: pcgrad().update(jnp.eye(3), pcgrad().init(3)),
            "pcgrad: key must be a random key for 3 tasks, found None",
        ),
        (lambda: cagrad(-1), "cagrad: c must be at least 0, found -1"),
        (
            lambda: upgrad(preference=[[1.0, 2.0]]),
            r"upgrad: preference must be of shape \[T\], found an array of shape \(1, 2\)",
        ),
        (lambda: upgrad(preference=[1.0, -1.0]), "upgrad: preference must be"),
        (
            lambda: upgrad(preference=[1.0, 1.0]).init(3),
            "upgrad: preference must have an entry for each of 3 tasks, found 2",
        ),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()
