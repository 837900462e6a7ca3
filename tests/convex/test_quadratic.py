"""The quadratic models, against dense algebra in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.convex.quadratic import least_squares

TASKS, LENGTH = 3, 6
modeled = jax.jit(least_squares, static_argnames="intercept")


def problem(features, shared_inputs, shared_weights, seed=0):
    draw = np.random.default_rng(seed)
    inputs = draw.normal(size=(1 if shared_inputs else TASKS, LENGTH, features)) + 3.0
    weights = draw.uniform(0.5, 2.0, (1 if shared_weights else TASKS, LENGTH))
    weights[:, 0] = 0.0
    return inputs, weights, draw.normal(size=(TASKS, LENGTH)) + 7.0


def dense(inputs, weights, targets, intercept):
    """Hessian `[T, p, p]` and linear term `[T, p]` after eliminating the intercepts, and the least constant."""
    x = np.broadcast_to(inputs, (len(targets), *inputs.shape[1:]))
    a = np.broadcast_to(weights, targets.shape)
    mean_x = np.einsum("tn,tnp->tp", a, x) / a.sum(1)[:, None] * intercept
    mean_y = (a * targets).sum(1) / a.sum(1) * intercept
    x, y = x - mean_x[:, None], targets - mean_y[:, None]
    return np.einsum("tn,tnp,tnq->tpq", a, x, x), np.einsum("tn,tnp,tn->tp", a, x, y), mean_x, mean_y


@pytest.mark.parametrize(
    ("features", "shared_inputs", "shared_weights", "intercept"),
    [(2, False, False, True), (9, False, True, False), (2, True, False, True), (9, True, True, True)],
)
def test_value_and_prox_are_those_of_the_rows(features, shared_inputs, shared_weights, intercept):
    inputs, weights, targets = problem(features, shared_inputs, shared_weights)
    hessian, linear, mean_x, mean_y = dense(inputs, weights, targets, intercept)
    draw = np.random.default_rng(1)
    w, rho = draw.normal(size=(TASKS, features)), 0.7
    with jax.enable_x64(True):

        @jax.jit
        def computed(inputs, weights, targets, w):
            model, means = least_squares(inputs, weights, weights * targets, intercept=intercept)
            return model.value(w), model.prox(w, jnp.asarray(rho)), means.intercepts(w), model.curvature

        value, near, intercepts, curvature = computed(*map(jnp.asarray, (inputs, weights, targets, w)))
    expected = 0.5 * np.einsum("tp,tpq,tq", w, hessian, w) - (linear * w).sum()
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    solved = np.linalg.solve(hessian + rho * np.eye(features), (linear + rho * w)[:, :, None])[:, :, 0]
    np.testing.assert_allclose(near, solved, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(intercepts, mean_y - (mean_x * w).sum(1), rtol=1e-12, atol=1e-12)
    # What is shared is decomposed once.
    assert curvature.shape == (1 if shared_inputs and shared_weights else TASKS, min(LENGTH, features))


def test_the_bound_is_the_duality_gap_where_gramians_are_regular_and_holds_everywhere():
    """For `f + c'w`, whose least value is known, and a subgradient c that is no solution's."""
    with jax.enable_x64(True):
        for features in (2, 9):
            inputs, weights, targets = problem(features, False, False)
            hessian, linear, *_ = dense(inputs, weights, targets, False)
            draw = np.random.default_rng(2)
            w = draw.normal(size=(1, TASKS, features))
            # In the range of the Hessian, so that there is a least value.
            c = np.einsum("tpq,tq->tp", hessian, draw.normal(size=(TASKS, features)))[None]
            model, _ = modeled(inputs, weights, weights * targets, intercept=False)
            best = np.einsum("tpq,tq->tp", np.linalg.pinv(hessian), linear - c[0])
            distance = np.linalg.norm(w[0] - best)

            def value(x, hessian=hessian, linear=linear, c=c):
                return 0.5 * np.einsum("tp,tpq,tq", x, hessian, x) - (linear * x).sum() + (c[0] * x).sum()

            gap = value(w[0]) - value(best)
            bounds = jax.jit(jax.vmap(type(model).bound, (None, None, None, 0)))
            for bound in bounds(model, w, c, np.array([distance, 10 * distance])):
                assert gap <= bound
                if features == 2:
                    assert bound < 1.5 * gap


def test_a_task_without_weight_has_no_curvature_and_the_others_do_not_notice():
    inputs, weights, targets = problem(2, False, False)
    weights[1] = 0.0
    with jax.enable_x64(True):
        model, means = modeled(inputs, weights, weights * targets, intercept=True)
    hessian, *_ = dense(inputs[::2], weights[::2], targets[::2], True)
    assert not np.any(model.curvature[1]) and not np.any(model.slope[1])
    np.testing.assert_allclose(np.asarray(model.curvature)[::2], np.linalg.eigvalsh(hessian), rtol=1e-12)
    pooled = (weights * targets).sum() / weights.sum()
    np.testing.assert_allclose(means.targets[1], pooled, rtol=1e-12)


def test_what_is_not_finite_is_not_taken_for_zero():
    inputs, weights, targets = problem(2, False, False)
    inputs[0, 3, 1] = np.nan
    with jax.enable_x64(True):
        model, _ = modeled(inputs, weights, weights * targets, intercept=False)
    assert np.all(np.isnan(model.curvature[0])) and np.all(np.isnan(model.slope[0]))
