"""The entire space model: the product of two rates, as a logit that never rounds to certainty."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax.sharing import Network
from mtljax.sharing.esmm import esmm
from mtljax.types import Batch, Params
from tests.sharing.blocks import dense


def layer(size):
    return dense(size, rate=0.0, activation=jnp.tanh)


X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
MODEL = esmm(layer(2), {"click": layer(1), "conversion": layer(1)})
PARAMS, STATE = jax.eval_shape(MODEL.init, jax.random.key(0), X)
PARAMS = jax.tree.map(lambda leaf: jnp.asarray(np.random.default_rng(1).normal(size=leaf.shape), leaf.dtype), PARAMS)
STATE = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), STATE)


def column(index):
    """A head that reads one of the features."""
    return Network(lambda key, x: ((), ()), lambda p, state, x, *, key=None, train=False: (x[:, index], state))


SAME = Network(lambda key, x: ((), ()), lambda p, state, x, *, key=None, train=False: (x, state))
BARE = esmm(SAME, {"click": column(0), "conversion": column(1)})
EMPTY = Params({"trunk": (), "click": ()}, {"click": {}, "conversion": {"head": ()}})
EMPTY_STATE = {"shared": {"trunk": (), "click": ()}, "tasks": {"click": {}, "conversion": {"head": ()}}}


@jax.jit
def logits(pairs):
    """Both outputs for logits (a, b) given as they are, and the slope of the second by a and b."""
    outputs, _ = BARE.apply(EMPTY, EMPTY_STATE, pairs)
    return outputs, jax.grad(lambda pairs: jnp.sum(BARE.apply(EMPTY, EMPTY_STATE, pairs)[0]["conversion"]))(pairs)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_rates_multiply():
    outputs, _ = jax.jit(MODEL.apply)(PARAMS, STATE, X)
    shared, tasks = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), PARAMS)
    features = np.tanh(np.asarray(X, np.float64) @ shared["trunk"]["w"])
    a, b = np.tanh(features @ shared["click"]["w"]), np.tanh(features @ tasks["conversion"]["head"]["w"])
    np.testing.assert_allclose(outputs["click"], a, rtol=1e-5, atol=1e-6)
    found = np.asarray(outputs["conversion"], np.float64)
    np.testing.assert_allclose(sigmoid(found), sigmoid(a) * sigmoid(b), rtol=1e-5)
    # The rate among what was clicked, as the docstring says.
    rate = np.exp(-np.logaddexp(0, -found) + np.logaddexp(0, -np.asarray(outputs["click"], np.float64)))
    np.testing.assert_allclose(rate, sigmoid(b), rtol=1e-5)


def test_no_pair_of_logits_rounds_to_certainty_or_loses_its_slope():
    pairs = [(0, 0), (3, -2), (30, 30), (80, 40), (-60, 200), (200, -60), (-90, -80), (1e4, 1e4), (-1e4, 1e4)]
    outputs, slopes = logits(jnp.asarray(pairs, jnp.float32))
    for (a, b), found, slope in zip(pairs, outputs["conversion"], slopes, strict=True):
        # -log(1 / p - 1) = -log(e^-a + e^-b + e^(-a-b)), in Python's own numbers, the largest term taken out.
        terms = (-a, -b, -a - b)
        exact = -max(terms) - math.log(sum(math.exp(term - max(terms)) for term in terms))
        assert float(found) == pytest.approx(exact, rel=1e-6, abs=1e-6)
        shares = [math.exp(term - max(terms)) / sum(math.exp(t - max(terms)) for t in terms) for term in terms]
        np.testing.assert_allclose(slope, [shares[0] + shares[2], shares[1] + shares[2]], rtol=1e-5, atol=1e-30)


def test_the_librarys_loss_is_the_papers():
    pairs = np.random.default_rng(2).normal(size=(5, 2)) * 3
    labels = np.array([0.0, 1.0, 0.0, 1.0, 1.0])
    f = mtljax.make_losses_fn(
        BARE, dict.fromkeys(("click", "conversion"), mtljax.Task(mtljax.losses.binary_cross_entropy))
    )
    batch = Batch(jnp.float32(pairs), {"click": jnp.float32(labels), "conversion": jnp.float32(labels)})
    losses, _ = jax.jit(f)(EMPTY, EMPTY_STATE, batch)
    for task, p in (("click", sigmoid(pairs[:, 0])), ("conversion", sigmoid(pairs[:, 0]) * sigmoid(pairs[:, 1]))):
        expected = -np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
        np.testing.assert_allclose(losses[task], expected, rtol=1e-5)


def test_both_losses_reach_the_click_head_and_conversions_alone_their_own():
    @jax.jit
    def gradients(params):
        def loss(params, task):
            return jnp.sum(MODEL.apply(params, STATE, X, tasks=(task,))[0][task])

        return {task: jax.grad(loss)(params, task) for task in params.tasks}

    found = gradients(PARAMS)
    assert sorted(PARAMS.shared) == ["click", "trunk"] and PARAMS.tasks["click"] == {}
    for task in found:
        assert all(leaf.any() for leaf in jax.tree.leaves(found[task].shared))
    assert not found["click"].tasks["conversion"]["head"]["w"].any()
    assert found["conversion"].tasks["conversion"]["head"]["w"].any()


def test_asked_for_clicks_the_conversion_head_does_not_run():
    @jax.jit
    def run(params):
        own = Params(params.shared, {"click": params.tasks["click"], "conversion": None})
        alone = MODEL.apply(own, STATE, X, tasks=("click",), train=True)
        features, between = MODEL.encode(params.shared, STATE, X, train=True)
        return (
            alone,
            MODEL.apply(params, STATE, X, train=True),
            MODEL.decode(params.tasks, between, features, train=True),
        )

    (alone, after), every, pieces = run(PARAMS)
    np.testing.assert_array_equal(alone["click"], every[0]["click"])
    assert sorted(alone) == ["click"] and after["tasks"]["conversion"]["head"]["calls"] == 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), every, pieces)


def test_tasks_may_have_other_names_and_outputs_keep_their_dtype():
    model = esmm(SAME, {"seen": column(1), "bought": column(0)}, click="seen", conversion="bought")
    params = Params(EMPTY.shared, {"seen": {}, "bought": {"head": ()}})
    state = {"shared": EMPTY.shared, "tasks": params.tasks}
    pairs = jnp.asarray([[2.0, -1.0]], jnp.bfloat16)
    outputs, _ = jax.jit(model.apply)(params, state, pairs)
    assert outputs["seen"].tolist() == [-1.0] and outputs["bought"].dtype == jnp.bfloat16
    np.testing.assert_allclose(sigmoid(float(outputs["bought"][0])), sigmoid(2) * sigmoid(-1), rtol=2**-7)


def started(click, conversion):
    return jax.eval_shape(esmm(SAME, {"click": click, "conversion": conversion}).init, jax.random.key(0), X)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: esmm(SAME, {"click": SAME, "buy": SAME}),
            ValueError,
            "esmm: heads must be for the tasks ['click', 'conversion'], found ['buy', 'click']",
        ),
        (
            lambda: esmm(SAME, {"click": SAME}, conversion="click"),
            ValueError,
            "esmm: click and conversion must be names that differ, found ['click', 'click']",
        ),
        (
            lambda: started(column(0), SAME),
            ValueError,
            "esmm: the heads must return logits of one shape, found [5] for task 'click' and [5, 3] for task",
        ),
        (
            lambda: started(SAME._replace(apply=lambda p, s, x, *, key=None, train=False: ({"z": x}, s)), SAME),
            TypeError,
            "esmm: the head of task 'click' must return one floating array of logits",
        ),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
