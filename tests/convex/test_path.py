"""Paths and cross-validation, against fits one by one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.convex import (
    Linear,
    columns,
    cross_validate,
    explained_variance,
    fit,
    fit_path,
    fold_numbers,
    logistic,
    predict,
)
from mtljax.penalties.dirty import dirty
from mtljax.penalties.l21 import l21
from tests.convex.problems import ragged, rows_of

STRENGTHS = np.array([30.0, 0.5, 0.05])
OPTIONS = {"intercept": True, "tolerance": 1e-10}


@pytest.mark.slow
def test_cross_validation_is_a_loop_over_folds_and_strengths():
    inputs, targets = ragged()
    with jax.enable_x64(True):
        rows = rows_of(inputs, targets)
        one = jax.jit(lambda mask, strength: fit(rows._replace(mask=mask), l21(strength), **OPTIONS))
        both = jax.jit(
            lambda key: (
                cross_validate(rows, l21, STRENGTHS, folds=3, key=key, **OPTIONS),
                fold_numbers(key, rows, 3),
            )
        )
        found, folds = jax.tree.map(np.asarray, both(jax.random.key(0)))
        mask = np.asarray(rows.mask)
        expected = np.zeros((3, 3))
        for k in range(3):
            for i, strength in enumerate(STRENGTHS):
                model = jax.tree.map(np.asarray, one(mask & (folds != k), strength))
                errors = [
                    y[fold[: len(y)] == k] - x[fold[: len(y)] == k] @ w - b
                    for x, y, w, b, fold in zip(inputs, targets, model.weights, model.intercepts, folds, strict=True)
                ]
                expected[k, i] = -0.5 * np.mean(np.concatenate(errors) ** 2)
        best = one(mask, STRENGTHS[expected.mean(0).argmax()])
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4)
    np.testing.assert_allclose(found.mean, found.scores.mean(0), rtol=1e-12)
    assert found.index == expected.mean(0).argmax() == 1 and found.strength == STRENGTHS[1]
    np.testing.assert_allclose(found.fit.objective, best.objective, rtol=1e-9)
    assert np.all(found.fit.converged)


@pytest.mark.slow
def test_a_path_is_its_fits_in_any_order_and_at_once():
    inputs, targets = ragged()
    with jax.enable_x64(True):
        rows = rows_of(inputs, targets)
        single = jax.jit(jax.vmap(lambda strength: fit(rows, l21(strength), **OPTIONS)))(STRENGTHS)
        for order in (slice(None), slice(None, None, -1)):
            path = jax.jit(lambda strengths: fit_path(rows, l21, strengths, **OPTIONS))(STRENGTHS[order])
            np.testing.assert_allclose(path.objective, single.objective[order], rtol=1e-9)
            np.testing.assert_allclose(path.weights, single.weights[order], atol=1e-4)
            assert np.all(path.converged)


@pytest.mark.slow
def test_folds_may_be_given_scored_otherwise_fitted_at_once_and_vmapped_over_splits():
    inputs, targets = ragged((9, 12, 10))
    with jax.enable_x64(True):
        rows = rows_of(inputs, targets)
        folds = np.asarray(fold_numbers(jax.random.key(1), rows, 3))

        def run(mask, **options):
            own = rows._replace(mask=mask)
            return cross_validate(own, l21, STRENGTHS, folds=folds, score=explained_variance, **OPTIONS, **options)

        masks = np.stack([rows.mask, rows.mask & (np.arange(12) != 4)[None]])
        one = [jax.jit(run)(mask) for mask in masks]
        two = jax.jit(jax.vmap(lambda mask: run(mask, at_once=3)))(masks)
    for split in range(2):
        np.testing.assert_allclose(two.scores[split], one[split].scores, rtol=1e-4)
    assert np.all(np.asarray(one[0].scores[:, 1]) > 50.0)


@pytest.mark.slow
def test_strengths_may_be_several_and_losses_others():
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(40, 3))
    labels = (inputs @ draw.normal(size=(3, 2)) + draw.normal(size=(40, 2)) > 0.5).astype(float)
    labels[:5, 1] = np.nan
    with jax.enable_x64(True):
        rows = columns(inputs, labels)
        strengths = {"block": np.array([6.0, 2.0]), "element": np.array([3.0, 1.2])}

        def make(strength):
            return dirty(strength["block"], strength["element"])

        found = jax.jit(
            lambda key: cross_validate(rows, make, strengths, folds=4, key=key, loss=logistic, intercept=True)
        )(jax.random.key(0))
        chosen = jax.tree.map(lambda x: x[found.index], strengths)
        again = fit(rows, make(chosen), loss=logistic, intercept=True)
    assert found.scores.shape == (4, 2) and np.all(np.asarray(found.scores) < 0)
    np.testing.assert_allclose(found.fit.objective, again.objective, rtol=2e-6)
    assert {name: float(x) for name, x in found.strength.items()} == {name: float(x) for name, x in chosen.items()}


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (
            TypeError,
            "cross_validate: key must be one PRNG key",
            lambda rows, strengths: cross_validate(rows, l21, strengths),
        ),
        (
            ValueError,
            "cross_validate: folds must be at least 2, found 1",
            lambda rows, strengths: cross_validate(rows, l21, strengths, folds=1, key=jax.random.key(0)),
        ),
        (
            TypeError,
            "cross_validate: folds must be integers, found",
            lambda rows, strengths: cross_validate(rows, l21, strengths, folds=jnp.ones((1, 4))),
        ),
        (
            ValueError,
            r"folds must have the shape of the mask, \(1, 4\), found \(2, 4\)",
            lambda rows, strengths: cross_validate(rows, l21, strengths, folds=jnp.ones((2, 4), int)),
        ),
        (
            ValueError,
            "fit_path: strengths must be arrays with one leading axis",
            lambda rows, strengths: fit_path(rows, l21, 1.0),
        ),
        (
            ValueError,
            r"l21: strength must be at least 0, found -1\.0",
            lambda rows, strengths: fit_path(rows, l21, -strengths),
        ),
        (
            ValueError,
            r"predict: inputs must have shape \[2, N, 3\] or \[N, 3\], found",
            lambda rows, strengths: predict(Linear(jnp.ones((2, 3)), jnp.ones(2)), jnp.ones((4, 2))),
        ),
    ],
)
def test_mistakes_are_named(error, message, call):
    with pytest.raises(error, match=message):
        call(columns(np.ones((4, 2)), np.ones((4, 2))), jnp.ones(2))
