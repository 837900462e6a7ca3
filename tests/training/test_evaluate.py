"""Evaluation: exact means, however many examples there are."""

from __future__ import annotations

import numpy as np

import mtljax

IDENTITY = mtljax.Model(None, lambda params, state, x, *, tasks=None, key=None, train=False: ({"a": x}, state))
TASKS = {"a": mtljax.Task(mtljax.losses.squared_error, {"error": mtljax.losses.absolute_error})}
STATE = mtljax.TrainState(0, mtljax.Params((), {"a": ()}), (), (), (), None)


def evaluate(*batches):
    return mtljax.training.make_evaluate(IDENTITY, TASKS)(STATE, iter(batches))["a"]


def test_counts_go_beyond_what_float32_holds():
    """Beyond 2^24 a float32 does not count by ones: 40 more examples would be none."""
    many = mtljax.Batch(np.zeros(2**24, np.float32), {"a": np.zeros(2**24, np.float32)})
    one = mtljax.Batch(np.full(1, 2, np.float32), {"a": np.zeros(1, np.float32)})
    found = evaluate(many, *[one] * 40)
    assert found == {"loss": 160 / (2**24 + 40), "error": 80 / (2**24 + 40)}


def test_batches_without_labels_count_for_nothing():
    batch = mtljax.Batch(np.ones(2, np.float32), {"a": np.zeros(2, np.float32)}, {"a": np.array([True, False])})
    nothing = batch._replace(targets={"a": np.full(2, np.nan, np.float32)}, mask={"a": np.zeros(2, bool)})
    assert evaluate(nothing, batch, nothing) == {"loss": 1.0, "error": 1.0}
    assert all(np.isnan(value) for value in evaluate(nothing).values())
