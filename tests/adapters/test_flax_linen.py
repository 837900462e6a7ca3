"""Linen modules as networks and models: batch statistics, dropout, transformations, messages."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mtljax.adapters.flax_linen import from_linen, model_from_linen
from mtljax.sharing import hard

X = jnp.asarray(np.random.default_rng(0).normal(loc=2.0, size=(16, 3)), jnp.float32)


class Trunk(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(8)(x))
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        self.sow("intermediates", "features", x)
        return x


class Head(nn.Module):
    size: int = 2

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.size)(x)


class Deterministic(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic: bool):
        return nn.Dropout(0.5, deterministic=deterministic)(x)


class Whole(nn.Module):
    """Trunk and heads in one module, one head with batch statistics of its own."""

    @nn.compact
    def __call__(self, x, train=False):
        x = Trunk(name="trunk")(x, train=train)
        depth = nn.BatchNorm(use_running_average=not train, name="depth_norm")(nn.Dense(1, name="depth_head")(x))
        return {"depth": depth, "label": nn.Dense(5, name="label_head")(x)}


HEADS = {"depth": ("depth_head", "depth_norm"), "label": "label_head"}
MODELS = {
    "hard": hard(from_linen(Trunk()), {"depth": from_linen(Head(1)), "label": from_linen(Head(5))}),
    "whole": model_from_linen(Whole(), HEADS),
}
each_model = pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_parameters_and_state_are_what_linen_has():
    params, state = from_linen(Trunk()).init(jax.random.key(0), X)
    assert set(params) == {"Dense_0", "BatchNorm_0"}
    assert set(state) == {"batch_stats"}
    assert from_linen(Head()).init(jax.random.key(0), X)[1] == {}
    assert from_linen(Deterministic()).init(jax.random.key(0), X) == ({}, {})


def test_outputs_are_linens_own():
    network = from_linen(Trunk())
    params, state = network.init(jax.random.key(0), X)
    outputs, after = network.apply(params, state, X)
    np.testing.assert_array_equal(outputs, Trunk().apply({"params": params, **state}, X, train=False))
    equal(after, state)


def test_batch_statistics_move_once_in_training_and_not_in_evaluation():
    network = from_linen(Trunk())
    params, state = network.init(jax.random.key(0), X)
    _, after = network.apply(params, state, X, key=jax.random.key(1), train=True)
    hidden = X @ params["Dense_0"]["kernel"]  # the bias is still zero
    assert jax.tree.structure(after) == jax.tree.structure(state)
    np.testing.assert_allclose(after["batch_stats"]["BatchNorm_0"]["mean"], 0.5 * hidden.mean(0), rtol=1e-5, atol=1e-6)
    equal(network.apply(params, after, X)[1], after)


def test_no_state_moves_in_evaluation():
    class Counter(nn.Module):
        @nn.compact
        def __call__(self, x):
            calls = self.variable("counts", "calls", lambda: jnp.zeros(()))
            if self.is_mutable_collection("counts") and not self.is_initializing():
                calls.value += 1.0
            return x

    network = from_linen(Counter())
    params, state = network.init(jax.random.key(0), X)
    equal(network.apply(params, state, X)[1], {"counts": {"calls": jnp.zeros(())}})
    equal(network.apply(params, state, X, train=True)[1], {"counts": {"calls": jnp.ones(())}})


def test_dropout_follows_the_key():
    network = from_linen(Trunk())
    params, state = network.init(jax.random.key(0), X)

    def run(seed, train=True):
        return network.apply(params, state, X, key=jax.random.key(seed), train=train)[0]

    equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))
    equal(run(1, train=False), run(2, train=False))


@pytest.mark.parametrize("train", [False, True])
def test_flags_that_mean_evaluation_are_turned_round(train):
    outputs, _ = from_linen(Deterministic()).apply({}, {}, X, key=jax.random.key(0), train=train)
    assert np.array_equal(outputs, X) != train


def test_call_kwargs_name_another_flag_and_rngs_another_stream():
    class Odd(nn.Module):
        @nn.compact
        def __call__(self, x, *, mode):
            return x + jax.random.normal(self.make_rng("noise"), x.shape) if mode == "learn" else x

    network = from_linen(Odd(), call_kwargs=lambda train: {"mode": "learn" if train else "use"}, rngs=("noise",))
    assert network.init(jax.random.key(0), X) == ({}, {})
    outputs, _ = network.apply({}, {}, X, key=jax.random.key(0), train=True)
    assert not np.array_equal(outputs, X)
    equal(network.apply({}, {}, X)[0], X)


@each_model
def test_transformations_and_shapes(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(X.shape, X.dtype))
    params, state = jax.jit(model.init)(jax.random.key(0), X)
    assert jax.tree.map(jnp.shape, (params, state)) == jax.tree.map(lambda leaf: leaf.shape, shapes)

    def loss(params, key):
        outputs, after = model.apply(params, state, X, key=key, train=True)
        return jnp.mean(outputs["depth"] ** 2) + jnp.mean(outputs["label"] ** 2), after

    keys = jax.random.split(jax.random.key(1), 3)
    gradient = jax.jit(jax.grad(loss, has_aux=True))
    several, states = jax.vmap(gradient, in_axes=(None, 0))(params, keys)
    one, after = gradient(params, keys[1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5), several, one)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5), states, after)


@each_model
def test_one_task_runs_alone_and_leaves_the_others_state(model):
    params, state = model.init(jax.random.key(0), X)
    key = jax.random.key(1)
    every, after_every = model.apply(params, state, X, key=key, train=True)
    outputs, after = model.apply(params, state, X, tasks=("label",), key=key, train=True)
    equal(outputs, {"label": every["label"]})
    assert jax.tree.structure(after) == jax.tree.structure(state)
    with pytest.raises(ValueError, match=r"tasks must be of the model's \['depth', 'label'\], found 'edges'"):
        model.apply(params, state, X, tasks=("edges",))
    if model is MODELS["whole"]:
        equal(after["batch_stats"]["depth_norm"], state["batch_stats"]["depth_norm"])
        equal(after["batch_stats"]["trunk"], after_every["batch_stats"]["trunk"])
        assert not np.array_equal(after_every["batch_stats"]["depth_norm"]["mean"], [0.0])


def test_a_whole_module_is_split_by_task():
    params, state = MODELS["whole"].init(jax.random.key(0), X)
    assert set(params.shared) == {"trunk"}
    assert {task: set(own) for task, own in params.tasks.items()} == {
        "depth": {"depth_head", "depth_norm"},
        "label": {"label_head"},
    }
    together = {**params.shared, **params.tasks["depth"], **params.tasks["label"]}
    equal(MODELS["whole"].apply(params, state, X)[0], Whole().apply({"params": together, **state}, X))


class Untold(nn.Module):
    layer: nn.Module

    @nn.compact
    def __call__(self, x):
        return self.layer(x)


def whole(heads, module=None):
    model = model_from_linen(module or Whole(), heads)
    params, state = model.init(jax.random.key(0), X)
    return model.apply(params, state, X)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: from_linen(Trunk),
            TypeError,
            "from_linen: module must be a flax.linen.Module, found the class 'Trunk'",
        ),
        (
            lambda: from_linen(Untold(nn.BatchNorm())).init(jax.random.key(0), X),
            ValueError,
            "for the layer that needs 'use_running_average', found none that reaches the layer",
        ),
        (
            lambda: from_linen(nn.Sequential([nn.Dropout(0.5)])).init(jax.random.key(0), X),
            ValueError,
            "for the layer that needs 'deterministic', found none that reaches the layer",
        ),
        (
            lambda: from_linen(Deterministic()).apply({}, {}, X, train=True),
            ValueError,
            "from_linen: key must be a random key, since Deterministic draws from it, found None",
        ),
        (
            lambda: from_linen(Deterministic(), rngs=()).apply({}, {}, X, key=jax.random.key(0), train=True),
            ValueError,
            "from_linen: rngs must name the stream, since Deterministic draws from it, found ()",
        ),
        (
            lambda: whole({"depth": "depth_head", "label": "lable_head"}),
            ValueError,
            "model_from_linen: heads['label'] must name submodules among ['depth_head', ",
        ),
        (
            lambda: whole({"depth": "depth_head", "label": "depth_head"}),
            ValueError,
            "model_from_linen: heads must name submodule 'depth_head' for one task, found tasks 'depth' and 'label'",
        ),
        (
            lambda: whole({"depth": "depth_head"}),
            ValueError,
            "model_from_linen: Whole must return a dict with the tasks ['depth'], found ['depth', 'label']",
        ),
        (
            lambda: whole({"depth": "Dense_0"}, Head()),
            ValueError,
            "model_from_linen: Head must return a dict with the tasks ['depth'], found ArrayImpl",
        ),
        (lambda: whole({}), ValueError, "model_from_linen: heads must be names that differ"),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
