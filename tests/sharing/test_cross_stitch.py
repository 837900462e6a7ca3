"""Cross-stitch units, and what all models with one column per task have in common."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax.sharing.cross_stitch import cross_stitch
from mtljax.sharing.frames.mixing import mix
from mtljax.sharing.frames.network import Network, key_for
from mtljax.types import TaskInputs
from tests.sharing.blocks import dense

# One shape for all layers: what these tests cost is compilation.
layer = dense(4, activation=jnp.tanh)
STAGES, HEADS = [layer, layer], {"depth": layer, "label": layer}
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
MODEL = cross_stitch(STAGES, HEADS)
KEY = jax.random.key(1)


def random_like(tree):
    """Other values of the same shapes: weights that no start makes special."""
    return jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), tree)


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def numpy_model(params, inputs):
    """The paper's equations, one sum at a time, in float64."""
    wide, names = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params), sorted(inputs)
    x = [np.asarray(inputs[name], np.float64) for name in names]
    for position, alpha in enumerate(wide.shared["units"]):
        h = [np.tanh(x[i] @ wide.shared["columns"][name][position]["w"]) for i, name in enumerate(names)]
        x = h
        if not isinstance(alpha, tuple):
            x = [sum(alpha[i, j] * h[j] for j in range(len(names))) for i in range(len(names))]
    return {name: np.tanh(x[i] @ wide.tasks[name]["w"]) for i, name in enumerate(names)}


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({}, [(2, 2, 4), (2, 2, 4)]),
        ({"per_channel": False}, [(2, 2), (2, 2)]),
        ({"after": (0,)}, [(2, 2, 4), ()]),
    ],
    ids=str,
)
def test_columns_go_on_from_the_papers_mixtures(options, shapes):
    model = cross_stitch(STAGES, HEADS, **options)
    params, state = model.init(jax.random.key(0), X)
    assert [jax.tree.map(jnp.shape, unit) for unit in params.shared["units"]] == shapes
    params = random_like(params)
    outputs, after = model.apply(params, state, X)
    expected = numpy_model(params, {"depth": X, "label": X})
    for task in HEADS:
        np.testing.assert_allclose(outputs[task], expected[task], rtol=1e-5, atol=1e-6)
    equal(after, state)


def test_units_start_convex_and_near_the_identity_at_any_number_of_tasks():
    params, _ = cross_stitch(STAGES, dict.fromkeys("abc", layer)).init(jax.random.key(0), X)
    expected = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])
    for channel in range(4):
        np.testing.assert_allclose(params.shared["units"][1][:, :, channel], expected, rtol=1e-6)
    one, _ = cross_stitch([layer], {"a": layer}, per_channel=False).init(jax.random.key(0), X)
    np.testing.assert_array_equal(one.shared["units"][0], [[1.0]])
    # 3 columns of two 4x4 layers, two units of 3x3 a channel, 3 heads.
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 3 * 2 * 16 + 2 * 9 * 4 + 3 * 16


def single_task(params, state, task, x):
    """The task's stages and head, one after another, as a network that has never heard of others."""
    states = []
    for position in range(2):
        own = params.shared["columns"][task][position], state["columns"][task][position]
        x, after = layer.apply(*own, x, key=key_for(KEY, f"stage/{position}"), train=True)
        states.append(after)
    own = params.tasks[task], state["tasks"][task]
    return layer.apply(*own, x, key=key_for(KEY, f"task/{task}"), train=True)[0], tuple(states)


def test_identity_units_are_single_task_networks_dropout_and_state_included():
    model = cross_stitch(STAGES, HEADS, same=1.0)
    params, state = model.init(jax.random.key(0), X)
    params = params._replace(shared=params.shared | {"columns": random_like(params.shared["columns"])})
    outputs, after = model.apply(params, state, X, key=KEY, train=True)
    for task in HEADS:
        expected, states = single_task(params, state, task, X)
        np.testing.assert_array_equal(outputs[task], expected)
        equal(after["columns"][task], states)


def test_the_model_starts_as_the_single_task_network_whatever_tasks_there_are():
    params, state = MODEL.init(jax.random.key(0), X)
    equal(params.shared["columns"]["depth"], params.shared["columns"]["label"])
    outputs, _ = MODEL.apply(params, state, X, key=KEY, train=True)
    for task in HEADS:
        expected, _ = single_task(params, state, task, X)
        np.testing.assert_allclose(outputs[task], expected, rtol=1e-5, atol=1e-6)
        alone, _ = cross_stitch(STAGES, {task: layer}).init(jax.random.key(0), X)
        equal((alone.shared["columns"][task], alone.tasks[task]), (params.shared["columns"][task], params.tasks[task]))


