"""Attention over one trunk, against its equations in NumPy."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax.sharing import Network
from mtljax.sharing.mtan import mtan
from mtljax.types import Batch
from tests.sharing.blocks import dense as dropping

dense = functools.partial(dropping, rate=0.0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
HEADS = {"depth": dense(1), "label": dense(5)}
SPEC = {"stages": [dense(4), (dense(5), dense(2))], "masks": [dense(4), dense(2)], "forward": [dense(6)]}
MODEL = mtan(heads=HEADS, **SPEC)


def filled(model, x=X):
    """Parameters that are drawn, without compiling what `init` does, and a state of zeros."""
    shapes, state = jax.eval_shape(model.init, jax.random.key(0), x)
    draw = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), leaf.dtype), shapes)
    return params, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def test_outputs_are_the_papers_equations():
    params, state = filled(MODEL)
    outputs, after = jax.jit(MODEL.apply)(params, state, X)
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    (first,), (second, third) = ([block["w"] for block in stage] for stage in exact.shared["stages"])
    (forward,) = (block["w"] for block in exact.shared["forward"])
    p1 = np.asarray(X, np.float64) @ first
    u2 = p1 @ second
    p2 = u2 @ third
    for task, own in exact.tasks.items():
        mask1, mask2 = (mask["w"] for mask in own["masks"])
        a1 = sigmoid(p1 @ mask1) * p1
        a2 = sigmoid(np.concatenate([u2, a1 @ forward], axis=1) @ mask2) * p2
        np.testing.assert_allclose(outputs[task], a2 @ own["head"]["w"], rtol=1e-4, atol=1e-5)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_the_parameters_are_the_trunk_once_and_masks_and_a_head_for_each_task():
    params, _ = filled(MODEL)
    assert mtljax.trees.num_elements(params.shared) == 3 * 4 + 4 * 5 + 5 * 2 + 4 * 6
    assert mtljax.trees.num_elements(params.tasks["depth"]) == 4 * 4 + (5 + 6) * 2 + 2 * 1
    assert mtljax.trees.num_elements(params.tasks["label"]) == 4 * 4 + (5 + 6) * 2 + 2 * 5
    assert not np.array_equal(params.tasks["depth"]["masks"][0]["w"], params.tasks["label"]["masks"][0]["w"])


def test_masks_that_are_all_ones_make_hard_sharing():
    def ones(size):
        return Network(
            lambda key, x: ((), ()),
            lambda params, state, x, *, key=None, train=False: (jnp.full((*x.shape[:-1], size), 1e4), state),
        )

    model = mtan(SPEC["stages"], HEADS, [ones(4), ones(2)], SPEC["forward"])
    params, state = filled(model)
    outputs, _ = jax.jit(model.apply)(params, state, X)
    blocks = [np.asarray(block["w"]) for stage in params.shared["stages"] for block in stage]
    for task in HEADS:
        expected = np.linalg.multi_dot([X, *blocks, params.tasks[task]["head"]["w"]])
        np.testing.assert_allclose(outputs[task], expected, rtol=1e-4, atol=1e-5)


def test_one_stage_needs_no_forward_network():
    model = mtan([dense(4)], {"depth": dense(1)}, [dense(4)], [])
    params, state = filled(model)
    own = jax.tree.map(np.asarray, params.tasks["depth"])
    p = np.asarray(X) @ np.asarray(params.shared["stages"][0][0]["w"])
    expected = sigmoid(p @ own["masks"][0]["w"]) * p @ own["head"]["w"]
    np.testing.assert_allclose(jax.jit(model.apply)(params, state, X)[0]["depth"], expected, rtol=1e-4, atol=1e-6)


def test_the_network_between_stages_is_everybodys_and_runs_once_a_task():
    params, state = filled(MODEL)

    @jax.jit
    def slope(params, weights):
        def loss(params):
            outputs, after = MODEL.apply(params, state, X, train=True)
            return weights[0] * jnp.sum(outputs["depth"] ** 2) + weights[1] * jnp.sum(outputs["label"] ** 2), after

        return jax.grad(loss, has_aux=True)(params)

    for weights, task, other in (((1.0, 0.0), "depth", "label"), ((0.0, 1.0), "label", "depth")):
        found, after = slope(params, jnp.array(weights))
        assert all(np.any(leaf) for leaf in jax.tree.leaves([found.shared, found.tasks[task]]))
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(found.tasks[other]))
        assert after["forward"][0]["calls"] == 2
        assert all(leaf == 1 for leaf in jax.tree.leaves([after["stages"], after["tasks"]]))


def test_images_are_pooled_by_the_stages_and_by_what_lies_between():
    def pooling(network):
        def halved(x):
            return x[:, ::2, ::2, :]

        return Network(
            lambda key, x: network.init(key, halved(x)),
            lambda params, state, x, **rest: network.apply(params, state, halved(x), **rest),
        )

    images = jnp.ones((2, 8, 8, 3))
    stages, masks = [dense(4), (pooling(dense(5)), dense(6))], [dense(4), dense(6)]
    model = mtan(stages, {"depth": dense(1)}, masks, [pooling(dense(5))])
    params, state = jax.eval_shape(model.init, jax.random.key(0), images)
    assert jax.eval_shape(model.apply, params, state, images)[0]["depth"].shape == (2, 4, 4, 1)
    with pytest.raises(
        ValueError, match=r"mtan: the output of forward\[0\] must have the axes of .* found shape \(2, 8, 8, 5\)"
    ):
        jax.eval_shape(mtan(stages, {"depth": dense(1)}, masks, [dense(5)]).init, jax.random.key(0), images)


@pytest.mark.slow
def test_gradients_at_the_features_are_gradients_by_the_parameters_where_tasks_are_summed():
    params, state = MODEL.init(jax.random.key(0), X)
    f = mtljax.make_losses_fn(MODEL, dict.fromkeys(HEADS, mtljax.Task(mtljax.losses.squared_error)))
    batch = Batch(X, {"depth": jnp.ones((6, 1)), "label": jnp.ones((6, 5))})
    method = mtljax.methods.equal()
    start = method.init(2, params.shared)
    found = [
        mtljax.value_and_grad(f, method, has_aux=True, engine=engine)(params, start, state, batch)[1]
        for engine in (mtljax.engines.full(), mtljax.engines.features(MODEL))
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *found)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"stages": dense(4)}, TypeError, "mtan: stages must be a sequence of Network or of pairs, found a Network"),
        ({"stages": []}, ValueError, "mtan: stages must hold at least one stage, found none"),
        ({"stages": [dense(4), 3]}, TypeError, "mtan: stages[1] must be a Network or a pair of them, found 3"),
        ({"stages": [dense(4), (dense(4),) * 3]}, ValueError, "mtan: stages[1] must hold 2 Network, found 3"),
        ({"masks": [dense(4)]}, ValueError, "mtan: masks must hold 2 Network, found 1"),
        ({"masks": [dense(4), None]}, TypeError, "mtan: masks[1] must be a Network, found None"),
        ({"forward": []}, ValueError, "mtan: forward must hold 1 Network, found 0"),
        ({"heads": {}}, ValueError, "mtan: heads must hold at least one Network by task name, found none"),
        (
            {"masks": [dense(4), dense(1)]},
            ValueError,
            "mtan: masks[1] must return logits of the features' shape (6, 2), found shape (6, 1)",
        ),
    ],
)
def test_mistakes_get_messages(change, error, text):
    with pytest.raises(error) as caught:
        model = mtan(**({"heads": HEADS} | SPEC | change))
        params, state = jax.eval_shape(model.init, jax.random.key(0), X)
        jax.eval_shape(model.apply, params, state, X)
    assert text in str(caught.value)
