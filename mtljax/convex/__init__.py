"""Linear multi-task models under a convex penalty: fits, paths, cross-validation, baselines, estimators."""

from mtljax.convex.alternating.learning import Learned, feature_learning, relation_learning
from mtljax.convex.baselines import mean_regularized, pooled, ridge_per_task
from mtljax.convex.estimators.linear import MultiTaskClassifier, MultiTaskRegressor
from mtljax.convex.fit import Fit, fit
from mtljax.convex.linear import Linear, explained_variance, predict
from mtljax.convex.losses import Loss, logistic, squared
from mtljax.convex.path import CrossValidation, cross_validate, fit_path
from mtljax.convex.problem import TaskRows, columns, pad
from mtljax.convex.splits import fold_numbers, split_rows

__all__ = [
    "CrossValidation",
    "Fit",
    "Learned",
    "Linear",
    "Loss",
    "MultiTaskClassifier",
    "MultiTaskRegressor",
    "TaskRows",
    "columns",
    "cross_validate",
    "explained_variance",
    "feature_learning",
    "fit",
    "fit_path",
    "fold_numbers",
    "logistic",
    "mean_regularized",
    "pad",
    "pooled",
    "predict",
    "relation_learning",
    "ridge_per_task",
    "split_rows",
    "squared",
]
