"""Methods that learn their weights beside the network: uncertainty, IMTL-L, FAMO, LDC-MTL."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtljax.methods.from_losses import famo, imtl_l, ldc_mtl, uncertainty
from mtljax.methods.from_losses.ldc_mtl import logarithmic, rescaled, unscaled
from mtljax.methods.from_losses.uncertainty import gaussian, laplace, softmax

STEPS = np.random.default_rng(3).uniform(0.3, 2.0, size=(6, 3)).astype(np.float32)
AFTER = (STEPS * np.random.default_rng(4).uniform(0.7, 1.1, size=STEPS.shape)).astype(np.float32)


@functools.cache
def scanned(method):
    def run(losses, active, after):
        def body(state, step):
            losses, active, after = step
            weights, state = method.update(losses, state, active=active)
            if method.observe is not None:
                state = method.observe(after, state)
            return state, (weights, state)

        return jax.lax.scan(body, method.init(losses.shape[1]), (losses, active, after))

    return jax.jit(run)


def history(method, losses=STEPS, active=None, after=AFTER):
    """Weights `[steps, T]`, and the states after each step with a leading axis."""
    active = np.ones(losses.shape, bool) if active is None else active
    _, (weights, states) = scanned(method)(losses, active, after)
    return np.asarray(weights), states


class Adam:
    """Adam in float64, as its paper writes it."""

    def __init__(self, rate):
        self.rate, self.first, self.second, self.count = rate, 0.0, 0.0, 0

    def __call__(self, gradient):
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        return (
            -self.rate * (self.first / (1 - 0.9**self.count)) / (np.sqrt(self.second / (1 - 0.999**self.count)) + 1e-8)
        )


FORMS = {
    gaussian: lambda s, x: (0.5 * np.exp(-s), 0.5 - 0.5 * np.exp(-s) * x),
    laplace: lambda s, x: (np.exp(-s), 1 - np.exp(-s) * x),
    softmax: lambda s, x: (np.exp(-s), 0.5 - np.exp(-s) * x),
}


@pytest.mark.parametrize("form", FORMS)
def test_uncertainty_by_hand(form):
    found, states = history(uncertainty(forms=form, optimizer=optax.sgd(0.1), log_variance=-0.5))
    s = np.full(3, -0.5)
    for step, losses in enumerate(STEPS.astype(np.float64)):
        weights, gradient = FORMS[form](s, losses)
        np.testing.assert_allclose(found[step], weights, rtol=1e-5)
        s = s - 0.1 * gradient
        np.testing.assert_allclose(states.inner.log_variance[step], s, rtol=1e-5, atol=1e-6)


def test_a_form_for_each_task():
    sgd = optax.sgd(0.1)
    mixed, _ = history(uncertainty(forms=[gaussian, laplace, softmax], optimizer=sgd))
    for index, form in enumerate(FORMS):
        pure, _ = history(uncertainty(forms=form, optimizer=sgd))
        np.testing.assert_allclose(mixed[:, index], pure[:, index], rtol=1e-6)
    own, _ = history(uncertainty(forms=lambda s: (0.5 * jnp.exp(-s), 0.5 * s), optimizer=sgd))
    np.testing.assert_allclose(own[:, 0], mixed[:, 0], rtol=1e-6)


@pytest.mark.parametrize(("form", "optimum"), [(gaussian, 1.0), (laplace, 1.0), (softmax, 2.0)])
def test_the_optimum_of_uncertainty_is_the_loss(form, optimum):
    losses = np.broadcast_to(np.array([0.5, 1.0, 3.0], np.float32), (300, 3))
    _, states = history(uncertainty(forms=form, optimizer=optax.sgd(0.3)), losses, after=losses)
    np.testing.assert_allclose(np.exp(states.inner.log_variance[-1]), optimum * losses[0], rtol=1e-4)


def test_imtl_l_is_twice_uncertainty_at_the_opposite_sign():
    scales, states = history(imtl_l(optimizer=optax.sgd(0.1)))
    noises, other = history(uncertainty(optimizer=optax.sgd(0.2)))
    np.testing.assert_allclose(scales, 2 * noises, rtol=1e-6)
    np.testing.assert_allclose(states.inner.log_scale, -other.inner.log_variance, rtol=1e-5, atol=1e-7)


def test_imtl_l_by_hand_with_adam():
    found, _ = history(imtl_l(optimizer=optax.adam(0.05)))
    s, adam = np.zeros(3), Adam(0.05)
    for step, losses in enumerate(STEPS.astype(np.float64)):
        np.testing.assert_allclose(found[step], np.exp(s), rtol=1e-5)
        s = s + adam(np.exp(s) * losses - 1)


def test_famo_by_hand():
    """Coupled decay: the decayed logits enter the gradient before Adam's moments, as in PyTorch's Adam."""
    bounds = np.array([0.1, 0.0, -0.2])
    found, states = history(famo(gamma=0.3, learning_rate=0.05, min_losses=bounds))
    logits, adam = np.zeros(3), Adam(0.05)
    for step in range(len(STEPS)):
        z = np.exp(logits) / np.exp(logits).sum()
        before, after = STEPS[step].astype(np.float64) - bounds + 1e-8, AFTER[step].astype(np.float64) - bounds + 1e-8
        np.testing.assert_allclose(found[step], (z / before) / (z / before).sum(), rtol=1e-5)
        fall = np.log(before) - np.log(after)
        logits = logits + adam(z * (fall - z @ fall) + 0.3 * logits)
        np.testing.assert_allclose(states.inner.logits[step], logits, rtol=1e-3, atol=1e-5)


def test_famo_s_weights_are_the_gradient_of_its_loss():
    method = famo()
    state = method.init(3)
    state = state._replace(inner=state.inner._replace(logits=jnp.array([0.3, -0.2, 0.7])))

    def loss(x):
        z = jax.nn.softmax(state.inner.logits)
        return jnp.sum(z * jnp.log(x + 1e-8)) / jax.lax.stop_gradient(jnp.sum(z / (x + 1e-8)))

    np.testing.assert_allclose(
        method.update(jnp.asarray(STEPS[0]), state)[0], jax.grad(loss)(jnp.asarray(STEPS[0])), rtol=1e-5
    )


def test_famo_moves_by_what_it_observed_once():
    method = famo()
    _, state = method.update(jnp.asarray(STEPS[0]), method.init(3))
    seen = method.observe(jnp.asarray(AFTER[0]), state)
    again = method.observe(jnp.asarray(AFTER[1]), seen)
    np.testing.assert_array_equal(again.inner.logits, seen.inner.logits)
    first = method.observe(jnp.asarray(AFTER[0]), method.init(3))
    np.testing.assert_array_equal(first.inner.logits, 0)
    # The task that fell fastest loses weight, the slowest gains.
    fall = np.log(STEPS[0] / AFTER[0])
    assert seen.inner.logits[fall.argmax()] < 0 < seen.inner.logits[fall.argmin()]


def test_famo_leaves_a_task_whose_loss_after_the_step_is_not_finite():
    broken = AFTER.copy()
    broken[:, 1] = [np.nan, np.inf, np.nan, -np.inf, np.nan, np.nan]
    _, states = history(famo(), after=broken)
    np.testing.assert_array_equal(states.inner.logits[:, 1], 0)
    gone = np.tile([True, False, True], (len(STEPS), 1))
    _, without = history(famo(), active=gone)
    np.testing.assert_allclose(states.inner.logits[:, [0, 2]], without.inner.logits[:, [0, 2]], rtol=1e-5, atol=1e-7)


def test_famo_at_and_below_the_bound():
    """A task without anything left to lose gets no weight, and leaves the others what they have without it."""
    method = famo(min_losses=1.0)
    weights, state = jax.jit(method.update)(jnp.array([1.0, 0.2, 3.0]), method.init(3))
    np.testing.assert_allclose(weights, [0.0, 0.0, 1.0], atol=1e-6)
    assert method.observe(jnp.array([5.0, 5.0, 2.0]), state).inner.logits[:2].tolist() == [0, 0]
    weights, _ = famo(epsilon=1e-30).update(jnp.array([0.0, 1e30, 1.0]), method.init(3))
    np.testing.assert_allclose(weights, [0.0, 0.0, 1.0], atol=1e-6)


def test_famo_does_not_remember_one_enormous_change():
    losses, after = np.full((300, 2), 2.0, np.float32), np.full((300, 2), [1.9, 1.99], np.float32)
    usual = history(famo(), losses, after=after)[1].inner.logits[-1, 1]
    after[5] = [1e30, 1.9]
    assert history(famo(), losses, after=after)[1].inner.logits[-1, 1] > 0.4 * usual > 0


@pytest.mark.parametrize("optimizer", [optax.adam(0.02), optax.sgd(0.1)], ids=["adam", "sgd"])
@pytest.mark.parametrize("make", [uncertainty, imtl_l, ldc_mtl], ids=lambda make: make.__name__)
def test_one_enormous_loss_is_not_remembered_for_ever(make, optimizer):
    """What was learned from it is not far away, and learning goes on."""
    method, losses = make(optimizer=optimizer), np.full((600, 2), [0.5, 2.0], np.float32)
    usual = np.asarray(history(method, losses, after=losses)[1].inner[0])
    losses[20, 1] = 1e30
    found = np.asarray(history(method, losses, after=losses)[1].inner[0])
    assert abs(found - usual).max() < 7.0
    if make is ldc_mtl:  # its logits have no optimum that they could come back to
        np.testing.assert_allclose(found[-1] - found[-2], usual[-1] - usual[-2], rtol=0.2)
    else:
        np.testing.assert_array_equal(found[:, 0], usual[:, 0])
        np.testing.assert_allclose(found[-1, 1], usual[-1, 1], atol=0.05)


@pytest.mark.parametrize("method", [uncertainty(), imtl_l()], ids=lambda method: method.name)
def test_a_loss_of_zero_leaves_what_was_learned(method):
    """Its logarithm has no bottom, and the weight would grow until the task comes back."""
    _, states = history(method, np.zeros((6, 3), np.float32), after=np.zeros((6, 3), np.float32))
    np.testing.assert_array_equal(states.inner[0], 0)


SCALINGS = {
    unscaled: lambda x, first: (x, np.ones(3)),
    rescaled: lambda x, first: (x * first.min() / first, first.min() / first),
    logarithmic: lambda x, first: (np.log(x / first), 1 / x),
}


@pytest.mark.parametrize("scaling", SCALINGS)
def test_ldc_mtl_by_hand(scaling):
    """Derivatives of its objective written out, by the losses and by the router's logits."""
    penalty = 0.2
    found, states = history(ldc_mtl(penalty, scaling=scaling, optimizer=optax.sgd(0.5)))
    logits, first = np.ones(3), STEPS[0].astype(np.float64)
    for step, losses in enumerate(STEPS.astype(np.float64)):
        router = 1 / (1 + np.exp(-logits))
        scaled, slope = SCALINGS[scaling](losses, first)
        sign = np.sign(router[:-1] * scaled[:-1] - router[1:] * scaled[1:])
        pull = penalty * (np.append(sign, 0) - np.append(0, sign)) + 1 / router.sum()
        np.testing.assert_allclose(found[step], router * pull * slope, rtol=1e-5, atol=1e-6)
        logits = logits - 0.5 * scaled * pull * router * (1 - router)
        np.testing.assert_allclose(states.inner.logits[step], logits, rtol=1e-5)


