"""Rows, splits, folds, predictions and baselines."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.convex import (
    Linear,
    TaskRows,
    columns,
    explained_variance,
    fit,
    fold_numbers,
    mean_regularized,
    pad,
    pooled,
    predict,
    ridge_per_task,
    split_rows,
)
from mtljax.penalties import relation
from tests.convex.problems import ragged, rows_of

LENGTHS = np.array([7, 12, 3, 0, 9])


def masked(lengths=LENGTHS, length=12):
    mask = np.arange(length)[None] < lengths[:, None]
    zero = np.zeros(mask.shape, np.float32)
    return TaskRows(*map(jnp.asarray, (zero[:, :, None], zero, mask)))


def test_a_split_takes_a_share_of_every_task_and_differs_by_key():
    rows = masked()
    splits = jax.jit(lambda key: jax.vmap(lambda key: split_rows(key, rows, 0.5))(jax.random.split(key, 8)))
    train, test = jax.tree.map(np.asarray, splits(jax.random.key(0)))
    assert np.all(train.mask.sum(2) == np.floor(0.5 * LENGTHS + 0.5)[None])
    assert np.all((train.mask | test.mask) == np.asarray(rows.mask)) and not np.any(train.mask & test.mask)
    assert len({bytes(np.asarray(mask)) for mask in train.mask}) == 8


def test_folds_are_as_even_as_can_be_and_their_surplus_falls_anywhere():
    rows = masked(np.full(40, 5), 6)
    folds = np.asarray(jax.jit(lambda key: fold_numbers(key, rows, 3))(jax.random.key(0)))
    counts = np.stack([(folds == k).sum(1) for k in range(3)], axis=1)
    assert counts.min() == 1 and counts.max() == 2 and np.all(counts.sum(1) == 5)
    assert np.all((folds == -1) == ~np.asarray(rows.mask))
    assert set(np.argmin(counts, axis=1)) == {0, 1, 2}


def test_columns_knows_when_all_tasks_have_the_same_rows():
    inputs, targets = np.ones((3, 2)), np.ones((3, 4))
    assert columns(inputs, targets).mask.shape == (1, 3)
    targets[1] = np.nan
    rows = columns(inputs, targets)
    assert rows.mask.tolist() == [[True, False, True]] and not np.any(np.isnan(rows.targets))
    targets[2, 0] = np.nan
    assert columns(inputs, targets).mask.shape == (4, 3)


def test_explained_variance_is_that_of_the_pooled_targets():
    inputs, targets = ragged()
    outputs = [np.full_like(y, 4.0) for y in targets]
    everything, said = np.concatenate(targets), np.concatenate(outputs)
    expected = 100 * (1 - np.sum((everything - said) ** 2) / np.sum((everything - everything.mean()) ** 2))
    rows = rows_of(inputs, targets)
    padded = np.where(rows.mask, np.float32(4.0), np.float32(np.nan))
    np.testing.assert_allclose(jax.jit(explained_variance)(padded, rows), expected, rtol=1e-5)


def test_predictions_are_the_same_for_shared_and_for_repeated_inputs():
    draw = np.random.default_rng(0)
    model = Linear(jnp.asarray(draw.normal(size=(3, 2)), jnp.float32), jnp.arange(3.0))
    inputs = jnp.asarray(draw.normal(size=(5, 2)), jnp.float32)
    expected = np.asarray(model.weights) @ np.asarray(inputs).T + np.arange(3.0)[:, None]
    for given in (inputs, inputs[None], jnp.tile(inputs, (3, 1, 1))):
        np.testing.assert_allclose(predict(model, given), expected, rtol=1e-5)


def test_baselines_are_those_of_the_normal_equations():
    inputs, targets = ragged()

    def solution(x, y):
        mean_x, mean_y = (x.mean(0), y.mean()) if len(y) else (0.0, 0.0)
        w = np.linalg.solve((x - mean_x).T @ (x - mean_x) + 0.5 * np.eye(4), (x - mean_x).T @ (y - mean_y))
        return w, mean_y - w @ (mean_x + np.zeros(4))

    with jax.enable_x64(True):
        rows = rows_of(inputs, targets)
        both = jax.jit(lambda rows: [f(rows, 0.5, intercept=True) for f in (ridge_per_task, pooled)])
        own, one = jax.tree.map(np.asarray, both(rows))
    together = solution(np.concatenate(inputs), np.concatenate(targets))
    for task, (x, y) in enumerate(zip(inputs, targets, strict=True)):
        w, b = solution(x, y)
        np.testing.assert_allclose(own.weights[task], w, rtol=1e-9, atol=1e-12)
        if len(y):
            np.testing.assert_allclose(own.intercepts[task], b, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(one.weights[task], together[0], rtol=1e-9)
        np.testing.assert_allclose(one.intercepts[task], together[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shared_strength", [0.0, 0.7])
def test_tasks_near_their_mean_are_those_of_one_system_in_all_unknowns(shared_strength):
    inputs, targets = ragged()
    size = 4 * (1 + len(inputs))
    system, right = np.zeros((size, size)), np.zeros(size)
    system[:4, :4] += shared_strength * np.eye(4)
    for task, (x, y) in enumerate(zip(inputs, targets, strict=True), start=1):
        columns_of = np.zeros((len(x), size))
        columns_of[:, :4] = columns_of[:, 4 * task : 4 * task + 4] = x - (x.mean(0) if len(y) else 0.0)
        system += columns_of.T @ columns_of
        right += columns_of.T @ (y - (y.mean() if len(y) else 0.0))
        system[4 * task : 4 * task + 4, 4 * task : 4 * task + 4] += 0.5 * np.eye(4)
    solution = np.linalg.solve(system, right).reshape(-1, 4)
    with jax.enable_x64(True):
        rows = rows_of(inputs, targets)
        found = jax.jit(lambda rows: mean_regularized(rows, 0.5, shared_strength, intercept=True))(rows)
        np.testing.assert_allclose(found.weights, solution[:1] + solution[1:], rtol=1e-8, atol=1e-11)


def test_tasks_near_their_mean_are_a_fit_under_its_penalty():
    rows = rows_of(*ragged())
    strength, shared_strength = 0.8, 2.0
    omega = jnp.ones((rows.targets.shape[0],) * 2) + shared_strength / strength * jnp.eye(rows.targets.shape[0])
    directly = jax.jit(lambda rows: mean_regularized(rows, strength, shared_strength))(rows)
    iterated = jax.jit(lambda rows: fit(rows, relation(omega, shared_strength / 2)))(rows)
    assert iterated.converged
    np.testing.assert_allclose(directly.weights, iterated.weights, atol=2e-3)
    with pytest.raises(ValueError, match="mean_regularized: strength must be above 0, found 0"):
        mean_regularized(rows, 0)


def test_shared_inputs_count_as_often_as_they_are_labeled_and_no_penalty_means_the_shortest_solution():
    x, y = np.array([[3.0, 4.0], [6.0, 8.0], [3.0, 4.0]]), np.array([[1.0, 3.0], [np.nan, 5.0], [2.0, 9.0]])
    shared, repeated = columns(x, y), pad([x[[0, 2]], x], [y[[0, 2], 0], y[:, 1]])
    fitted = jax.jit(lambda *given: ([pooled(rows, 0.0) for rows in given], ridge_per_task(given[0], 0.0)))
    together, own = fitted(shared, repeated)
    # All inputs are multiples of (3, 4), 1, 2 and 1 times.
    for model in together:
        slope = (1 + 2 + 3 + 2 * 5 + 9) / (1 + 1 + 1 + 4 + 1)
        np.testing.assert_allclose(model.weights, slope * np.array([[0.12, 0.16]] * 2), rtol=1e-5)
    np.testing.assert_allclose(own.weights, np.outer([3 / 2, 22 / 6], [0.12, 0.16]), rtol=1e-5)
