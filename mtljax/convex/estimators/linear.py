"""scikit-learn estimators: regression and classification of several tasks under one penalty."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from mtljax.convex.estimators.common import LinearMultiTask, checked_targets
from mtljax.convex.losses import logistic, squared


class MultiTaskRegressor(LinearMultiTask):
    r"""Least squares for several tasks under one convex penalty, as a scikit-learn estimator.

        minimise  1/2 sum of squared errors + penalty(strength)(coef_)

    Without `tasks`, the tasks are the columns of `y` `[n, T]`, and NaN is a missing label; `y` `[n]` is one task. With
    `tasks`, `y` is `[n]`, and each row belongs to one task.

    Fitting is compiled, once per shape of the data. It runs in float32 unless float64 is enabled in JAX. scikit-learn
    must be installed; this module imports it only when it is needed. The searches of scikit-learn do not pass `tasks`
    to `score`; with tasks, choose the strength by `cross_validate`.

    Args:
        penalty: function from `strength` to a penalty with a prox, such as `trace_norm` (default), `l21`, `l2_to_mean`.
        strength: argument of `penalty`; default 1.
        fit_intercept: whether each task has an intercept, which is not penalised.
        average: whether each task's loss is divided by its number of rows.
        tol: bound of the relative error of the objective; default 1e-6 in float64, 1e-5 in float32.
        max_iter: largest number of iterations.

    Attributes:
        coef_: `[T, p]`; `[p]` for one `y` `[n]` without tasks.
        intercept_: `[T]`, or a scalar.
        tasks_: with tasks, their sorted names, in the order of the rows of `coef_`.
        n_iter_: number of iterations.
        objective_: the objective.
        certificate_: the bound of its relative error at the end.

    Example:
        >>> model = MultiTaskRegressor(strength=1e-3)
        >>> model = model.fit([[0.0], [1.0], [0.0], [1.0]], [0.0, 1.0, 5.0, 7.0], tasks=["a", "a", "b", "b"])
        >>> model.predict([[2.0], [2.0]], tasks=["b", "a"]).round(1).tolist()
        [9.0, 2.0]
    """

    loss = squared

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import RegressorTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike, *, tasks: ArrayLike | None = None) -> Self:
        """Fit the model.

        Args:
            X: `[n, p]`.
            y: `[n, T]` or `[n]`; NaN where a label is missing.
            tasks: `[n]`, the name of each row's task.

        Returns:
            The estimator.

        Raises:
            ValueError: scikit-learn does not accept the inputs, or their shapes do not match.
        """
        from sklearn.utils.validation import validate_data

        x = np.asarray(
            validate_data(self, X, dtype=[np.float64, np.float32])  # pyright: ignore[reportArgumentType]
        )
        self.fit_labels(x, checked_targets(x, y), tasks)
        return self

    def predict(self, X: ArrayLike, *, tasks: ArrayLike | None = None) -> np.ndarray:
        """Predictions: `[n, T]` or `[n]`, like the `y` of `fit`.

        Args:
            X: `[n, p]`.
            tasks: `[n]`, each row's task, if `fit` had tasks.

        Raises:
            ValueError: a task was not fitted; `tasks` is given but was not in `fit`, or the reverse.
        """
        return self.linear_outputs(X, tasks)

    def score(self, X: ArrayLike, y: ArrayLike, *, tasks: ArrayLike | None = None) -> float:
        """The coefficient of determination R^2, averaged over the columns of `y`; missing labels do not count.

        Args:
            X: `[n, p]`.
            y: like that of `fit`.
            tasks: `[n]`, each row's task, if `fit` had tasks; all rows are then pooled.
        """
        outputs = self.predict(X, tasks=tasks)
        targets = checked_targets(outputs, y).reshape(outputs.shape)
        there = ~np.isnan(targets)
        mean = np.mean(targets, axis=0, where=there)
        total = np.sum(np.square(targets - mean), axis=0, where=there)
        return float(np.mean(1.0 - np.sum(np.square(targets - outputs), axis=0, where=there) / total))


class MultiTaskClassifier(LinearMultiTask):
    r"""Logistic regression for several yes-or-no tasks under one convex penalty, as a scikit-learn estimator.

        minimise  sum of log(1 + exp(-y f)) + penalty(strength)(coef_),   y = 1 for the second class, -1 for the first

    Tasks, parameters and attributes are those of `MultiTaskRegressor`. All tasks have the same two classes.

    Args:
        penalty: as in `MultiTaskRegressor`.
        strength: as in `MultiTaskRegressor`.
        fit_intercept: as in `MultiTaskRegressor`. If all rows of a task are of one class, its best intercept is
            infinite, and `tol` ends its growth.
        average: as in `MultiTaskRegressor`.
        tol: as in `MultiTaskRegressor`.
        max_iter: as in `MultiTaskRegressor`.

    Attributes:
        classes_: the two classes, sorted.
        coef_: as in `MultiTaskRegressor`, like the other attributes.

    Example:
        >>> from mtljax.penalties.l21 import l21
        >>> MultiTaskClassifier(l21, strength=0.1).set_params(tol=1e-3)
        MultiTaskClassifier(penalty=l21, strength=0.1, tol=0.001)
    """

    loss = logistic

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags(multi_class=False)
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike, *, tasks: ArrayLike | None = None) -> Self:
        """Fit the model.

        Args:
            X: `[n, p]`.
            y: `[n, T]` or `[n]`, of two classes; in numeric labels, NaN is a missing label.
            tasks: `[n]`, the name of each row's task.

        Returns:
            The estimator.

        Raises:
            ValueError: scikit-learn does not accept the inputs, shapes do not match, or there are not two classes.
        """
        from sklearn.utils.multiclass import check_classification_targets
        from sklearn.utils.validation import validate_data

        x = np.asarray(
            validate_data(self, X, dtype=[np.float64, np.float32])  # pyright: ignore[reportArgumentType]
        )
        targets = checked_targets(x, y, numeric=False)
        missing = np.isnan(targets) if targets.dtype.kind == "f" else np.zeros(targets.shape, bool)
        check_classification_targets(targets[~missing])
        self.classes_ = np.unique(targets[~missing])
        if len(self.classes_) != 2:
            kind = "multiclass" if len(self.classes_) > 2 else "one class"
            raise ValueError(
                f"Only binary classification is supported. The type of the target is {kind}: y must have two classes, "
                f"found {len(self.classes_)}"
            )
        self.fit_labels(x, np.where(missing, np.nan, targets == self.classes_[1]), tasks)
        return self

    def decision_function(self, X: ArrayLike, *, tasks: ArrayLike | None = None) -> np.ndarray:
        """Log odds of the second class: `[n, T]` or `[n]`, like the `y` of `fit`.

        Args:
            X: `[n, p]`.
            tasks: `[n]`, each row's task, if `fit` had tasks.
        """
        return self.linear_outputs(X, tasks)

    def predict_proba(self, X: ArrayLike, *, tasks: ArrayLike | None = None) -> np.ndarray:
        """Probabilities of both classes, `[n, 2]`; if `y` has several columns, those of the second class, `[n, T]`.

        Args:
            X: `[n, p]`.
            tasks: `[n]`, each row's task, if `fit` had tasks.
        """
        odds = self.decision_function(X, tasks=tasks)
        second = np.exp(-np.logaddexp(0.0, -odds))
        return second if odds.ndim == 2 else np.stack([np.exp(-np.logaddexp(0.0, odds)), second], axis=1)

    def predict(self, X: ArrayLike, *, tasks: ArrayLike | None = None) -> np.ndarray:
        """Classes: `[n, T]` or `[n]`, like the `y` of `fit`.

        Args:
            X: `[n, p]`.
            tasks: `[n]`, each row's task, if `fit` had tasks.
        """
        odds = self.decision_function(X, tasks=tasks)
        return self.classes_[(odds > 0).astype(int)]

    def score(self, X: ArrayLike, y: ArrayLike, *, tasks: ArrayLike | None = None) -> float:
        """The accuracy, the share of correctly predicted labels; missing labels do not count.

        Args:
            X: `[n, p]`.
            y: like that of `fit`.
            tasks: `[n]`, each row's task, if `fit` had tasks.
        """
        predicted = self.predict(X, tasks=tasks)
        targets = checked_targets(predicted, y, numeric=False).reshape(predicted.shape)
        there = ~np.isnan(targets) if targets.dtype.kind == "f" else np.ones(targets.shape, bool)
        return float(np.mean(predicted[there] == targets[there]))
