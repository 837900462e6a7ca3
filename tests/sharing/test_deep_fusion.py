"""Deep fusion, and how it contains cross-stitch, sluice, scalar mixes and separate networks."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.sharing.cross_stitch import cross_stitch
from mtljax.sharing.deep_fusion import deep_fusion
from mtljax.sharing.frames.network import Network
from mtljax.sharing.sluice import sluice
from mtljax.types import TaskInputs
from tests.sharing.blocks import dense

layer = dense(4, activation=jnp.tanh)
STAGES, HEADS = [layer, layer], {"depth": layer, "label": layer}
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
MODEL = deep_fusion(STAGES, HEADS)
KEY = jax.random.key(1)


def random_like(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), tree)


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a, b):
    chex.assert_trees_all_close(a, b, rtol=1e-5, atol=1e-6)


def shares(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def numpy_model(params, x, *, after=(0, 1), layers=True):
    """The docstring's equations in float64; inputs that both tasks share."""
    wide, names = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params), ["depth", "label"]
    x, read = [np.asarray(x, np.float64)] * 2, [[], []]
    for position, logits in enumerate(wide.shared["units"]):
        h = [np.tanh(x[i] @ wide.shared["columns"][name][position]["w"]) for i, name in enumerate(names)]
        x = [sum(shares(logits)[i, j] * h[j] for j in range(2)) for i in range(2)] if position in after else h
        for i in range(2):
            read[i].append(x[i])
    outputs = {}
    for i, name in enumerate(names):
        own, mixed = wide.tasks[name], read[i][-1]
        if layers:
            mixed, own = sum(b * each for b, each in zip(shares(own["layers"]), read[i], strict=True)), own["head"]
        outputs[name] = np.tanh(mixed @ own["w"])
    return outputs


@pytest.mark.parametrize(
    ("options", "weights"),
    [({}, 2 * 4 + 2 * 2), ({"after": ()}, 2 * 2), ({"layers": False}, 2 * 4), ({"after": (), "layers": False}, 0)],
    ids=str,
)
def test_either_fusion_may_be_switched_off(options, weights):
    model = deep_fusion(STAGES, HEADS, **options)
    params, state = model.init(jax.random.key(0), X)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 4 * 16 + 2 * 16 + weights
    params = random_like(params)
    close(model.apply(params, state, X)[0], jax.tree.map(jnp.asarray, numpy_model(params, X, **options)))


def test_the_start_is_convex_and_near_the_identity():
    model = deep_fusion([layer] * 3, dict.fromkeys("abc", layer), same=0.8, last=0.7)
    params, _ = model.init(jax.random.key(0), X)
    expected = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    for logits in params.shared["units"]:
        np.testing.assert_allclose(shares(np.asarray(logits)), expected, rtol=1e-5)
    np.testing.assert_allclose(shares(np.asarray(params.tasks["b"]["layers"])), [0.15, 0.15, 0.7], rtol=1e-5)
    alone, _ = deep_fusion([layer], {"a": layer}).init(jax.random.key(0), X)
    assert alone.shared["units"][0].tolist() == [[0.0]] and alone.tasks["a"]["layers"].tolist() == [0.0]


def test_cross_stitch_with_softmax_units_is_its_fusion_across_tasks():
    model, other = deep_fusion(STAGES, HEADS, layers=False), cross_stitch(STAGES, HEADS, per_channel=False)
    params, state = model.init(jax.random.key(0), X)
    params = random_like(params)
    units = tuple(jnp.asarray(shares(np.asarray(logits))) for logits in params.shared["units"])
    stitched = params._replace(shared=params.shared | {"units": units})
    close(*(m.apply(p, state, X, key=KEY, train=True) for m, p in ((model, params), (other, stitched))))