def test_gradients_reach_columns_through_their_units():
    model = cross_stitch([layer], {"a": layer, "b": layer}, per_channel=False)
    params, state = model.init(jax.random.key(0), X)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(model.apply(p, state, X)[0]["a"])))(params)
    own, other = (gradient.shared["columns"][name][0]["w"] for name in "ab")
    # At the start all columns compute the same, so a's loss reaches b's column by alpha_ab = .1 where it does its own
    # by alpha_aa = .9, and both entries of its row alike.
    assert np.abs(own).max() > 1e-3
    np.testing.assert_allclose(other, own / 9, rtol=1e-4)
    unit = gradient.shared["units"][0]
    np.testing.assert_allclose(unit[0, 0], unit[0, 1], rtol=1e-5)
    assert unit[0, 0] != 0 and not np.any(unit[1])


def test_one_task_runs_all_columns_that_it_reads_and_no_other_head():
    params, state = MODEL.init(jax.random.key(0), X)
    _, after = MODEL.apply(params, state, X, tasks=("depth",), key=KEY, train=True)
    assert jax.tree.leaves(after["columns"]) == [1, 1, 1, 1]
    assert jax.tree.leaves(after["tasks"]) == [1, 0]


def test_each_task_alone_reads_its_own_row_of_the_last_unit():
    params, state = MODEL.init(jax.random.key(0), X)
    params = random_like(params)
    every, _ = MODEL.apply(params, state, X)
    for task in HEADS:
        np.testing.assert_array_equal(MODEL.apply(params, state, X, tasks=(task,))[0][task], every[task])


def test_beyond_the_last_unit_only_what_is_asked_for_runs():
    model = cross_stitch(STAGES, HEADS, after=(0,))
    params, state = model.init(jax.random.key(0), X)
    params.shared["columns"]["label"] = (params.shared["columns"]["label"][0], None)
    _, after = model.apply(params, state, X, tasks=("depth",), key=KEY, train=True)
    assert after["columns"] == {"depth": ({"calls": 1}, {"calls": 1}), "label": ({"calls": 1}, {"calls": 0})}

    model = cross_stitch(STAGES, HEADS, after=())
    params, state = model.init(jax.random.key(0), X)
    params.shared["columns"]["label"] = params.tasks["label"] = None
    outputs, after = model.apply(params, state, TaskInputs({"depth": X}), tasks=("depth",), key=KEY, train=True)
    np.testing.assert_array_equal(outputs["depth"], single_task(params, state, "depth", X)[0])
    equal(after["columns"]["label"], state["columns"]["label"])


def test_columns_read_inputs_of_their_own_which_may_differ_in_width():
    inputs = {"depth": X, "label": jnp.asarray(RNG.normal(size=(6, 7)), jnp.float32)}
    params, state = MODEL.init(jax.random.key(0), TaskInputs(inputs))
    assert params.shared["columns"]["label"][0]["w"].shape == (7, 4)
    params = random_like(params)
    outputs, _ = MODEL.apply(params, state, TaskInputs(inputs))
    expected = numpy_model(params, inputs)
    for task in HEADS:
        np.testing.assert_allclose(outputs[task], expected[task], rtol=1e-5, atol=1e-6)


def test_a_batch_of_one_tasks_own_is_read_by_all_columns():
    params, state = MODEL.init(jax.random.key(0), X)
    params = random_like(params)
    losses = mtljax.make_losses_fn(MODEL, {task: mtljax.Task(mtljax.losses.squared_error) for task in HEADS})
    inputs = {"depth": X, "label": 2.0 * X}
    batch = {task: mtljax.Batch(x, {task: jnp.zeros((6, 4))}) for task, x in inputs.items()}
    found, _ = losses(params, state, batch)
    for task, x in inputs.items():
        expected = numpy_model(params, {"depth": x, "label": x})[task]
        assert float(found[task]) == pytest.approx(np.mean(expected**2), rel=1e-5)


