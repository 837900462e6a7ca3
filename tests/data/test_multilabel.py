"""Labels to binary tasks and back, in NumPy and in JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mtljax.data.multilabel import (
    classes_from_one_vs_rest,
    multilabel_from_tasks,
    one_vs_rest,
    tasks_from_multilabel,
)
from mtljax.types import Batch

LABELS = np.array([[1.0, 0.0, np.nan], [np.nan, 1.0, 0.0]])


def test_a_missing_label_is_masked_in_its_own_task_alone():
    targets, mask = tasks_from_multilabel(LABELS, names=["z", "y", "x"])
    assert {name: array.tolist() for name, array in targets.items()} == {"z": [1, 0], "y": [0, 1], "x": [0, 0]}
    assert {name: array.tolist() for name, array in mask.items()} == {
        "z": [True, False],
        "y": [True, True],
        "x": [False, True],
    }
    assert all(array.dtype == np.float32 for array in targets.values())


@given(
    labels=arrays.arrays(
        np.float32, st.tuples(st.integers(1, 5), st.integers(1, 12)), elements=st.sampled_from([0, 1, np.nan])
    )
)
def test_there_and_back(labels):
    targets, mask = tasks_from_multilabel(labels)
    assert list(targets) == sorted(targets)  # the order of columns is the order of tasks, ten and more of them too
    np.testing.assert_array_equal(multilabel_from_tasks(targets, mask), labels)
    whole = np.nan_to_num(labels, nan=-1).astype(np.int32)
    jax.tree.map(np.testing.assert_array_equal, tasks_from_multilabel(whole, sentinel=-1), (targets, mask))


def test_in_jax_and_under_jit():
    found = jax.jit(tasks_from_multilabel)(jnp.asarray(LABELS))
    jax.tree.map(np.testing.assert_array_equal, found, tasks_from_multilabel(LABELS))
    np.testing.assert_array_equal(jax.jit(multilabel_from_tasks)(*found), LABELS)
    known = tasks_from_multilabel(LABELS)  # targets on the host, masks traced
    np.testing.assert_array_equal(jax.jit(lambda mask: multilabel_from_tasks(known[0], mask))(found[1]), LABELS)
    expected = one_vs_rest(np.array([2, 0, 1]), 3)
    jax.tree.map(np.testing.assert_array_equal, one_vs_rest(jnp.array([2, 0, 1]), 3), expected)
    assert classes_from_one_vs_rest(jax.tree.map(jnp.asarray, expected[0])).tolist() == [2, 0, 1]


def test_bfloat16_in_numpy_is_a_floating_type_too():
    found = tasks_from_multilabel(LABELS.astype(jnp.bfloat16))
    jax.tree.map(np.testing.assert_array_equal, found, tasks_from_multilabel(LABELS))


def test_a_batch_keeps_its_inputs_and_its_mask():
    batch = Batch(np.arange(2), {"labels": LABELS}, {"labels": np.array([True, False])})
    found = tasks_from_multilabel(batch, names=["a", "b", "c"])
    assert found.inputs is batch.inputs
    assert {name: array.tolist() for name, array in found.mask.items()} == {
        "a": [True, False],
        "b": [True, False],
        "c": [False, False],
    }
    assert found.targets["b"].tolist() == [0, 0]
    weights = np.float32([[1, 0, 2], [3, 4, 5]])
    found = tasks_from_multilabel(batch._replace(mask={"labels": weights}), names=["a", "b", "c"])
    there = ~np.isnan(LABELS)
    for k, name in enumerate("abc"):
        np.testing.assert_array_equal(found.mask[name], np.where(there[:, k], weights[:, k], 0))
        np.testing.assert_array_equal(found.targets[name], np.where(found.mask[name] > 0, LABELS[:, k], 0))


def test_one_vs_rest_and_back():
    classes, known = np.array([3, 0, 9, 1]), np.array([True, True, False, True])
    targets, mask = one_vs_rest(classes, 4, names=["d", "c", "b", "a"], mask=known)
    np.testing.assert_array_equal(np.stack(list(targets.values())), np.eye(4)[:, [3, 0, 0, 1]] * known[None, :])
    assert all(array.tolist() == known.tolist() for array in mask.values())
    back = classes_from_one_vs_rest(targets, names=["d", "c", "b", "a"])
    assert back[known].tolist() == [3, 0, 1] and back.dtype == np.int32
    logits = {"x": np.array([0.0, 2.0]), "y": np.array([1.0, 2.0])}
    assert classes_from_one_vs_rest(logits).tolist() == [1, 0]
    targets, _ = one_vs_rest(np.arange(11), 11)
    assert classes_from_one_vs_rest(targets).tolist() == list(range(11))


def test_mistakes():
    for call, error, message in (
        (lambda: tasks_from_multilabel(np.zeros(3)), ValueError, r"labels must be \[N, L\], .* found \[3\]"),
        (lambda: tasks_from_multilabel(np.zeros((3, 0))), ValueError, r"L at least 1, found \[3, 0\]"),
        (
            lambda: tasks_from_multilabel(Batch(0, {"a": LABELS}, {"b": np.ones(2, bool)})),
            ValueError,
            r"tasks_from_multilabel: mask must be for the targets \['a'\], found \['b'\]",
        ),
        (
            lambda: tasks_from_multilabel(Batch(0, {"a": LABELS}, {"a": np.ones((2, 1), bool)})),
            ValueError,
            r"mask\['a'\] must be \[N\] or \[N, L\] of .*, found \[2, 1\]",
        ),
        (
            lambda: multilabel_from_tasks({"a": np.zeros(2)}, {"b": np.ones(2, bool)}),
            ValueError,
            "mask must be for the t",
        ),
        (
            lambda: multilabel_from_tasks({"a": np.zeros(2)}, {"a": np.ones(1, bool)}),
            ValueError,
            r"mask\['a'\] must be of shape \(2,\), found .* \(1,\)",
        ),
        (
            lambda: tasks_from_multilabel(np.array([[2.0]])),
            ValueError,
            "must be 0, 1, NaN or the sentinel None, found 2",
        ),
        (lambda: tasks_from_multilabel(LABELS, names=["a"]), ValueError, r"names must be 3.*found \['a'\]"),
        (lambda: tasks_from_multilabel(LABELS, names=["a", "a", "b"]), ValueError, "names must be names that differ"),
        (
            lambda: tasks_from_multilabel(Batch(0, {"a": 0, "b": 0})),
            ValueError,
            r"one target \[N, L\], found \['a', 'b'\]",
        ),
        (
            lambda: multilabel_from_tasks({"a": np.zeros(2)}, names=["b"]),
            ValueError,
            r"the tasks \['a'\].*found \['b'\]",
        ),
        (lambda: multilabel_from_tasks({"a": np.zeros((2, 1))}), ValueError, r"an array \[N\] of one length"),
        (lambda: one_vs_rest(np.array([0.0]), 2), TypeError, "classes must be integers, found float64"),
        (lambda: one_vs_rest(np.array([4]), 3), ValueError, "from 0 to 2, found 4"),
        (lambda: one_vs_rest(np.array([0]), 1), ValueError, "num_classes must be at least 2"),
        (
            lambda: one_vs_rest(np.array([0]), 2, mask=np.ones(1)),
            TypeError,
            "mask must be of dtype bool, found float64",
        ),
        (lambda: one_vs_rest(np.array([0]), 2, mask=[True]), TypeError, "mask must be an array of bool, found"),
        (
            lambda: one_vs_rest(np.array([0]), 2, mask=np.ones(2, bool)),
            ValueError,
            r"mask must be of shape \(1,\), found .* \(2,\)",
        ),
    ):
        with pytest.raises(error, match=message):
            call()
