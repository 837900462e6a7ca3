"""`fit` on small problems: optimal, certified, and the same whatever the data is wrapped in."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mtljax.convex import columns, fit, logistic
from mtljax.penalties.dirty import dirty
from mtljax.penalties.l21 import l21
from tests.convex.problems import LENGTHS, ragged, ridge, rows_of

STRENGTH = 1.5


@functools.cache
def fit_l21():
    """One program for all tests on `ragged()` padded to 14 rows."""
    return jax.jit(lambda rows, strength, tolerance: fit(rows, l21(strength), intercept=True, tolerance=tolerance))


def fitted(inputs, targets, strength=STRENGTH, tolerance=1e-12):
    with jax.enable_x64(True):
        found = fit_l21()(rows_of(inputs, targets, 14), strength, tolerance)
        return jax.tree.map(np.asarray, found)


def slopes(inputs, targets, found):
    """The gradient of the loss by the weights `[T, p]` and by the intercepts `[T]`, in NumPy."""
    errors = [x @ w + b - y for x, y, w, b in zip(inputs, targets, found.weights, found.intercepts, strict=True)]
    return np.stack([x.T @ e for x, e in zip(inputs, errors, strict=True)]), np.array([e.sum() for e in errors])


def test_the_solution_meets_the_conditions_of_optimality():
    """Those of l21, written out: `grad_p = -s w_p / |w_p|`, or `|grad_p| <= s` where `w_p = 0`."""
    inputs, targets = ragged()
    found = fitted(inputs, targets, 8.0)
    by_weights, by_intercepts = slopes(inputs, targets, found)
    length = np.linalg.norm(found.weights, axis=0)
    used = length > 0
    assert used.any() and not used.all()
    np.testing.assert_allclose(by_weights[:, used], -8.0 * found.weights[:, used] / length[used], atol=1e-5)
    assert np.all(np.linalg.norm(by_weights[:, ~used], axis=0) < 8.0)
    np.testing.assert_allclose(by_intercepts, 0.0, atol=1e-10)
    np.testing.assert_allclose(found.duals, -by_weights, atol=1e-5)
    errors = [y - x @ w - b for x, y, w, b in zip(inputs, targets, found.weights, found.intercepts, strict=True)]
    objective = 0.5 * sum(e @ e for e in errors) + 8.0 * length.sum()
    np.testing.assert_allclose(found.objective, objective, rtol=1e-12)
    assert found.converged and found.certificate <= 1e-12


def test_nothing_but_its_own_rows_matters_to_a_task():
    """Padding, the order of rows, NaN where nothing is, and where a task stands."""
    inputs, targets = ragged()
    found = fitted(inputs, targets)
    turned = fitted([x[::-1] for x in inputs[::-1]], [y[::-1] for y in targets[::-1]])
    np.testing.assert_allclose(turned.weights[::-1], found.weights, atol=1e-6)
    np.testing.assert_allclose(turned.intercepts[::-1], found.intercepts, atol=1e-5)


def test_an_average_weighs_the_rows_of_a_task_by_their_number():
    """As if each row stood there times the root of its weight."""
    inputs, targets = ragged()
    root = [max(len(y), 1) ** -0.5 for y in targets]
    with jax.enable_x64(True):
        run = jax.jit(lambda rows, average: fit(rows, l21(0.1), average=average, tolerance=1e-12), static_argnums=1)
        found = run(rows_of(inputs, targets, 14), True)
        scaled = [[r * each for r, each in zip(root, arrays, strict=True)] for arrays in (inputs, targets)]
        by_hand = run(rows_of(*scaled, 14), False)
    np.testing.assert_allclose(found.weights, by_hand.weights, atol=1e-8)
    np.testing.assert_allclose(found.objective, by_hand.objective, rtol=1e-9)


def test_a_task_without_rows_gets_nothing_from_a_norm_and_the_mean_of_all_targets():
    inputs, targets = ragged()
    found = fitted(inputs, targets)
    empty = LENGTHS.index(0)
    np.testing.assert_array_equal(found.weights[empty], 0.0)
    np.testing.assert_allclose(found.intercepts[empty], np.concatenate(targets).mean(), rtol=1e-12)


def test_units_do_not_matter():
    inputs, targets = ragged()
    plain = fitted(inputs, targets)
    for x_unit, y_unit in ((1e4, 1.0), (1.0, 1e-5)):
        scaled = fitted([x_unit * x for x in inputs], [y_unit * y for y in targets], STRENGTH * x_unit * y_unit)
        np.testing.assert_allclose(scaled.weights * x_unit / y_unit, plain.weights, rtol=1e-5, atol=1e-9)
        assert abs(int(scaled.iterations) - int(plain.iterations)) <= 5


def test_the_certificate_bounds_the_error_at_every_tolerance():
    inputs, targets = ragged()
    found = [fitted(inputs, targets, tolerance=tolerance) for tolerance in (1e-2, 1e-4, 1e-6, 1e-8, 1e-12)]
    for one in found:
        assert one.converged and one.objective / found[-1].objective - 1 <= one.certificate + 1e-13
    assert found[0].iterations < found[1].iterations < found[2].iterations < found[-1].iterations


def test_the_certificate_is_about_the_gap_to_the_normal_equations():
    """Ridge regression with intercepts, whose least objective NumPy knows; early ends, so that there is a gap."""
    inputs, targets = ragged()
    best = 0.0
    for x, y in zip(inputs, targets, strict=True):
        if len(y):
            x, y = x - x.mean(0), y - y.mean()
            w = np.linalg.solve(x.T @ x + STRENGTH * np.eye(x.shape[1]), x.T @ y)
            best += 0.5 * np.sum((y - x @ w) ** 2) + 0.5 * STRENGTH * w @ w
    with jax.enable_x64(True):
        run = jax.jit(lambda rows, tolerance: fit(rows, ridge(STRENGTH), intercept=True, tolerance=tolerance))
        found = [run(rows_of(inputs, targets), tolerance) for tolerance in (1e-1, 1e-3)]
    assert found[0].iterations < found[1].iterations
    for one in found:
        gap = float(one.objective) - best
        assert 0 < gap <= float(one.certificate) * float(one.objective) < 1.5 * gap


def test_the_certificate_of_logistic_losses_is_the_gap_up_to_third_order():
    """Inputs of 0 leave the intercepts alone, and the best ones are the log odds of the labels."""
    positive, size = np.array([2, 39, 12]), 40
    labels = (np.arange(size)[:, None] < positive).astype(float)
    share = positive / size
    best = -size * np.sum(share * np.log(share) + (1 - share) * np.log(1 - share))
    with jax.enable_x64(True):
        rows = columns(np.zeros((size, 3)), labels)
        run = jax.jit(lambda rows, tolerance: fit(rows, ridge(1.0), loss=logistic, intercept=True, tolerance=tolerance))
        for tolerance, error in ((1e-1, 0.3), (1e-2, 0.1), (1e-4, 0.01), (1e-6, 0.001)):
            found = run(rows, tolerance)
            assert found.converged and not found.weights.any()
            np.testing.assert_allclose(found.certificate * found.objective, found.objective - best, rtol=error)
    np.testing.assert_allclose(found.intercepts, np.log(share / (1 - share)), rtol=1e-3)


@pytest.mark.slow
def test_float32_is_as_accurate_as_it_says():
    inputs, targets = ragged()
    exact = fitted(inputs, targets).objective
    found = jax.jit(lambda rows: fit(rows, l21(STRENGTH), intercept=True))(rows_of(inputs, targets, 14))
    assert found.weights.dtype == jnp.float32 and found.converged
    assert abs(float(found.objective) / exact - 1) <= float(found.certificate) + 2e-6


@pytest.mark.slow
def test_the_parts_of_a_sum_are_each_penalized_in_their_own_way():
    """The dirty model, by its conditions of optimality: one dual for both parts, with its own inequality for each."""
    inputs, targets = ragged()
    with jax.enable_x64(True):
        rows = rows_of(inputs, targets, 14)
        found = jax.jit(lambda rows: fit(rows, dirty(6.0, 2.5), intercept=True, tolerance=1e-13))(rows)
        found = jax.tree.map(np.asarray, found)
    block, element = found.parts["block"], found.parts["element"]
    np.testing.assert_allclose(block + element, found.weights, rtol=1e-12)
    dual = -slopes(inputs, targets, found)[0]
    for part in found.duals.values():
        np.testing.assert_allclose(part, dual, atol=1e-4)
    assert np.any(element) and np.any(block)
    np.testing.assert_allclose(dual[element != 0], 2.5 * np.sign(element[element != 0]), atol=1e-4)
    assert np.all(np.abs(dual) < 2.5 + 1e-4) and np.all(np.abs(dual).sum(0) < 6.0 + 1e-4)
    np.testing.assert_allclose(np.sum(dual * block), 6.0 * np.abs(block).max(0).sum(), rtol=1e-5)


def test_logistic_regression_of_each_task_is_scikit_learns():
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(40, 3))
    labels = (inputs @ draw.normal(size=(3, 2)) + draw.normal(size=(40, 2)) > 0.5).astype(float)
    labels[:5, 1] = np.nan
    with jax.enable_x64(True):
        rows = columns(inputs, labels)
        run = jax.jit(lambda rows: fit(rows, ridge(0.5), loss=logistic, intercept=True, tolerance=1e-12))
        found = run(rows)
        signs = run(rows._replace(targets=2.0 * rows.targets - 1.0))
        wrong = run(rows._replace(targets=2.0 * rows.targets))
    assert found.converged
    for task in range(2):
        there = ~np.isnan(labels[:, task])
        peer = LogisticRegression(C=1 / 0.5, tol=1e-12, max_iter=1000).fit(inputs[there], labels[there, task])
        np.testing.assert_allclose(found.weights[task], peer.coef_[0], rtol=1e-5)
        np.testing.assert_allclose(found.intercepts[task], peer.intercept_[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(signs.weights, found.weights)
    # Labels of another kind cannot be told from inside a compiled function, but do not go unnoticed.
    assert np.isnan(wrong.objective) and not wrong.converged


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (
            TypeError,
            r"fit: rows must be TaskRows, as pad and columns make them, found \(1, 2\)",
            lambda rows: fit((1, 2), l21()),  # pyright: ignore[reportArgumentType]
        ),
        (
            TypeError,
            "fit: penalty must be a Penalty, found the function",
            lambda rows: fit(rows, l21),  # pyright: ignore[reportArgumentType]
        ),
        (ValueError, "fit: penalty must have a prox", lambda rows: fit(rows, l21()._replace(prox=None))),
        (
            TypeError,
            "fit: loss must be a Loss, such as squared or logistic, found the function",
            lambda rows: fit(rows, l21(), loss=l21),  # pyright: ignore[reportArgumentType]
        ),
        (ValueError, "fit: tolerance must be above 0, found 0", lambda rows: fit(rows, l21(), tolerance=0.0)),
        (
            ValueError,
            r"mask must have shape \[2, 3\] or \[1, 3\], found \(2, 2\)",
            lambda rows: fit(rows._replace(mask=jnp.ones((2, 2), bool)), l21()),
        ),
        (
            TypeError,
            "fit: mask must be an array of type bool, found",
            lambda rows: fit(rows._replace(mask=jnp.ones((2, 3), int)), l21()),
        ),
    ],
)
def test_mistakes_are_named(error, message, call):
    with pytest.raises(error, match=message):
        call(columns(np.ones((3, 2)), np.ones((3, 2))))
