"""NDDR: channels of all columns concatenated and reduced."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.sharing.cross_stitch import cross_stitch
from mtljax.sharing.frames.network import Network, key_for
from mtljax.sharing.nddr import nddr
from mtljax.types import TaskInputs
from tests.sharing.blocks import dense

layer = dense(4, activation=jnp.tanh)
STAGES, HEADS = [layer, layer], {"depth": layer, "label": layer}
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
MODEL = nddr(STAGES, HEADS)
KEY = jax.random.key(1)
IDENTITY = Network(lambda key, x: ((), ()), lambda params, state, x, *, key=None, train=False: (x, state))


def random_like(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), tree)


def test_columns_go_on_from_the_papers_reductions():
    params, state = MODEL.init(jax.random.key(0), X)
    assert [unit["kernel"].shape for unit in params.shared["units"]] == [(2, 8, 4), (2, 8, 4)]
    # Columns and heads of 4x4 layers, two units of two 8x4 kernels; no bias anywhere.
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 4 * 16 + 2 * 16 + 2 * 2 * 32
    params = random_like(params)
    outputs, _ = MODEL.apply(params, state, X)
    wide, names = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params), ["depth", "label"]
    x = [np.asarray(X, np.float64)] * 2
    for position, unit in enumerate(wide.shared["units"]):
        h = [np.tanh(x[i] @ wide.shared["columns"][name][position]["w"]) for i, name in enumerate(names)]
        x = [np.concatenate(h, axis=1) @ unit["kernel"][i] for i in range(2)]
    for i, name in enumerate(names):
        np.testing.assert_allclose(outputs[name], np.tanh(x[i] @ wide.tasks[name]["w"]), rtol=1e-4, atol=1e-5)


def test_kernels_start_diagonal_with_the_rest_shared_evenly():
    model = nddr([layer], dict.fromkeys("abc", layer), same=0.8)
    params, _ = model.init(jax.random.key(0), X)
    for i, kernel in enumerate(params.shared["units"][0]["kernel"]):
        for j in range(3):
            block = (0.8 if i == j else 0.1) * np.eye(4)
            np.testing.assert_allclose(kernel[4 * j : 4 * j + 4], block, rtol=1e-6)
    alone, _ = nddr([layer], {"a": layer}).init(jax.random.key(0), X)
    np.testing.assert_array_equal(alone.shared["units"][0]["kernel"][0], np.eye(4))


def test_it_starts_as_cross_stitch_does_on_images_too():
    image = jnp.asarray(RNG.normal(size=(2, 3, 5, 4)), jnp.float32)
    outputs = []
    for make in (nddr, cross_stitch):
        model = make([IDENTITY], {"p": IDENTITY, "q": IDENTITY}, same=0.7)
        inputs = TaskInputs({"p": image, "q": image[::-1]})
        params, state = model.init(jax.random.key(0), inputs)
        outputs.append(model.apply(params, state, inputs)[0])
    for task in "pq":
        np.testing.assert_allclose(outputs[0][task], outputs[1][task], rtol=1e-5, atol=1e-6)


def test_identity_kernels_are_single_task_networks_dropout_included():
    model = nddr(STAGES, HEADS, same=1.0)
    params, state = model.init(jax.random.key(0), X)
    params = params._replace(shared=params.shared | {"columns": random_like(params.shared["columns"])})
    outputs, _ = model.apply(params, state, X, key=KEY, train=True)
    for task in HEADS:
        x = X
        for position in range(2):
            own = params.shared["columns"][task][position], state["columns"][task][position]
            x, _ = layer.apply(*own, x, key=key_for(KEY, f"stage/{position}"), train=True)
        own = params.tasks[task], state["tasks"][task]
        expected, _ = layer.apply(*own, x, key=key_for(KEY, f"task/{task}"), train=True)
        np.testing.assert_allclose(outputs[task], expected, rtol=1e-5, atol=1e-6)


def centered():
    """Normalisation by the batch's mean, with a scale, and the mean as its state."""

    def apply(params, state, x, *, key=None, train=False):
        mean = jnp.mean(x, axis=0) if train else state
        return params[None, :] * (x - mean[None, :]), mean

    return Network(lambda key, x: (jnp.ones(x.shape[-1]), jnp.zeros(x.shape[-1])), apply)


def test_every_task_normalizes_its_own_reduction():
    model = nddr([IDENTITY], {"p": IDENTITY, "q": IDENTITY}, norm=centered())
    params, state = model.init(jax.random.key(0), X)
    params = params._replace(shared=random_like(params.shared))
    unit = params.shared["units"][0]
    outputs, after = model.apply(params, state, X, train=True)
    both = np.concatenate([X, X], axis=1).astype(np.float64)
    for i, task in enumerate("pq"):
        reduced = both @ np.asarray(unit["kernel"][i], np.float64)
        mean = reduced.mean(axis=0)
        np.testing.assert_allclose(
            outputs[task], np.asarray(unit["norm"][task]) * (reduced - mean), rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(after["units"][0][task], mean, rtol=1e-4, atol=1e-5)
    _, after = model.apply(params, state, X, tasks=("p",), train=True)
    assert np.any(after["units"][0]["p"]) and not np.any(after["units"][0]["q"])


def test_bf16_features_stay_bf16_and_have_slopes():
    narrow = X.astype(jnp.bfloat16)
    params, state = MODEL.init(jax.random.key(0), narrow)
    assert params.shared["units"][0]["kernel"].dtype == jnp.float32

    def loss(params):
        return jnp.sum(MODEL.apply(params, state, narrow)[0]["depth"].astype(jnp.float32))

    gradient = jax.jit(jax.grad(loss))(params)
    kernel = gradient.shared["units"][0]["kernel"]
    assert kernel.dtype == jnp.float32 and np.all(np.isfinite(kernel)) and np.any(kernel)
    assert gradient.shared["columns"]["label"][0]["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: nddr(STAGES, HEADS, same=2), ValueError, "nddr: same must be at least 0 and at most 1, found 2"),
        (lambda: nddr(STAGES, {}), ValueError, "nddr: heads must hold at least one Network by task name, found none"),
        (lambda: nddr(STAGES, HEADS).init(KEY, X[0]), ValueError, "channels last, found an array of shape (4,)"),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
