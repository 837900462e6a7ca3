"""Tests of `db_mtl`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import mtljax
from mtljax.methods.from_jacobian import db_mtl
from tests.methods.steps.jacobian import draw, run


def test_db_mtl_by_hand():
    rows, losses = draw(3, 2, 4).astype(np.float64), np.array([[2.0, 0.5], [1.0, 0.25], [0.5, 3.0]])
    active = np.array([[True, True], [True, False], [True, True]])
    average, steps = np.zeros((2, 4)), np.zeros(2)
    found, weights, _ = run(
        db_mtl(beta=0.8, decay=0.5, eps=0.1), rows.astype(np.float32), losses=losses.astype(np.float32), active=active
    )
    for step in range(3):
        for k in np.flatnonzero(active[step]):
            steps[k] += 1
            share = 0.8 / np.sqrt(steps[k])
            average[k] = share * average[k] + (1 - share) * rows[step, k] / (losses[step, k] + 0.1)
        norms = np.linalg.norm(average, axis=1)[active[step]]
        expected = norms.max() * sum(average[k] / np.linalg.norm(average[k]) for k in np.flatnonzero(active[step]))
        np.testing.assert_allclose(found[step], expected, rtol=1e-5)
        np.testing.assert_allclose(weights[step], np.where(active[step], 1 / (losses[step] + 0.1), 0), rtol=1e-6)


def test_db_mtl_heads_descend_on_log_losses():
    params = mtljax.Params(jnp.array([1.0, -2.0]), {"a": jnp.array([2.0, 0.5]), "b": jnp.array([-1.0, 3.0])})

    def losses_fn(params):
        return {k: jnp.sum((params.shared - params.tasks[k]) ** 2) for k in "ab"}

    method = db_mtl(eps=0.1)
    _, grads, _ = jax.jit(mtljax.value_and_grad(losses_fn, method))(params, method.init(2, params.shared))
    expected = jax.grad(lambda params: sum(jnp.log(loss + 0.1) for loss in losses_fn(params).values()))(params)
    for name in "ab":
        np.testing.assert_allclose(grads.tasks[name], expected.tasks[name], rtol=1e-5)


def test_db_mtl_has_no_logarithm_of_a_loss_that_is_not_positive():
    losses = jnp.array([0.0, -1.0, 2.0])
    method = db_mtl(eps=0.0)
    rows = jnp.asarray(draw(3, 4))
    update, state = jax.jit(method.update)(rows, method.init(3, rows[0]), losses=losses)
    np.testing.assert_array_equal(state.weights, [0.0, 0.0, 0.5])
    np.testing.assert_allclose(update, 0.1 * rows[2] / 2, rtol=1e-5)
    np.testing.assert_array_equal(state.inner.average[:2], 0)
