"""Missing labels never reach arithmetic, and a task without any changes nothing for the others."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import mtljax
from mtljax.data.labels import label_counts, mask_missing
from mtljax.types import Batch, Params

NAN = np.nan


def example():
    return Batch(
        inputs=np.zeros((4, 2), np.float32),
        targets={
            "class": np.array([3, -1, 0, 2], np.int32),
            "map": np.array([[1.0, NAN], [2.0, 3.0], [-9.0, 1.0], [0.0, 0.0]], np.float32),
            "value": np.array([NAN, 1.0, 2.0, -1.0], np.float32),
        },
        mask={"class": np.array([True, True, True, False])},
    )


def test_nan_sentinel_given_and_former_masks_are_combined():
    masked = mask_missing(
        example(), sentinel={"class": -1, "map": -9}, present={"value": np.array([True, True, False, True])}
    )
    assert {name: mask.tolist() for name, mask in masked.mask.items()} == {
        "class": [True, False, True, False],
        "map": [False, True, False, True],
        "value": [False, True, False, True],
    }
    np.testing.assert_array_equal(masked.targets["class"], [3, 0, 0, 0])
    np.testing.assert_array_equal(masked.targets["map"], [[0, 0], [2, 3], [0, 0], [0, 0]])
    np.testing.assert_array_equal(masked.targets["value"], [0, 1, 0, -1])
    assert [leaf.dtype.name for leaf in masked.targets.values()] == ["int32", "float32", "float32"]
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(masked))


def test_labels_of_pixels_and_of_entries_are_missing_one_by_one():
    rng = np.random.default_rng(0)
    depth, normals = rng.normal(size=(2, 3, 4)).astype(np.float32), rng.normal(size=(2, 3, 4, 3)).astype(np.float32)
    depth[0, 1, 2] = normals[1, 0, 0, 1] = NAN
    batch = Batch(np.zeros(2), {"depth": depth, "normals": normals, "value": np.array([NAN, 1.0])})
    masked = mask_missing(batch, axes={"depth": 3, "normals": 3}, present={"depth": np.arange(6).reshape(2, 3) > 0})
    there = ~np.isnan(depth) & (np.arange(6) > 0).reshape(2, 3, 1)
    np.testing.assert_array_equal(masked.mask["depth"], there)
    np.testing.assert_array_equal(masked.targets["depth"], np.where(there, depth, 0))
    there = ~np.isnan(normals).any(-1)
    np.testing.assert_array_equal(masked.mask["normals"], there)
    np.testing.assert_array_equal(masked.targets["normals"], np.where(there[..., None], normals, 0))
    assert masked.mask["value"].tolist() == [False, True]
    assert label_counts(masked).labels == {"depth": 2, "normals": 2, "value": 1}


def test_weights_stay_weights():
    batch = Batch(np.zeros(3), {"a": np.array([[1.0, NAN], [2.0, 3.0], [4.0, 5.0]])}, {"a": np.float32([0.5, 2, 0])})
    masked = mask_missing(batch, axes=2)
    assert masked.mask["a"].dtype == np.float32 and masked.mask["a"].tolist() == [[0.5, 0], [2, 2], [0, 0]]
    assert masked.targets["a"].tolist() == [[1, 0], [2, 3], [0, 0]]
    assert label_counts(masked).labels == {"a": 2}


def test_one_sentinel_holds_for_every_task_that_can_hold_it():
    masked = mask_missing(example()._replace(mask={}), sentinel=-1)
    assert masked.mask["class"].tolist() == [True, False, True, True]
    assert masked.mask["value"].tolist() == [False, True, True, False]
    half = Batch(np.zeros(2), {"a": np.array([0, 255], np.uint8), "b": np.array([True, False])})
    assert all(mask.all() for mask in mask_missing(half, sentinel=-1).mask.values())


def test_traced_arrays_and_dicts_of_batches_do_the_same():
    masked = mask_missing(example(), sentinel=-1)
    on_device = jax.jit(lambda batch: mask_missing(batch, sentinel=-1))(jax.tree.map(jnp.asarray, example()))
    jax.tree.map(np.testing.assert_array_equal, masked, on_device)
    by_task = mask_missing({"x": example()}, sentinel=-1)
    jax.tree.map(np.testing.assert_array_equal, masked, by_task["x"])
    pairs = Batch(np.zeros(2), {"a": {"u": np.array([NAN, 1.0]), "v": np.array([1, 2])}})
    found = mask_missing(pairs)
    assert found.mask["a"].tolist() == [False, True]
    assert found.targets["a"]["v"].tolist() == [0, 2]


def test_bfloat16_in_numpy_is_a_floating_type_too():
    half = np.array([1.0, NAN, -1.0], jnp.bfloat16)
    masked = mask_missing(Batch(np.zeros(3), {"a": half}), sentinel={"a": -1})
    assert masked.mask["a"].tolist() == [True, False, False]
    assert masked.targets["a"].tolist() == [1, 0, 0] and masked.targets["a"].dtype == jnp.bfloat16
    assert mask_missing(Batch(np.zeros(3), {"a": half}), sentinel=1e300).mask["a"].tolist() == [True, False, True]


def test_masking_twice_changes_nothing():
    once = mask_missing(example(), sentinel=-1)
    jax.tree.map(np.testing.assert_array_equal, mask_missing(once), once)


def test_label_counts():
    masked = mask_missing(example(), sentinel={"class": -1})
    assert label_counts(masked).labels == {"class": 2, "map": 3, "value": 3}
    none = masked._replace(mask=masked.mask | {"map": np.zeros(4, bool)})
    own = {"other": Batch(np.zeros(2), {"other": np.zeros(2)})}
    counts = label_counts(iter([masked, none, own]))
    assert counts.labels == {"class": 4, "map": 3, "other": 2, "value": 6}
    assert counts.examples == {"class": 8, "map": 8, "other": 2, "value": 8}
    assert counts.empty == {"class": 1, "map": 2, "other": 2, "value": 1}


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (
            ValueError,
            r"sentinel must be for the targets \['class', 'map', 'value'\], found \['no'\]",
            {"sentinel": {"no": 1}},
        ),
        (ValueError, r"present must be for .* found \['no'\]", {"present": {"no": np.ones(4, bool)}}),
        (
            ValueError,
            r"present\['map'\] must be of shape \(4,\), found .* \(3,\)",
            {"present": {"map": np.ones(3, bool)}},
        ),
        (TypeError, r"present\['map'\] must be of dtype bool, found float", {"present": {"map": np.ones(4)}}),
        (TypeError, r"present\['map'\] must be an array of bool, found", {"present": {"map": [True] * 4}}),
        (
            ValueError,
            r"sentinel of 'class' must be .* int32 can hold, found 0.5",
            {"sentinel": {"class": 0.5}},
        ),
        (ValueError, r"sentinel of 'map' must be .* float32 can hold, found 1e\+39", {"sentinel": {"map": 1e39}}),
    ],
)
def test_mistakes(error, message, arguments):
    with pytest.raises(error, match=f"mask_missing: {message}"):
        mask_missing(example(), **arguments)


def test_a_mask_for_no_target_is_named():
    with pytest.raises(ValueError, match=r"mask_missing: mask must be for .* found \['no'\]"):
        mask_missing(example()._replace(mask={"no": np.ones(4, bool)}))


@pytest.mark.parametrize("call", [mask_missing, label_counts])
@pytest.mark.parametrize(
    ("target", "shapes"),
    [
        ({"u": np.zeros(4), "v": np.zeros(1)}, r"\[\(4,\), \(1,\)\]"),
        (3, r"\[\(\)\]"),
        ((), r"\[\]"),
    ],
    ids=["two lengths", "number", "nothing"],
)
def test_targets_without_one_length_are_named(call, target, shapes):
    with pytest.raises(ValueError, match=rf"targets\['a'\] must be arrays .* one length, found shapes {shapes}"):
        call(Batch(np.zeros(4), {"a": target}))


def test_what_is_no_batch_is_named():
    with pytest.raises(TypeError, match=r"label_counts: batch must be a Batch.* found int"):
        label_counts([3])


TASKS = {name: mtljax.Task(mtljax.losses.squared_error) for name in ("a", "b", "c")}


def make_step(method):
    model = mtljax.Model(
        init=lambda key, inputs: (),
        apply=lambda params, state, x, *, tasks=None, key=None, train=False: (
            {name: (x * params.shared[None, :]).sum(1) * own for name, own in params.tasks.items()},
            state,
        ),
    )
    init, step = mtljax.training.make_train_step(mtljax.make_losses_fn(model, TASKS), method, optax.sgd(0.1))
    params = Params(jnp.array([0.5, -1.0]), {"a": jnp.float32(1), "b": jnp.float32(2), "c": jnp.float32(-1)})
    return jax.jit(step), init(params, key=jax.random.key(0))


EQUAL, START = make_step(mtljax.methods.equal())
INPUTS = np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0], [-1.0, 1.0]], np.float32)


def by_hand(targets):
    """One step of equal weighting in NumPy; labels are missing where they are NaN."""
    shared, rate = np.array([0.5, -1.0]), 0.1
    own = {"a": 1.0, "b": 2.0, "c": -1.0}
    features, move, moved = INPUTS.astype(float) @ shared, np.zeros(2), {}
    for name, value in own.items():
        rows = ~np.isnan(targets[name])
        residual = 2 * (features * value - np.nan_to_num(targets[name])) * rows / max(rows.sum(), 1)
        move += residual @ INPUTS * value
        moved[name] = value - rate * (residual @ features)
    return shared - rate * move, moved


TARGET = arrays.arrays(np.float32, 4, elements=st.one_of(st.just(np.float32(NAN)), st.floats(-4, 4, width=32)))


@settings(max_examples=30)
@given(targets=st.fixed_dictionaries(dict.fromkeys("abc", TARGET)))
def test_a_step_on_any_pattern_of_missing_labels_is_the_one_by_hand(targets):
    state, metrics = EQUAL(START, mask_missing(Batch(INPUTS, targets)))
    shared, own = by_hand(targets)
    active = [name for name in TASKS if not np.isnan(targets[name]).all()]
    weights = {name: float(weight) for name, weight in metrics["weights"].items()}
    assert bool(jnp.isfinite(state.params.shared).all())
    for name, target in targets.items():
        assert bool(metrics["active"][name]) == (not np.isnan(target).all())
        np.testing.assert_allclose(state.params.tasks[name], own[name], rtol=1e-4, atol=1e-4)
    if active:
        weight = weights[active[0]]
        assert weight > 0
        assert weights == {name: weight if name in active else 0.0 for name in TASKS}
        moved = np.array([0.5, -1.0]) + weight * (shared - np.array([0.5, -1.0]))
        np.testing.assert_allclose(state.params.shared, moved, rtol=1e-4, atol=1e-4)
    else:
        jax.tree.map(np.testing.assert_array_equal, state.params, START.params)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uncertainty", "pcgrad", "upgrad"])
def test_a_task_that_never_has_a_label_leaves_the_others_as_they_were(name):
    step, start = make_step(getattr(mtljax.methods, name)())
    targets = {k: np.array([1.0, NAN, -2.0, 0.5], np.float32) * (1 + i) for i, k in enumerate("abc")}
    nothing, nonsense = np.full(4, NAN, np.float32), np.full(4, 7.0, np.float32)
    first = second = start
    for _ in range(3):
        first, metrics = step(first, mask_missing(Batch(INPUTS, targets | {"b": nothing})))
        second, _ = step(
            second, mask_missing(Batch(INPUTS, targets | {"b": nonsense}), present={"b": np.zeros(4, bool)})
        )
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    assert float(first.params.tasks["b"]) == 2.0
    assert bool(jnp.isfinite(first.params.shared).all())
    assert float(metrics["weights"]["b"]) == 0.0 and not bool(metrics["active"]["b"])
    assert (np.asarray(first.params.shared) != np.asarray(start.params.shared)).all()
