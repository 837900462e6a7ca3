"""NNX modules as networks: batch statistics, dropout, random streams, transformations, messages."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtljax.adapters.flax_nnx import from_nnx
from mtljax.sharing import hard, soft

X = jnp.asarray(np.random.default_rng(0).normal(loc=2.0, size=(16, 3)), jnp.float32)


class Trunk(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 8, rngs=rngs), nnx.Linear(8, 8, rngs=rngs)])
        self.norm = nnx.BatchNorm(8, momentum=0.5, rngs=rngs)
        self.dropouts = nnx.List([nnx.Dropout(0.5, rngs=rngs) for _ in range(2)])

    def __call__(self, x):
        x = self.dropouts[0](nnx.relu(self.norm(self.layers[0](x))))
        return self.dropouts[1](self.layers[1](x))


class Flagged(nnx.Module):
    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, *, deterministic):
        return self.dropout(x, deterministic=deterministic)


def head(size):
    return from_nnx(lambda rngs: nnx.Linear(8, size, rngs=rngs))


MODELS = {
    "hard": hard(from_nnx(Trunk), {"depth": head(1), "label": head(5)}),
    "soft": soft(from_nnx(Trunk), {"depth": head(1), "label": head(5)}),
}
each_model = pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_parameters_and_state_are_plain_dicts_of_arrays():
    params, state = from_nnx(Trunk).init(jax.random.key(0), X)
    assert jax.tree.map(jnp.shape, params) == {
        "layers": {0: {"kernel": (3, 8), "bias": (8,)}, 1: {"kernel": (8, 8), "bias": (8,)}},
        "norm": {"scale": (8,), "bias": (8,)},
    }
    assert jax.tree.map(jnp.shape, state) == {"norm": {"mean": (8,), "var": (8,)}}
    assert all(type(leaf) is type(jnp.ones(())) for leaf in jax.tree.leaves((params, state)))


def test_outputs_and_parameters_are_nnxs_own():
    network = from_nnx(Trunk)
    params, state = network.init(jax.random.key(3), X)
    module = Trunk(nnx.Rngs(jax.random.key(3)))
    equal(params, nnx.to_pure_dict(nnx.state(module, nnx.Param)))
    module.eval()
    np.testing.assert_array_equal(network.apply(params, state, X)[0], module(X))


def test_batch_statistics_move_once_in_training_and_not_in_evaluation():
    network = from_nnx(Trunk)
    params, state = network.init(jax.random.key(0), X)
    _, after = network.apply(params, state, X, key=jax.random.key(1), train=True)
    hidden = X @ params["layers"][0]["kernel"]  # the bias is still zero
    assert jax.tree.structure(after) == jax.tree.structure(state)
    np.testing.assert_allclose(after["norm"]["mean"], 0.5 * hidden.mean(0), rtol=1e-5, atol=1e-6)
    equal(network.apply(params, after, X)[1], after)


def test_no_state_moves_in_evaluation():
    class Counter(nnx.Module):
        def __init__(self, rngs):
            self.calls = nnx.Variable(jnp.zeros(()))

        def __call__(self, x):
            self.calls[...] += 1.0
            return x

    network = from_nnx(Counter)
    params, state = network.init(jax.random.key(0), X)
    equal(network.apply(params, state, X)[1], {"calls": jnp.zeros(())})
    equal(network.apply(params, state, X, train=True)[1], {"calls": jnp.ones(())})


def test_dropout_follows_the_key():
    network = from_nnx(Trunk)
    params, state = network.init(jax.random.key(0), X)

    def run(seed, train=True):
        return network.apply(params, state, X, key=jax.random.key(seed), train=train)[0]

    equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))
    equal(run(1, train=False), run(2, train=False))


def test_two_dropout_layers_drop_different_units():
    class Twice(nnx.Module):
        def __init__(self, rngs):
            self.first, self.second = nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.first(x), self.second(x)

    (first, second), _ = from_nnx(Twice).apply({}, {}, jnp.ones(100), key=jax.random.key(0), train=True)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("train", [False, True])
def test_a_module_may_take_its_mode_as_an_argument(train):
    outputs, _ = from_nnx(Flagged).apply({}, {}, X, key=jax.random.key(0), train=train)
    assert np.array_equal(outputs, X) != train
    other = from_nnx(Flagged, call_kwargs=lambda train: {"deterministic": True})
    equal(other.apply({}, {}, X, train=train)[0], X)


def test_streams_of_stacked_layers_are_seeded_each():
    class Stack(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.vmap(lambda rngs: nnx.Dropout(0.5, rngs=rngs))(rngs.split(4))

        def __call__(self, x):
            return nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(self.layers, x)

    network = from_nnx(Stack)
    params, state = network.init(jax.random.key(0), X)
    outputs, _ = network.apply(params, state, jnp.ones(50), key=jax.random.key(0), train=True)
    assert len({row.tobytes() for row in np.asarray(outputs)}) == 4


def test_transformations_and_shapes():
    model = MODELS["hard"]
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
    tangent = jax.tree.map(jnp.ones_like, params)
    slope = jax.jit(lambda params: jax.jvp(lambda p: loss(p, keys[0])[0], (params,), (tangent,))[1])(params)
    expected = jax.tree.reduce(jnp.add, jax.tree.map(jnp.sum, gradient(params, keys[0])[0]))
    np.testing.assert_allclose(slope, expected, rtol=1e-4)


@each_model
def test_the_state_is_a_scan_carry(model):
    params, state = model.init(jax.random.key(0), X)

    def body(state, key):
        outputs, state = model.apply(params, state, X, key=key, train=True)
        return state, outputs["depth"].sum()

    keys = jax.random.split(jax.random.key(0), 4)
    last, _ = jax.lax.scan(body, state, keys)
    for key in keys:
        _, state = model.apply(params, state, X, key=key, train=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), last, state)


def test_sown_values_are_dropped():
    class Sower(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(3, 1, rngs=rngs)

        def __call__(self, x):
            self.features = nnx.Intermediate(x)
            return self.linear(x)

    network = from_nnx(Sower)
    params, state = network.init(jax.random.key(0), X)
    assert network.apply(params, state, X, train=True)[1] == state == {}


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: from_nnx(Trunk(nnx.Rngs(0))),
            TypeError,
            "from_nnx: make_module must be a function of nnx.Rngs that returns an nnx.Module, found a Trunk",
        ),
        (
            lambda: from_nnx(lambda rngs: {}),
            TypeError,
            "from_nnx: what make_module returns must be an nnx.Module, found {}",
        ),
        (
            lambda: from_nnx(Flagged).apply({}, {}, X, train=True),
            ValueError,
            "from_nnx: key must be a random key, since Flagged draws in training, found None",
        ),
        (
            lambda: jax.jit(lambda x: from_nnx(Flagged).apply({}, {}, x, train=True)[0])(X),
            ValueError,
            "from_nnx: key must be a random key, since Flagged draws in training, found None",
        ),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)


def test_a_module_with_streams_that_draws_nothing_needs_no_key():
    class Idle(nnx.Module):
        def __init__(self, rngs):
            self.rngs = rngs
            self.linear = nnx.Linear(3, 1, rngs=rngs)

        def __call__(self, x):
            return self.linear(x)

    network = from_nnx(Idle)
    params, state = network.init(jax.random.key(0), X)
    assert network.apply(params, state, X, train=True)[0].shape == (16, 1)
