"""What a loss function tells of its losses reaches every way of taking a step: counts, priors, extra arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax import methods

PARAMS = mtljax.Params(jnp.array([1.0, -2.0]), {"a": jnp.array(0.5), "b": jnp.array(-1.0), "c": jnp.array(2.0)})
SLOPES = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([-2.0, 0.5]), "c": jnp.array([0.3, 0.4])}
MEAN = methods.fixed([1 / 3] * 3)


def losses_fn(params, aux):
    """Losses whose task gradients are `SLOPES`, and what is told of them."""
    return {k: SLOPES[k] @ params.shared + 3.0 + params.tasks[k] for k in "abc"}, aux


def gradients(method, aux, axis_name=None):
    f = mtljax.value_and_grad(losses_fn, method, has_aux=True, axis_name=axis_name)
    return jax.jit(lambda aux: f(PARAMS, method.init(3, PARAMS.shared), aux, key=jax.random.key(0))[1:])(aux)


READING = [methods.equal(), methods.mgda(), methods.trimmed_mean(0), methods.fs_mtl(methods.mgda())]


@pytest.mark.parametrize("method", READING, ids=lambda method: method.name)
def test_a_task_without_examples_is_absent(method):
    grads, state = gradients(method, mtljax.Aux(weight_sum=jnp.array([2.0, 0.0, 1.0])))
    f = mtljax.value_and_grad(losses_fn, method, has_aux=True)
    start, active = method.init(3, PARAMS.shared), jnp.array([True, False, True])
    _, expected, _ = jax.jit(lambda: f(PARAMS, start, mtljax.Aux(), active=active, key=jax.random.key(0)))()
    jax.tree.map(np.testing.assert_array_equal, grads, expected)
    assert state.weights[1] == 0 and grads.tasks["b"] == 0


def test_who_is_asked_for_and_has_no_examples_is_absent_too():
    f, start = mtljax.value_and_grad(losses_fn, methods.equal(), has_aux=True), methods.equal().init(3)
    aux, everyone = mtljax.Aux(weight_sum=jnp.array([2.0, 0.0, 1.0])), jnp.ones(3, bool)
    _, grads, state = jax.jit(lambda: f(PARAMS, start, aux, active=everyone))()
    assert (state.weights > 0).tolist() == [True, False, True] and grads.tasks["b"] == 0


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (methods.equal(), SLOPES["a"] + 3.0 * SLOPES["b"] + 2.0 * SLOPES["c"]),
        (methods.fs_mtl(methods.equal()), SLOPES["a"] + 3.0 * SLOPES["b"] + 2.0 * SLOPES["c"]),
        (methods.trimmed_mean(1), jnp.array([0.6, 1.5])),  # the medians of rows times 1, 3 and 2
    ],
    ids=["losses", "batches", "rows"],
)
def test_priors_weigh_tasks_whatever_is_read(method, expected):
    grads, _ = gradients(method, mtljax.Aux(prior=jnp.array([1.0, 3.0, 2.0])))
    np.testing.assert_allclose(grads.shared, expected, rtol=1e-5)


@pytest.mark.parametrize("reads", ["losses", "gramian", "task_grads", "batches"])
def test_extra_arrays_reach_the_method(reads):
    def update(evidence, state, *, kpi, active=None, **extra):
        weights = kpi
        if reads == "task_grads":
            return jnp.sum(kpi[:, None] * evidence, axis=0), state._replace(weights=weights)
        if reads == "batches":
            row = sum(kpi[k] * SLOPES[name] for k, name in enumerate("abc"))
            return mtljax.Update(mtljax.Params(row, PARAMS.tasks), active), state._replace(weights=weights)
        return weights, state._replace(weights=weights)

    method = mtljax.Method(reads, MEAN.init, update)
    grads, _ = gradients(method, mtljax.Aux(extra={"kpi": jnp.array([1.0, 2.0, 0.5])}))
    np.testing.assert_allclose(grads.shared, SLOPES["a"] + 2.0 * SLOPES["b"] + 0.5 * SLOPES["c"], rtol=1e-6)
