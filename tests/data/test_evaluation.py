"""Batches for evaluation: every example once, one shape throughout."""

from __future__ import annotations

import chex
import jax
import numpy as np
import pytest

from mtljax.data.evaluation import evaluation_batches
from mtljax.types import Batch


def numbered(size):
    """A batch in which every array tells which example it is."""
    index = np.arange(size)
    return Batch(
        inputs={"image": np.stack([index, -index], 1).astype(np.float32), "row": index},
        targets={"a": index.astype(np.int32), "b": 2.0 * index},
        mask={"b": index % 2 == 0},
    )


@pytest.mark.parametrize(("size", "batch_size"), [(10, 4), (8, 4), (3, 8), (1, 1)])
def test_evaluation_sees_every_example_once_in_one_shape(size, batch_size):
    data = numbered(size)
    batches = list(evaluation_batches(data, batch_size))
    assert len(batches) == -(-size // batch_size)
    shapes = [jax.tree.map(lambda array: (array.shape, array.dtype), batch) for batch in batches]
    assert all(shape == shapes[0] for shape in shapes)
    assert len({jax.tree.structure(batch) for batch in batches}) == 1
    assert all(leaf.shape[0] == batch_size for leaf in jax.tree.leaves(batches[0]))
    for name, labeled in (("a", np.arange(size)), ("b", np.arange(0, size, 2))):
        seen = np.concatenate([batch.targets["a"][batch.mask[name]] for batch in batches])
        np.testing.assert_array_equal(seen, labeled)


def test_one_trace_serves_all_evaluation_batches():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def count(batch):
        return batch.mask["a"].sum()

    assert sum(int(count(batch)) for batch in evaluation_batches(numbered(10), 4)) == 10


def test_weights_and_masks_of_elements_are_0_at_the_copies():
    masks = {"a": np.arange(1.0, 4.0), "b": np.ones((3, 2), bool)}
    last = list(evaluation_batches(numbered(3)._replace(mask=masks), 2))[-1]
    assert last.mask["a"].tolist() == [3.0, 0.0] and last.mask["b"].tolist() == [[True] * 2, [False] * 2]


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "batch_size must be at least 1, found 0", lambda: evaluation_batches(numbered(4), 0)),
        (
            ValueError,
            r"evaluation_batches: mask must be for the targets \['a', 'b'\], found \['c'\]",
            lambda: evaluation_batches(numbered(4)._replace(mask={"c": np.ones(4, bool)}), 2),
        ),
        (
            TypeError,
            r"mask\['b'\] must be of dtype bool, or floating weights, found int64",
            lambda: evaluation_batches(numbered(4)._replace(mask={"b": np.ones(4, int)}), 2),
        ),
        (ValueError, "one leading length, at least 1", lambda: evaluation_batches(numbered(0), 2)),
    ],
)
def test_evaluation_mistakes(error, message, call):
    with pytest.raises(error, match=message):
        call()