def test_features_may_be_a_tree():
    fork = Network(
        lambda key, x: ((), ()),
        lambda params, state, x, *, key=None, train=False: ({"a": x[:, :1], "b": x}, state),
    )
    join = Network(
        lambda key, x: ((), ()),
        lambda params, state, x, *, key=None, train=False: (jnp.concatenate([x["a"], x["b"]], -1), state),
    )
    inputs = TaskInputs({"p": X, "q": -2.0 * X})
    for per_channel, shapes in ((True, {"a": (2, 2, 1), "b": (2, 2, 4)}), (False, (2, 2))):
        model = cross_stitch([fork], {"p": join, "q": join}, per_channel=per_channel)
        params, state = model.init(jax.random.key(0), inputs)
        assert jax.tree.map(jnp.shape, params.shared["units"]) == (shapes,)
        outputs, _ = model.apply(params, state, inputs)
        expected = (0.9 - 2 * 0.1) * np.concatenate([X[:, :1], X], axis=1)
        np.testing.assert_allclose(outputs["p"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [(), (4,)], ids=["scalar", "per_channel"])
@pytest.mark.parametrize("columns", [3, 11])
def test_few_and_many_columns_are_mixed_alike(columns, channels):
    weights = RNG.normal(size=(columns, columns, *channels))
    features = RNG.normal(size=(columns, 2, 3, 4))
    every = weights if channels else np.repeat(weights[:, :, None], 4, axis=2)
    expected = np.einsum("ijc,jabc->iabc", every, features)
    found = mix(jnp.asarray(weights, jnp.float32), [jnp.asarray(x, jnp.float32) for x in features], rows=(2, 0))
    for row, x in zip((2, 0), found, strict=True):
        np.testing.assert_allclose(x, expected[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("columns", [3, 11])
def test_bf16_features_are_summed_in_float32(columns):
    # 256 + 1 + 1 is 258, which bf16 has; summed in bf16, which has not 257, it stays at 256.
    values = [256.0, 1.0, 1.0] + [0.0] * (columns - 3)
    found = mix(jnp.ones((columns, columns)), [jnp.full((1, 1), x, jnp.bfloat16) for x in values], rows=(0,))[0]
    assert found.dtype == jnp.bfloat16 and float(found[0, 0]) == 258.0


def test_a_hundred_tasks():
    model = cross_stitch([layer], {f"t{k:02d}": layer for k in range(100)}, per_channel=False)
    shapes = jax.eval_shape(model.init, jax.random.key(0), X)
    assert shapes[0].shared["units"][0].shape == (100, 100)
    assert len(jax.eval_shape(model.apply, *shapes, X)[0]) == 100


ROUND = Network(lambda key, x: ((), ()), lambda p, state, x, *, key=None, train=False: (x.astype(jnp.int32), state))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: cross_stitch(layer, HEADS),
            TypeError,
            "cross_stitch: stages must be a sequence of Network, found a Network; write (network,)",
        ),
        (
            lambda: cross_stitch([len], HEADS),
            TypeError,
            "cross_stitch: stages[0] must be a Network, found the function 'len'",
        ),
        (lambda: cross_stitch([], HEADS), ValueError, "cross_stitch: stages must hold at least one Network, found 0"),
        (
            lambda: cross_stitch(STAGES, {}),
            ValueError,
            "cross_stitch: heads must hold at least one Network by task name, found none",
        ),
        (
            lambda: cross_stitch(STAGES, ["a"]),
            TypeError,
            "cross_stitch: heads must be a dict of Network by task name, found ['a']",
        ),
        (
            lambda: cross_stitch(STAGES, HEADS, same=1.5),
            ValueError,
            "cross_stitch: same must be at least 0 and at most 1, found 1.5",
        ),
        (
            lambda: cross_stitch(STAGES, HEADS, same=float("nan")),
            ValueError,
            "cross_stitch: same must be at least 0 and at most 1, found nan",
        ),
        (
            lambda: cross_stitch(STAGES, HEADS, after=1),
            TypeError,
            "cross_stitch: after must be a sequence of integers, found 1",
        ),
        (
            lambda: cross_stitch(STAGES, HEADS, after=(2,)),
            ValueError,
            "cross_stitch: after[0] must be from 0 to 1, found 2",
        ),
        (
            lambda: cross_stitch(STAGES, HEADS, after=[1, 1]),
            ValueError,
            "cross_stitch: after must be positions that differ, found [1, 1]",
        ),
        (
            lambda: MODEL.init(KEY, TaskInputs({"depth": X, "label": X[:4]})),
            ValueError,
            "cross_stitch: a unit fuses columns that differ after stage 0: "
            "features are float32 (6, 4) for task 'depth' but float32 (4, 4) for task 'label'",
        ),
        (
            lambda: cross_stitch([ROUND], HEADS).init(KEY, X),
            TypeError,
            "for task 'depth' must be of a floating-point type, found int32 (6, 4)",
        ),
        (lambda: cross_stitch(STAGES, HEADS).init(KEY, X[0]), ValueError, "an array of shape (4,); per_channel=False"),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