def test_sluice_of_one_subspace_with_softmax_weights_is_both_fusions():
    stages, projections = [dense(2), layer], [layer, None]
    model = deep_fusion(stages, HEADS, projections=projections)
    other = sluice(stages, HEADS, subspaces=1, projections=projections)
    params, state = model.init(jax.random.key(0), X)
    free, free_state = other.init(jax.random.key(0), X)
    # Given one key, both start from the same columns, projections and heads.
    equal(params.shared["columns"], free.shared["columns"])
    for task in HEADS:
        equal(params.tasks[task] | {"layers": ()}, free.tasks[task] | {"layers": ()})
    params = random_like(params)
    units = tuple(jnp.asarray(shares(np.asarray(logits))).reshape(2, 1, 2, 1) for logits in params.shared["units"])
    tasks = {
        task: own | {"layers": jnp.asarray(shares(np.asarray(own["layers"])))} for task, own in params.tasks.items()
    }
    free = free._replace(shared=params.shared | {"units": units}, tasks=tasks)
    ours = model.apply(params, state, X, key=KEY, train=True)
    close(ours, other.apply(free, free_state, X, key=KEY, train=True))


def test_equal_columns_and_the_last_layer_alone_are_the_single_task_network():
    model, alone = deep_fusion(STAGES, HEADS, layers=False), deep_fusion(STAGES, HEADS, after=(), layers=False)
    params, state = model.init(jax.random.key(0), X)
    separate, separate_state = alone.init(jax.random.key(0), X)
    equal(params.shared["columns"], separate.shared["columns"])
    close(
        model.apply(params, state, X, key=KEY, train=True)[0],
        alone.apply(separate, separate_state, X, key=KEY, train=True)[0],
    )


IDENTITY = Network(lambda key, x: ((), ()), lambda params, state, x, *, key=None, train=False: (x, state))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_weights_stay_convex_whatever_the_logits(scale):
    model = deep_fusion([IDENTITY], {"p": IDENTITY, "q": IDENTITY})
    inputs = TaskInputs({"p": jnp.ones((2, 2)), "q": jnp.zeros((2, 2))})
    params, state = model.init(jax.random.key(0), inputs)
    logits = scale * jnp.array([[1.0, -1.0], [0.5, 0.5]])
    outputs, _ = model.apply(params._replace(shared=params.shared | {"units": (logits,)}), state, inputs)
    np.testing.assert_allclose(outputs["p"], np.full((2, 2), 1 / (1 + np.exp(-2 * scale))), rtol=1e-6)
    np.testing.assert_allclose(outputs["q"], np.full((2, 2), 0.5), rtol=1e-6)


def test_float64_features_have_float64_logits():
    with jax.enable_x64(True):
        x = jnp.asarray(np.asarray(X, np.float64))
        params, state = MODEL.init(jax.random.key(0), x)
        assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(params))
        params = random_like(params)
        found, expected = jax.jit(MODEL.apply)(params, state, x)[0], numpy_model(params, x)
        for task in HEADS:
            # Of the largest output: those that are small are sums that cancel, whose digits are lost in both.
            largest = np.abs(expected[task]).max()
            np.testing.assert_allclose(found[task], expected[task], rtol=0, atol=1e-13 * largest)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: deep_fusion(STAGES, HEADS, same=1.0),
            ValueError,
            "deep_fusion: same must be above 0 and below 1, found 1.0",
        ),
        (
            lambda: deep_fusion(STAGES, HEADS, last=0),
            ValueError,
            "deep_fusion: last must be above 0 and below 1, found 0",
        ),
        (
            lambda: deep_fusion(STAGES, HEADS, last=2),
            ValueError,
            "deep_fusion: last must be above 0 and below 1, found 2",
        ),
        (
            lambda: deep_fusion(STAGES, HEADS, layers=False, projections=[None, None]),
            ValueError,
            "deep_fusion: projections must be None where layers is False, found projections",
        ),
        (
            lambda: deep_fusion([dense(2), layer], HEADS).init(KEY, X),
            ValueError,
            "deep_fusion: task 'depth' mixes layers that differ (give projections that bring them to one shape)",
        ),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