def test_ldc_mtl_compares_the_neighbours_that_are_there():
    losses = np.insert(STEPS, 1, np.nan, axis=1)
    found, _ = history(ldc_mtl(0.5), losses, np.isfinite(losses), np.insert(AFTER, 1, np.nan, axis=1))
    expected, _ = history(ldc_mtl(0.5))
    np.testing.assert_allclose(np.delete(found, 1, axis=1), expected, rtol=1e-5)


def test_ldc_mtl_of_losses_that_are_not_positive():
    losses = np.array([[0.0, 1.0, 2.0], [0.5, -1.0, 2.0], [1.0, 1.0, 0.0]], np.float32)
    found, states = history(ldc_mtl(scaling=logarithmic), losses, after=losses)
    assert np.isfinite(found).all()
    assert (found[losses <= 0] == 0).all()
    assert states.inner.first[-1].tolist() == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("method", [uncertainty(), imtl_l(), ldc_mtl(), famo()], ids=lambda method: method.name)
def test_a_late_task_is_corrected_for_its_own_steps(method):
    """Adam's first step is its learning rate, whenever it comes."""
    active = np.ones(STEPS.shape, bool)
    active[:4, 2] = False
    _, states = history(method, STEPS, active)
    learned = np.asarray(states.inner[0])
    assert (learned[:4, 2] == learned[0, 2]).all()
    start = np.asarray(method.init(3).inner[0])
    np.testing.assert_allclose(abs(learned[4, 2] - start[2]), abs(learned[0, 0] - start[0]), rtol=2e-2)


def test_the_optimiser_s_state_is_a_state_for_each_task():
    state = uncertainty().init(3)
    assert {leaf.shape for leaf in jax.tree.leaves(state.inner)} == {(3,)}
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(famo().init(3))]
    assert len(set(buffers)) == len(buffers)


def test_mistakes():
    with pytest.raises(TypeError, match="uncertainty: forms must be a function"):
        uncertainty(forms="gaussian")
    with pytest.raises(ValueError, match="uncertainty: forms must have an entry for each of 3 tasks, found 2"):
        uncertainty(forms=[gaussian, laplace]).init(3)
    for call, message in [
        (lambda: famo(learning_rate=0), "famo: learning_rate must be above 0, found 0"),
        (lambda: famo(gamma=-1), "famo: gamma must be at least 0, found -1"),
        (lambda: famo(epsilon=0.0), "famo: epsilon must be above 0"),
        (lambda: famo(min_losses=[0.0]).init(2), "famo: min_losses must have an entry for each of 2 tasks, found 1"),
        (
            lambda: famo().observe(jnp.ones(3), famo().init(2)),
            "famo: losses_after must be of shape",
        ),
        (lambda: ldc_mtl(-0.1), "ldc_mtl: penalty must be at least 0, found -0.1"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
