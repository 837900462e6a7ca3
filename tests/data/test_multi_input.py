"""Examples of one task each, by task."""

from __future__ import annotations

import numpy as np

from mtljax.data import multi_input
from mtljax.types import Batch


def test_each_task_gets_its_own_examples_in_their_order():
    index = np.array([2, 0, -1, 2, 2, 0])
    rows = {"x": np.arange(6), "y": np.arange(12).reshape(6, 2)}
    weights = np.linspace(0, 1, 6, dtype=np.float32)
    batch = Batch(rows, {"many": 10 * np.arange(6)}, {"many": weights}, {"many": index})
    found = multi_input(batch, {"many": ("z", "y", "x")})
    assert list(found) == ["z", "y", "x"]
    for name, own in {"z": [1, 5], "y": [], "x": [0, 3, 4]}.items():
        assert list(found[name].targets) == list(found[name].mask) == [name] and found[name].task == {}
        assert found[name].inputs["x"].tolist() == own
        np.testing.assert_array_equal(found[name].inputs["y"], rows["y"][own])
        np.testing.assert_array_equal(found[name].targets[name], 10 * np.array(own, int))
        np.testing.assert_array_equal(found[name].mask[name], weights[own])
