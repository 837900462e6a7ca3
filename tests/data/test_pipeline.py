"""Pipelines: every example once an epoch, resumed to the bit, one shape throughout."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

from mtljax.data import epochs, evaluation_batches
from mtljax.types import Batch


def numbered(size):
    """A batch in which every array tells which example it is."""
    index = np.arange(size)
    return Batch(
        inputs={"image": np.stack([index, -index], 1).astype(np.float32), "row": index},
        targets={"a": index.astype(np.int32), "b": 2.0 * index},
        mask={"b": index % 2 == 0},
    )


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def assert_equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for mine, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)


def test_an_epoch_is_a_permutation_and_epochs_differ():
    rows = np.concatenate([b.inputs["row"] for b in take(epochs(numbered(12), batch_size=4, seed=0), 6)])
    first, second = rows[:12], rows[12:]
    assert sorted(first) == sorted(second) == list(range(12))
    assert first.tolist() != second.tolist()
    assert first.tolist() != list(range(12))


def test_examples_stay_whole():
    for batch in take(epochs(numbered(10), batch_size=4, seed=1), 5):
        row = batch.inputs["row"]
        assert_equal(batch, jax.tree.map(lambda array, row=row: array[row], numbered(10)))


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("step", [0, 1, 2, 3, 7, 100])
def test_resuming_at_any_step_gives_the_same_batches(step, drop_last):
    arguments = {"batch_size": 4, "seed": 3, "drop_last": drop_last}
    undisturbed = take(epochs(numbered(10), **arguments), step + 8)
    resumed = take(epochs(numbered(10), **arguments, start_step=step), 8)
    for mine, other in zip(resumed, undisturbed[step:], strict=True):
        assert_equal(mine, other)


def test_a_saved_iterator_state_gives_the_same_batches():
    batches = epochs(numbered(10), batch_size=4, seed=3)
    take(batches, 5)
    state = batches.get_state()
    expected = take(batches, 4)
    again = epochs(numbered(10), batch_size=4, seed=3)
    again.set_state(state)
    for mine, other in zip(take(again, 4), expected, strict=True):
        assert_equal(mine, other)


def test_seeds_differ():
    rows = [next(epochs(numbered(100), batch_size=100, seed=seed)).inputs["row"].tolist() for seed in (0, 1)]
    assert rows[0] != rows[1]


def test_a_far_step_costs_nothing():
    assert next(epochs(numbered(10), batch_size=5, seed=0, start_step=10**12)).inputs["row"].shape == (5,)


def test_shapes_are_constant_and_the_rest_is_dropped():
    batches = take(epochs(numbered(11), batch_size=4, seed=0), 30)
    assert {b.inputs["image"].shape for b in batches} == {(4, 2)}
    seen = np.concatenate([b.inputs["row"] for b in batches])
    assert set(seen) == set(range(11))  # other examples are left out each time


def test_without_drop_last_the_last_batch_is_smaller():
    batches = take(epochs(numbered(10), batch_size=4, seed=0, drop_last=False), 6)
    assert [len(b.inputs["row"]) for b in batches] == [4, 4, 2, 4, 4, 2]
    assert sorted(np.concatenate([b.inputs["row"] for b in batches[:3]])) == list(range(10))


def test_a_dict_of_batches_is_shuffled_together():
    both = {"x": numbered(6), "y": numbered(6)}
    batch = next(epochs(both, batch_size=3, seed=0))
    assert_equal(batch["x"], batch["y"])


def test_batches_do_not_share_memory_with_the_data():
    data = numbered(4)
    next(epochs(data, batch_size=4, seed=0)).inputs["row"][:] = -1
    assert data.inputs["row"].tolist() == [0, 1, 2, 3]


def test_epochs_mistakes():
    with pytest.raises(ValueError, match="epochs: batch_size must be from 1 to 10, found 11"):
        epochs(numbered(10), batch_size=11, seed=0)
    with pytest.raises(ValueError, match="epochs: batch_size must be from 1 to 10, found 0"):
        epochs(numbered(10), batch_size=0, seed=0)
    with pytest.raises(ValueError, match="start_step must be at least 0, found -1"):
        epochs(numbered(10), batch_size=2, seed=0, start_step=-1)
    with pytest.raises(ValueError, match=r"epochs: batch must hold arrays of one leading length.*'\.inputs': 3"):
        epochs(Batch(np.zeros(3), {"a": np.zeros(2)}), batch_size=1, seed=0)


@pytest.mark.parametrize(("size", "batch_size"), [(10, 4), (8, 4), (3, 8), (1, 1)])
def test_evaluation_sees_every_example_once_in_one_shape(size, batch_size):
    data = numbered(size)
    batches = list(evaluation_batches(data, batch_size))
    assert len(batches) == -(-size // batch_size)
    shapes = [jax.tree.map(lambda array: (array.shape, array.dtype), batch) for batch in batches]
    assert all(shape == shapes[0] for shape in shapes)
    assert len({jax.tree.structure(batch) for batch in batches}) == 1
    assert all(leaf.shape[0] == batch_size for leaf in jax.tree.leaves(batches[0]))
    for name, labelled in (("a", np.arange(size)), ("b", np.arange(0, size, 2))):
        seen = np.concatenate([batch.targets["a"][batch.mask[name]] for batch in batches])
        np.testing.assert_array_equal(seen, labelled)


def test_one_trace_serves_all_evaluation_batches():
    traces = []

    @jax.jit
    def count(batch):
        traces.append(None)
        return batch.mask["a"].sum()

    assert sum(int(count(batch)) for batch in evaluation_batches(numbered(10), 4)) == 10
    assert len(traces) == 1


def test_evaluation_mistakes():
    data = numbered(4)
    with pytest.raises(ValueError, match="batch_size must be at least 1, found 0"):
        evaluation_batches(data, 0)
    with pytest.raises(
        ValueError, match=r"evaluation_batches: mask must be for the targets \['a', 'b'\], found \['c'\]"
    ):
        evaluation_batches(data._replace(mask={"c": np.ones(4, bool)}), 2)
    with pytest.raises(TypeError, match=r"mask\['b'\] must be of dtype bool, found float64"):
        evaluation_batches(data._replace(mask={"b": np.ones(4)}), 2)
    with pytest.raises(ValueError, match="one leading length, at least 1"):
        evaluation_batches(numbered(0), 2)
