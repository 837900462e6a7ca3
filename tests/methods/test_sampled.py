"""Gramians of independent batches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax.methods import sampled
from mtljax.types import Method, MethodState, Params

NAMES = ("a", "b", "c")


def losses_fn(params, x):
    """Linear in the shared parameters, so that task gradients are `x * targets`."""
    return {k: jnp.sum(x[i] * params.shared) + jnp.sum(params.tasks[k] ** 2) * x[i, 0] for i, k in enumerate(NAMES)}


def recording(weigh_tasks=False):
    """A method whose weights are the Gramian's first row, so that the test sees what it was given."""

    def update(gramian, state, *, losses=None, active=None, key=None, **extra):
        weights = jnp.where(active, gramian[0], 0.0)
        return weights, state._replace(weights=weights)

    def init(num_tasks, shared=None):
        return MethodState(jnp.zeros(num_tasks), jnp.zeros(()), ())

    return Method("gramian", init, update, name="recording", weigh_tasks=weigh_tasks)


@pytest.fixture
def params():
    return Params(jnp.array([1.0, -2.0]), {k: jnp.array([0.5 * (i + 1)]) for i, k in enumerate(NAMES)})


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("weigh_tasks", [False, True])
def test_weights_come_from_the_first_two_batches_and_the_update_from_the_last(params, count, weigh_tasks):
    rows = np.random.default_rng(0).normal(size=(count, 3, 2)).astype(np.float32)
    method = recording(weigh_tasks)
    f = jax.jit(mtljax.value_and_grad(losses_fn, sampled(method, count)))
    losses, grads, state = f(params, method.init(3), *[(jnp.asarray(x),) for x in rows])
    weights = (rows[0] @ rows[1].T)[0]
    np.testing.assert_allclose(state.weights, weights, rtol=1e-5)
    np.testing.assert_allclose(grads.shared, weights @ rows[-1], rtol=1e-5)
    for i, k in enumerate(NAMES):
        mean = rows[:, i, 0].mean()
        own = 2 * params.tasks[k][0] * mean * (weights[i] if weigh_tasks else 1.0)
        np.testing.assert_allclose(grads.tasks[k][0], own, rtol=1e-5)
        np.testing.assert_allclose(losses[k], losses_fn(params, rows[0])[k], rtol=1e-5)


def test_a_loss_that_is_not_finite_in_one_batch_sits_out(params):
    rows = np.random.default_rng(1).normal(size=(2, 3, 2)).astype(np.float32)
    method = sampled(recording(), 2)
    f = mtljax.value_and_grad(losses_fn, method)
    broken = rows.copy()
    broken[0, 1] = np.nan
    losses, grads, state = f(params, method.init(3), *[(jnp.asarray(x),) for x in broken])
    active = jnp.array([True, False, True])
    _, expected, _ = f(params, method.init(3), *[(jnp.asarray(x),) for x in rows], active=active)
    assert np.isnan(losses["b"]) and state.weights[1] == 0
    np.testing.assert_array_equal(grads.shared, expected.shared)
    assert not np.any(grads.tasks["b"])


MISTAKES = {
    "reads": (lambda params: sampled(mtljax.methods.equal()), "sampled: method must read the Gramian, found equal"),
    "batches": (lambda params: sampled(recording(), 1), "sampled: batches must be at least 2, found 1"),
    "too few": (
        lambda params: mtljax.value_and_grad(losses_fn, sampled(recording()))(params, recording().init(3), (1,), (2,)),
        r"sampled\(recording\) reads 3 batches, so give as many tuples .* found \['tuple', 'tuple'\]",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(params, mistake):
    make, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        make(params)
