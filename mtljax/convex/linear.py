"""Predictions of linear models, and the variance that they explain."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.checks import expect
from mtljax.convex.problem import TaskRows, check_rows
from mtljax.types import Array


class Linear(NamedTuple):
    """One linear model per task: `f_t(x) = weights_t' x + intercepts_t`.

    Attributes:
        weights: `[T, p]`.
        intercepts: `[T]`.
    """

    weights: Array
    intercepts: Array


class HasWeights(Protocol):
    """Anything with `weights` `[T, p]` and `intercepts` `[T]`, such as `Fit` and `Linear`."""

    @property
    def weights(self) -> Array:
        """`[T, p]`."""
        ...

    @property
    def intercepts(self) -> Array:
        """`[T]`."""
        ...


def predict(model: HasWeights, inputs: Array) -> Array:
    """Linear outputs `f_t(x_tn) = weights_t' x_tn + intercepts_t`; with logistic loss, these are the log odds.

    Args:
        model: the result of `fit` or of a baseline; if it has axes before T, use `jax.vmap`.
        inputs: `[T, N, p]`, or one set of inputs for all tasks, `[N, p]` or `[1, N, p]`.

    Returns:
        `[T, N]`, float32 at least. Outputs are not finite for rows whose inputs are not finite, also if masked.

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> predict(Linear(jnp.array([[1.0], [2.0]]), jnp.array([0.0, 1.0])), jnp.array([[3.0], [4.0]])).tolist()
        [[3.0, 4.0], [7.0, 9.0]]
    """
    linear = hasattr(model, "weights") and hasattr(model, "intercepts")
    expect(linear, "predict", "model", "a model with weights and intercepts", model, TypeError)
    expect(hasattr(inputs, "dtype"), "predict", "inputs", "an array", inputs, TypeError)
    shape, expected = jnp.shape(inputs), jnp.shape(model.weights)
    if len(expected) != 2 or jnp.shape(model.intercepts) != expected[:1]:
        raise ValueError(
            f"predict: expected weights [T, p] and intercepts [T], found shapes {expected} and "
            f"{jnp.shape(model.intercepts)}"
        )
    if len(shape) == 2:
        inputs, shape = inputs[None], (1, *shape)
    if len(shape) != 3 or shape[0] not in (1, expected[0]) or shape[2] != expected[1]:
        raise ValueError(
            f"predict: inputs must have shape [{expected[0]}, N, {expected[1]}] or [N, {expected[1]}], found {shape}"
        )
    dtype = trees.accumulator(jnp.result_type(inputs, model.weights))
    x, w = inputs.astype(dtype), model.weights.astype(dtype)
    if shape[0] == 1:
        outputs = jnp.matmul(w, x[0].T, precision=lax.Precision.HIGHEST)
    else:
        outputs = jnp.matmul(x, w[:, :, None], precision=lax.Precision.HIGHEST)[:, :, 0]
    return outputs + model.intercepts.astype(dtype)[:, None]


def explained_variance(outputs: Array, rows: TaskRows) -> Array:
    r"""The percentage of the pooled variance of all tasks' targets that the outputs explain.

        100 (1 - sum_tn (y_tn - f_tn)^2 / sum_tn (y_tn - mean y)^2)

    There is one mean for all tasks together, as in the literature on the School data, so differences between the tasks'
    means count as variance.

    Args:
        outputs: `[T, N]`.
        rows: the targets and their mask.

    Returns:
        `[]`; NaN if the targets do not vary.

    Raises:
        ValueError: outputs and targets have different shapes, or shapes of rows do not match.

    References:
        Evgeniou and Pontil, "Regularized Multi-Task Learning", KDD 2004.
        Argyriou, Evgeniou and Pontil, "Convex Multi-Task Feature Learning", Machine Learning 73, 2008.

    Example:
        >>> rows = TaskRows(jnp.ones((2, 2, 1)), jnp.array([[0.0, 1.0], [2.0, 3.0]]), jnp.ones((2, 2), bool))
        >>> float(explained_variance(jnp.array([[0.5, 0.5], [2.5, 2.5]]), rows))
        80.0
    """
    check_outputs("explained_variance", outputs, rows)
    mask = jnp.broadcast_to(rows.mask, rows.targets.shape)
    dtype = trees.accumulator(jnp.result_type(outputs, rows.targets))
    targets = jnp.where(mask, rows.targets, 0.0).astype(dtype)
    mean = jnp.sum(targets) / jnp.sum(mask)
    errors = jnp.sum(jnp.where(mask, jnp.square(targets - outputs), 0.0))
    return 100.0 * (1.0 - errors / jnp.sum(jnp.where(mask, jnp.square(targets - mean), 0.0)))


def check_outputs(name: str, outputs: Array, rows: TaskRows) -> None:
    """Check that outputs have the shape of the targets.

    Example:
        >>> rows = TaskRows(jnp.ones((2, 3, 1)), jnp.ones((2, 3)), jnp.ones((2, 3), bool))
        >>> check_outputs("score", jnp.ones(3), rows)
        Traceback (most recent call last):
        ...
        ValueError: score: outputs must have the shape of the targets, (2, 3), found (3,)
    """
    check_rows(name, rows)
    if jnp.shape(outputs) != jnp.shape(rows.targets):
        raise ValueError(
            f"{name}: outputs must have the shape of the targets, {jnp.shape(rows.targets)}, found {jnp.shape(outputs)}"
        )
