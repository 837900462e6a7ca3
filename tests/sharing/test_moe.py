"""The sparsely gated mixture: who is picked, with what weight, and what balances the load."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax.sharing import Network
from mtljax.sharing.frames.network import key_for
from mtljax.sharing.mmoe import mmoe
from mtljax.sharing.moe import moe
from mtljax.types import Batch, Params, Regularized
from tests.sharing.blocks import dense


def layer(size):
    return dense(size, rate=0.0, activation=jnp.tanh)


X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
HEADS = {"depth": layer(2), "label": layer(2)}


def drawn(model):
    """Parameters and state of the model, the values drawn with NumPy, which compiles nothing."""
    rng = np.random.default_rng(1)
    params, state = jax.eval_shape(model.init, jax.random.key(0), X)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), params)
    return params, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)


def softmax(logits):
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def routed(logits, k):
    """Weights and balance of the equations, in NumPy."""
    chosen = np.zeros(logits.shape, bool)
    np.put_along_axis(chosen, np.argsort(-logits, axis=1)[:, :k], True, axis=1)
    odds = softmax(logits)
    weights = odds * chosen if k == 1 else softmax(np.where(chosen, logits, -np.inf))
    return weights, logits.shape[1] * np.sum(chosen.mean(0) / k * odds.mean(0))


def outputs_by_hand(params, logits, k, task):
    shared, tasks = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    weights, balance = routed(logits, k)
    experts = [np.tanh(np.asarray(X, np.float64) @ shared[f"expert/{i}"]["w"]) for i in range(logits.shape[1])]
    mixture = sum(weights[:, [i]] * expert for i, expert in enumerate(experts))
    return np.tanh(mixture @ tasks[task]["head"]["w"]), balance


@pytest.mark.parametrize("k", [1, 2])
def test_the_equations(k):
    model = moe(layer(3), HEADS, num_experts=4, num_selected=k, balance=0.3)
    params, state = drawn(model)
    outputs, trained = jax.jit(lambda *args: [model.apply(*args, train=train)[0] for train in (False, True)])(
        params, state, X
    )
    for task in HEADS:
        logits = np.asarray(X, np.float64) @ np.asarray(params.tasks[task]["gate"], np.float64)
        expected, balance = outputs_by_hand(params, logits, k, task)
        np.testing.assert_allclose(outputs[task], expected, rtol=1e-4, atol=1e-5)
        assert isinstance(trained[task], Regularized)
        np.testing.assert_array_equal(trained[task].outputs, outputs[task])
        np.testing.assert_allclose(trained[task].term, 0.3 * balance, rtol=1e-5)


def test_picking_all_experts_is_the_multi_gate_mixture():
    model, reference = moe(layer(3), HEADS, num_experts=4, num_selected=4), mmoe(layer(3), HEADS, num_experts=4)
    params, state = drawn(model)
    found, expected = jax.jit(lambda *args: [each.apply(*args)[0] for each in (model, reference)])(params, state, X)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


ROUTED = Network(lambda key, x: ((), ()), lambda p, state, x, *, key=None, train=False: (x, state))


def test_noisy_routers_start_at_zero():
    model = moe(ROUTED, {"a": ROUTED}, num_experts=4, noise=True)
    params, _ = jax.jit(model.init)(jax.random.key(0), X)
    assert sorted(params.tasks["a"]) == ["gate", "head", "noise"]
    assert not np.any(params.tasks["a"]["gate"]) and not np.any(params.tasks["a"]["noise"])


def test_the_balance_is_one_where_all_are_used_alike_and_rises_to_the_number_of_experts():
    # The gate hands its inputs through, so these are the logits.
    model = moe(ROUTED, {"a": ROUTED}, num_experts=4, num_selected=1, balance=1.0, gate=ROUTED)
    params, state = jax.eval_shape(model.init, jax.random.key(0), np.ones((4, 4), np.float32))
    run = jax.jit(lambda x: model.apply(params, state, x, train=True)[0]["a"])
    np.testing.assert_allclose(run(3.0 * np.eye(4, dtype=np.float32)).term, 1.0, rtol=1e-6)
    one = np.asarray([[90.0, 0.0, 0.0, 0.0]] * 4, np.float32)
    np.testing.assert_allclose(run(one).term, 4.0, rtol=1e-6)
    # Of equal logits the first is picked, never more than k.
    np.testing.assert_allclose(run(np.ones((4, 4), np.float32)).outputs, 0.25, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 2])
def test_gradients_are_those_of_the_picked_experts_and_of_the_router(k):
    model = moe(ROUTED, {"a": ROUTED}, num_experts=4, num_selected=k, balance=0.7, gate=ROUTED)
    params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((8, 4)))
    logits, stack = np.random.default_rng(3).normal(size=(8, 4)), np.random.default_rng(4).normal(size=(8, 4, 1))

    @jax.jit
    def gradients(logits, stack):
        return jax.grad(loss, argnums=(0, 1))(logits, stack)

    def loss(logits, stack):
        found, _ = model.decode(params.tasks, state, {"inputs": logits, "experts": [stack]}, train=True)
        return jnp.sum(found["a"].outputs) + found["a"].term

    def by_hand(logits):
        weights, balance = routed(logits, k)
        return np.sum(weights * stack[:, :, 0]) + 0.7 * balance

    by_logits, by_stack = gradients(logits.astype(np.float32), stack.astype(np.float32))
    np.testing.assert_allclose(by_stack[:, :, 0], routed(logits, k)[0], rtol=1e-5)
    moves = 1e-6 * np.eye(32).reshape(32, 8, 4)
    differences = [(by_hand(logits + move) - by_hand(logits - move)) / 2e-6 for move in moves]
    np.testing.assert_allclose(np.ravel(by_logits), differences, rtol=1e-3, atol=1e-5)
    assert np.any(by_logits)


def test_noise_is_added_in_training_alone_and_follows_the_key():
    model = moe(layer(3), {"depth": layer(2)}, num_experts=4, num_selected=2, noise=True)
    params, state = drawn(model)
    logits = np.asarray(X, np.float64) @ np.asarray(params.tasks["depth"]["gate"], np.float64)
    expected, _ = outputs_by_hand(params, logits, 2, "depth")

    @jax.jit
    def run(params, key):
        calm, noisy = (model.apply(params, state, X, key=key, train=train)[0]["depth"] for train in (False, True))
        return calm, noisy, jax.random.normal(key_for(key, "task/depth"), (8, 4))

    calm, found, drawn_noise = run(params, jax.random.key(1))
    np.testing.assert_allclose(calm, expected, rtol=1e-4, atol=1e-5)
    spread = np.log1p(np.exp(np.asarray(X, np.float64) @ np.asarray(params.tasks["depth"]["noise"], np.float64)))
    expected, balance = outputs_by_hand(params, logits + spread * np.asarray(drawn_noise), 2, "depth")
    np.testing.assert_allclose(found.outputs, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.term, 0.01 * balance, rtol=1e-5)
    with pytest.raises(
        ValueError, match=r"^moe: key must be a random key for noisy routing of task 'depth', found None$"
    ):
        model.apply(params, state, X, train=True)


def test_asked_for_one_task_the_other_router_and_head_do_not_run():
    model = moe(layer(3), HEADS, num_experts=4)
    params, state = drawn(model)

    @jax.jit
    def run(params):
        own = Params(params.shared, {"label": params.tasks["label"]})
        return model.apply(own, state, X, tasks=("label",), train=True), model.apply(params, state, X, train=True)[0]

    (alone, after), every = run(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), alone, {"label": every["label"]})
    assert after["tasks"]["depth"]["head"]["calls"] == 0 and after["tasks"]["label"]["head"]["calls"] == 1
    assert all(expert["calls"] == 1 for expert in after["shared"].values())


def test_the_balance_is_part_of_the_tasks_loss_and_is_trained():
    model = moe(ROUTED, {"a": ROUTED}, num_experts=4, num_selected=1, balance=1.0)
    f = mtljax.make_losses_fn(model, {"a": mtljax.Task(mtljax.losses.squared_error)})
    _, state = jax.eval_shape(model.init, jax.random.key(0), X)
    w = jnp.asarray(np.random.default_rng(5).normal(size=(3, 4)) + np.array([0.0, 0.0, 2.0, 0.0]), jnp.float32)
    params = Params({f"expert/{i}": () for i in range(4)}, {"a": {"gate": w, "head": ()}})
    batch = Batch(X, {"a": X})

    @jax.jit
    def losses(params):
        def difference(params):
            (plain, quiet), (trained, report) = (f(params, state, batch, None, train) for train in (False, True))
            assert "regularization" not in quiet.metrics["a"]
            return trained["a"] - plain["a"], report.metrics["a"]["regularization"]

        return jax.value_and_grad(difference, has_aux=True)(params)

    (difference, term), slope = losses(params)
    np.testing.assert_allclose(difference, term, rtol=1e-5)
    assert losses(jax.tree.map(lambda p, g: p - 0.1 * g, params, slope))[0][0] < term


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: moe(layer(2), HEADS, num_experts=2, num_selected=3), ValueError, "must be from 1 to 2, found 3"),
        (
            lambda: moe(layer(2), HEADS, num_experts=2, balance=-0.1),
            ValueError,
            "moe: balance must be at least 0, found -0.1",
        ),
        (lambda: moe(layer(2), HEADS), TypeError, "moe: num_experts must be an integer, found None"),
        (
            lambda: jax.eval_shape(moe(ROUTED, HEADS, num_experts=2).init, jax.random.key(0), X[:, :, None]),
            ValueError,
            "moe: a default gate's inputs must be [B, d], found [8, 3, 1]",
        ),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
