"""The tasks of a bank as entries: the same arrays by column."""

from __future__ import annotations

import numpy as np

from mtljax.data import single_tasks
from mtljax.types import Batch

RNG = np.random.default_rng(0)


def test_columns_of_targets_and_masks_become_entries_and_others_stay():
    boxes, labels = RNG.normal(size=(4, 2, 3)), RNG.normal(size=(4, 3))
    present, known = RNG.random((4, 2)) < 0.5, RNG.random(4) < 0.5
    batch = Batch(np.zeros(4), {"boxes": boxes, "labels": labels, "depth": known}, {"boxes": present, "labels": known})
    found = single_tasks(batch, {"boxes": ("near", "far"), "labels": ("a", "b", "c")})
    assert set(found.targets) == {"near", "far", "a", "b", "c", "depth"}
    assert set(found.mask) == set(found.targets) - {"depth"} and found.inputs is batch.inputs
    np.testing.assert_array_equal(found.targets["far"], boxes[:, 1])
    np.testing.assert_array_equal(found.mask["far"], present[:, 1])
    np.testing.assert_array_equal(found.targets["c"], labels[:, 2])
    assert all(found.mask[name] is known for name in "abc")
    assert np.shares_memory(found.targets["b"], labels)
