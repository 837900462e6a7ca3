"""Labels to a bank of binary tasks, in NumPy and in JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mtljax.data.multilabel import multilabel, one_vs_rest
from mtljax.types import Batch

LABELS = np.array([[1.0, 0.0, np.nan], [np.nan, 1.0, 0.0]])


def test_a_missing_label_is_masked_in_its_own_task_alone():
    targets, mask = multilabel(LABELS)
    assert targets.tolist() == [[1, 0, 0], [0, 1, 0]] and targets.dtype == np.float32
    assert mask.tolist() == [[True, True, False], [False, True, True]]


@given(
    labels=arrays.arrays(
        np.float32, st.tuples(st.integers(1, 5), st.integers(1, 12)), elements=st.sampled_from([0, 1, np.nan])
    )
)
def test_nan_and_a_sentinel_mean_the_same_and_what_is_there_stays(labels):
    targets, mask = multilabel(labels)
    np.testing.assert_array_equal(np.where(mask, targets, np.nan), labels)
    whole = np.nan_to_num(labels, nan=-1).astype(np.int32)
    jax.tree.map(np.testing.assert_array_equal, multilabel(whole, sentinel=-1), (targets, mask))


def test_in_jax_and_under_jit():
    jax.tree.map(np.testing.assert_array_equal, jax.jit(multilabel)(jnp.asarray(LABELS)), multilabel(LABELS))
    expected = one_vs_rest(np.array([2, 0, 1]), 3)
    jax.tree.map(np.testing.assert_array_equal, one_vs_rest(jnp.array([2, 0, 1]), 3), expected)


def test_bfloat16_in_numpy_is_a_floating_type_too():
    jax.tree.map(np.testing.assert_array_equal, multilabel(LABELS.astype(jnp.bfloat16)), multilabel(LABELS))


def test_a_batch_keeps_its_inputs_and_its_mask():
    batch = Batch(np.arange(2), {"labels": LABELS}, {"labels": np.array([True, False])})
    found = multilabel(batch)
    assert found.inputs is batch.inputs
    assert found.mask["labels"].tolist() == [[True, True, False], [False, False, False]]
    assert found.targets["labels"].tolist() == [[1, 0, 0], [0, 0, 0]]
    weights = np.float32([[1, 0, 2], [3, 4, 5]])
    found = multilabel(batch._replace(mask={"labels": weights}))
    expected = np.where(np.isnan(LABELS), 0, weights)
    np.testing.assert_array_equal(found.mask["labels"], expected)
    np.testing.assert_array_equal(found.targets["labels"], np.where(expected > 0, LABELS, 0))


def test_one_vs_rest():
    classes, known = np.array([3, 0, 9, 1]), np.array([True, True, False, True])
    targets, mask = one_vs_rest(classes, 4, mask=known)
    np.testing.assert_array_equal(targets, np.eye(4)[[3, 0, 0, 1]] * known[:, None])
    assert targets.dtype == np.float32 and mask.tolist() == known.tolist()
    assert one_vs_rest(np.arange(11), 11)[0].argmax(1).tolist() == list(range(11))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: multilabel(np.zeros(3)), ValueError, r"labels must be \[N, L\], .* found \[3\]"),
        (lambda: multilabel(np.zeros((3, 0))), ValueError, r"L at least 1, found \[3, 0\]"),
        (
            lambda: multilabel(Batch(0, {"a": LABELS}, {"b": np.ones(2, bool)})),
            ValueError,
            r"multilabel: mask must be for the targets \['a'\], found \['b'\]",
        ),
        (
            lambda: multilabel(Batch(0, {"a": LABELS}, {"a": np.ones((2, 1), bool)})),
            ValueError,
            r"mask\['a'\] must be \[N\] or \[N, L\] of .*, found \[2, 1\]",
        ),
        (
            lambda: multilabel(np.array([[2.0]])),
            ValueError,
            "must be 0, 1, NaN or the sentinel None, found 2",
        ),
        (
            lambda: multilabel(Batch(0, {"a": 0, "b": 0})),
            ValueError,
            r"one target \[N, L\], found \['a', 'b'\]",
        ),
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
    ],
)
def test_mistakes(call, error, message):
    with pytest.raises(error, match=message):
        call()
