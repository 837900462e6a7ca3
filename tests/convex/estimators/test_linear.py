"""The estimators do what scikit-learn expects, and what `fit` does."""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import check_estimator

from mtljax.convex import MultiTaskClassifier, MultiTaskRegressor, columns, fit, logistic
from mtljax.penalties.l21 import l21
from tests.convex.problems import ragged


def test_importing_it_does_not_import_scikit_learn():
    code = "import sys, mtljax.convex; mtljax.convex.MultiTaskRegressor(); sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_rows_of_named_tasks_are_fitted_as_ragged_tasks_and_predicted_by_name():
    inputs, targets = ragged((7, 12, 9))
    x, y = np.concatenate(inputs), np.concatenate(targets)
    names = np.repeat(["b", "c", "a"], [7, 12, 9])
    shuffled = np.random.default_rng(0).permutation(len(y))
    y_missing = y.copy()
    y_missing[0] = np.nan
    numbers = np.repeat([20, 30, 10], [7, 12, 9])
    with jax.enable_x64(True):
        model = MultiTaskRegressor(l21, strength=0.5).fit(x[shuffled], y_missing[shuffled], tasks=names[shuffled])
        other = MultiTaskRegressor(l21, strength=0.5).fit(x[1:], y[1:], tasks=numbers[1:])
    assert model.tasks_.tolist() == ["a", "b", "c"] and model.coef_.shape == (3, 4) and model.certificate_ <= 1e-6
    predicted = model.predict(x, tasks=names)
    np.testing.assert_allclose(predicted, other.predict(x, tasks=numbers), rtol=1e-3)
    errors = (predicted - y)[1:]
    objective = 0.5 * np.sum(errors**2) + 0.5 * np.linalg.norm(model.coef_, axis=0).sum()
    np.testing.assert_allclose(model.objective_, objective, rtol=1e-9)
    assert 0.9 < model.score(x, y_missing, tasks=names) <= 1.0
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(x, tasks=names), predicted)


@functools.cache
def by_name():
    inputs, targets = ragged((2, 3))
    x = np.concatenate(inputs)
    return MultiTaskRegressor(l21, strength=0.5).fit(x, np.concatenate(targets), tasks=["a", "b", "a", "b", "b"]), x


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["d"] * 5, "the model was fitted without rows of task 'd'"),
        (None, "predictions need the tasks of their rows"),
        (["a", "b"], r"tasks must have shape \(5,\), one per row, found \(2,\)"),
    ],
    ids=["unknown", "none", "too few"],
)
def test_tasks_of_rows_that_do_not_fit_the_model_are_refused(tasks, message):
    model, x = by_name()
    with pytest.raises(ValueError, match=message):
        model.predict(x, tasks=tasks)


def test_parameters_are_scikit_learns():
    model = MultiTaskRegressor(l21, strength=2.0)
    copy = clone(model)
    assert isinstance(copy, MultiTaskRegressor) and copy.get_params() == model.get_params()
    assert repr(model.set_params(tol=1e-3)) == "MultiTaskRegressor(penalty=l21, strength=2.0, tol=0.001)"


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("Invalid parameter 'alpha' for estimator MultiTaskRegressor", lambda model: model.set_params(alpha=1.0)),
        (
            r"l21: strength must be at least 0, found -1\.0",
            lambda model: model.set_params(strength=-1.0).fit([[0.0], [1.0]], [0.0, 1.0]),
        ),
        (
            r"with tasks, y must have shape \(n,\)",
            lambda model: model.fit([[0.0], [1.0]], [[0.0], [1.0]], tasks=[0, 1]),
        ),
        (
            "must have two classes, found 3",
            lambda model: MultiTaskClassifier().fit([[0.0], [1.0], [2.0]], [0, 1, 2]),
        ),
    ],
)
def test_mistakes(message, call):
    with pytest.raises(ValueError, match=message):
        call(MultiTaskRegressor(l21, strength=2.0))


@pytest.mark.slow
def test_several_columns_of_labels_with_some_missing():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(60, 3))
    y = np.where(x @ draw.normal(size=(3, 4)) + 0.3 * draw.normal(size=(60, 4)) > 0, 7.0, 3.0)
    y[draw.random(y.shape) < 0.2] = np.nan
    with jax.enable_x64(True):
        model = MultiTaskClassifier(l21, strength=0.5).fit(x, y)
        expected = fit(columns(x, (y == 7) + 0.0 * y), l21(0.5), loss=logistic, intercept=True)
        np.testing.assert_allclose(model.coef_, expected.weights, atol=1e-6)
    assert model.classes_.tolist() == [3.0, 7.0] and model.predict(x).shape == (60, 4)
    np.testing.assert_array_equal(model.predict(x) == 7.0, model.predict_proba(x) > 0.5)
    assert 0.85 < model.score(x, y) <= 1.0
    regression = MultiTaskRegressor(l21, strength=0.5).fit(x, y)
    assert regression.predict(x).shape == (60, 4) and 0.4 < regression.score(x, y) < 1.0


@pytest.mark.slow
def test_searches_and_warnings():
    inputs, targets = ragged((40,))
    search = GridSearchCV(MultiTaskRegressor(l21), {"strength": [0.1, 1e3]}, cv=3).fit(inputs[0], targets[0])
    assert search.best_params_ == {"strength": 0.1}
    assert np.all(cross_val_score(search.best_estimator_, inputs[0], targets[0], cv=3) > 0.8)
    with pytest.warns(UserWarning, match="after 5 iterations the objective may be"):
        MultiTaskRegressor(l21, max_iter=5, tol=1e-7).fit(inputs[0], targets[0])


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [MultiTaskRegressor(), MultiTaskClassifier()], ids=lambda e: type(e).__name__)
def test_scikit_learns_own_checks_pass(estimator):
    with warnings.catch_warnings():
        # That it does not inherit from BaseEstimator, and what it skips.
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None, on_skip=None)
    failed = {result["check_name"]: result["exception"] for result in results if result["status"] == "failed"}
    assert not failed
    assert sum(result["status"] == "passed" for result in results) > 45
