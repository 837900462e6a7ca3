"""Methods whose weights are the gradient of a function of the losses, against autodiff of that function."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.lax import stop_gradient

from mtljax.methods.from_losses import cosmos, geometric, mean_log, pbi, random, stch, tchebycheff, uncertainty_softmax
from tests.methods.steps.scalarization import weights_of

PREFERENCE = np.array([0.5, 0.2, 0.2, 0.1], np.float32)


REFERENCE = np.array([0.1, -0.2, 0.0, 0.3], np.float32)


LOSSES = np.random.default_rng(0).uniform(0.4, 3.0, size=(16, 4)).astype(np.float32)


def equal(x):
    return jnp.full_like(x, 1 / x.shape[0])


def soft_maximum(x, mu, p, z):
    return mu * jnp.log(jnp.sum(jnp.exp(p * (x - z) / mu)))


def boundary(x, theta, p, z):
    ray = p / jnp.sqrt(jnp.sum(p**2))
    along = jnp.sum((x - z) * ray)
    return along + theta * jnp.sqrt(jnp.sum((x - z - along * ray) ** 2))


def on_the_ray(x, penalty, p):
    inner = jnp.sum(p * x)
    return inner - penalty * inner / jnp.sqrt(jnp.sum(p**2) * jnp.sum(x**2))


FORMULAS = {
    "mean_log": (mean_log(), lambda x: jnp.sum(jnp.log(x))),
    "mean_log mean": (mean_log(mean=True), lambda x: jnp.mean(jnp.log(x))),
    "geometric": (geometric(), lambda x: jnp.prod(x) ** (1 / x.shape[0])),
    "uncertainty_softmax": (
        uncertainty_softmax(0.7),
        lambda x: jnp.sum(jax.nn.softmax(1 / stop_gradient(x) / 0.7) * x),
    ),
    "stch": (stch(0.3), lambda x: soft_maximum(x, 0.3, equal(x), 0.0)),
    "stch preferred": (
        stch(0.1, preference=PREFERENCE, reference=REFERENCE),
        lambda x: soft_maximum(x, 0.1, PREFERENCE, REFERENCE),
    ),
    "tchebycheff": (tchebycheff(), lambda x: jnp.max(equal(x) * x)),
    "tchebycheff preferred": (
        tchebycheff(preference=PREFERENCE, reference=REFERENCE),
        lambda x: jnp.max(PREFERENCE * (x - REFERENCE)),
    ),
    "pbi": (pbi(), lambda x: boundary(x, 5.0, equal(x), 0.0)),
    "pbi preferred": (
        pbi(2.0, preference=PREFERENCE, reference=REFERENCE),
        lambda x: boundary(x, 2.0, PREFERENCE, REFERENCE),
    ),
    "cosmos": (cosmos(), lambda x: on_the_ray(x, 1.0, equal(x))),
    "cosmos preferred": (cosmos(0.4, preference=PREFERENCE), lambda x: on_the_ray(x, 0.4, PREFERENCE)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_weights_are_the_gradient_of_the_formula(name):
    method, formula = FORMULAS[name]
    expected = jax.jit(jax.vmap(jax.grad(formula)))(LOSSES)
    np.testing.assert_allclose(weights_of(method, LOSSES), expected, rtol=3e-5, atol=3e-6)


@pytest.mark.parametrize("name", [name for name in FORMULAS if "preferred" not in name])
def test_an_inactive_task_is_absent_from_the_formula(name):
    method, formula = FORMULAS[name]
    three = np.delete(LOSSES, 2, axis=1)
    found = weights_of(method, np.insert(three, 2, np.nan, axis=1), [True, True, False, True])
    assert (found[:, 2] == 0).all()
    expected = jax.jit(jax.vmap(jax.grad(formula)))(three)
    np.testing.assert_allclose(np.delete(found, 2, axis=1), expected, rtol=3e-5, atol=3e-6)


def test_the_preference_of_absent_tasks_is_not_looked_at():
    kept = np.array([True, False, True, True])
    for make in (stch, tchebycheff, pbi, cosmos):
        found = weights_of(make(preference=PREFERENCE), LOSSES, kept)
        expected = weights_of(make(preference=PREFERENCE[kept]), LOSSES[:, kept])
        np.testing.assert_allclose(found[:, kept], expected, rtol=2e-5, atol=1e-6)


def test_limits():
    sharp = weights_of(stch(1e-6, preference=PREFERENCE, reference=REFERENCE), LOSSES)
    np.testing.assert_allclose(
        sharp, weights_of(tchebycheff(preference=PREFERENCE, reference=REFERENCE), LOSSES), atol=1e-5
    )
    flat = weights_of(stch(1e6, preference=PREFERENCE), LOSSES)
    np.testing.assert_allclose(flat, np.broadcast_to(PREFERENCE / 4, flat.shape), rtol=1e-4)
    plain = weights_of(cosmos(0.0, preference=PREFERENCE), LOSSES)
    np.testing.assert_array_equal(plain, np.broadcast_to(PREFERENCE, plain.shape))
    ray = weights_of(pbi(0.0, preference=PREFERENCE), LOSSES)
    np.testing.assert_allclose(ray, np.broadcast_to(PREFERENCE / np.linalg.norm(PREFERENCE), ray.shape), rtol=1e-5)
    even = weights_of(uncertainty_softmax(1e6), LOSSES)
    np.testing.assert_allclose(even, 0.25, rtol=1e-4)
    first = weights_of(uncertainty_softmax(1e-4), LOSSES)
    np.testing.assert_allclose(first, np.eye(4)[LOSSES.argmin(1)], atol=1e-6)


def test_on_the_preferred_ray_pbi_and_cosmos_have_no_pull_to_it():
    for scale in (1e-12, 1.0, 3e7):
        found = weights_of(pbi(preference=PREFERENCE), scale * PREFERENCE[None, :])
        np.testing.assert_allclose(found[0], PREFERENCE / np.linalg.norm(PREFERENCE), rtol=1e-6)
    found = weights_of(cosmos(preference=PREFERENCE), PREFERENCE[None, :])
    np.testing.assert_allclose(found[0], PREFERENCE, rtol=1e-5)


@pytest.mark.parametrize("name", ["mean_log", "mean_log mean", "geometric", "uncertainty_softmax"])
def test_a_loss_that_is_not_positive_sits_out(name):
    method, _ = FORMULAS[name]
    found = weights_of(method, [[1.0, 0.0, 2.0, -1.0]])
    expected = weights_of(method, [[1.0, 9.0, 2.0, 9.0]], [True, False, True, False])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(weights_of(method, [[0.0, 0.0, 0.0, 0.0]]), 0)


@pytest.mark.parametrize("name", FORMULAS)
def test_extreme_losses_give_finite_weights(name):
    method, _ = FORMULAS[name]
    extremes = [[1e-38, 1.0, 1e30, 1e-20], [1e30] * 4, [1e-30] * 4, [1e-41, 1e-40, 1.0, 2.0]]
    assert np.isfinite(weights_of(method, extremes)).all()
    if "log" not in name and "geometric" not in name and name != "uncertainty_softmax":
        assert np.isfinite(weights_of(method, [[0.0] * 4, [-1.0, 2.0, -3.0, 0.0]])).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uncertainty_softmax(0), "uncertainty_softmax: temperature must be above 0, found 0"),
        (lambda: stch(-1.0), r"stch: mu must be above 0, found -1\.0"),
        (lambda: stch(preference=[0.0, 0.0]), "stch: preference must be"),
        (lambda: stch(preference=0.5), r"stch: preference must be of shape \[T\], found an array of shape \(\)"),
        (lambda: stch(reference=[[1.0]]), r"stch: reference must be a number or of shape \[T\]"),
        (lambda: stch(reference=[1.0] * 3).init(2), "stch: reference must have an entry for each of 2 tasks, found 3"),
        (lambda: tchebycheff(preference=[1.0] * 3).init(2), "tchebycheff: preference must have an entry for each"),
        (lambda: pbi(-0.5), "pbi: theta must be at least 0, found -0.5"),
        (lambda: pbi(preference=[-1.0, 1.0]), "pbi: preference must be"),
        (lambda: cosmos(float("nan")), "cosmos: penalty must be at least 0, found nan"),
        (lambda: cosmos(preference=[np.inf, 1.0]), "cosmos: preference must be"),
        (lambda: random().update(jnp.ones(2), random().init(2)), "random: key must be a random key for 2 tasks"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ValueError, match=message):
        call()
