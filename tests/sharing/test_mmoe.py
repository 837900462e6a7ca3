"""Multi-gate mixture of experts against its equation, and what all mixtures do with experts and gates."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import trees
from mtljax.sharing import Network, hard
from mtljax.sharing.frames.experts import mix_experts
from mtljax.sharing.mmoe import mmoe
from tests.sharing.blocks import dense


def layer(size):
    return dense(size, rate=0.0, activation=jnp.tanh)


def plain(fun):
    """A network without parameters."""
    return Network(lambda key, x: ((), ()), lambda p, state, x, *, key=None, train=False: (fun(x), state))


X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
HEADS = {"depth": layer(2), "label": layer(2)}
MODEL = mmoe(layer(2), HEADS, num_experts=3, encoder=layer(3))
PARAMS, STATE = jax.jit(MODEL.init)(jax.random.key(0), X)


def softmax(logits):
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def by_hand(params, x, task):
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    z = np.tanh(np.asarray(x, np.float64) @ params.shared["encoder"]["w"])
    gates = softmax(z @ params.tasks[task]["gate"])
    mixture = sum(gates[:, [i]] * np.tanh(z @ params.shared[f"expert/{i}"]["w"]) for i in range(3))
    return np.tanh(mixture @ params.tasks[task]["head"]["w"])


def test_the_equation():
    outputs, _ = MODEL.apply(PARAMS, STATE, X)
    for task in HEADS:
        np.testing.assert_allclose(outputs[task], by_hand(PARAMS, X, task), rtol=2e-5, atol=1e-6)


def test_the_papers_synthetic_network_has_its_number_of_parameters():
    # Section 5.1: 100 inputs, 8 experts of 16 units, towers of 8: 13,056 without gates and output units.
    model = mmoe(layer(16), {"a": layer(8), "b": layer(8)}, num_experts=8)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 100), jnp.float32))
    gates = sum(params.tasks[task]["gate"].size for task in "ab")
    assert gates == 2 * 100 * 8
    assert trees.num_elements(params) - gates == 13_056


def test_a_task_reaches_all_experts_and_nothing_of_another_task():
    def loss(params):
        return jnp.sum(MODEL.apply(params, STATE, X)[0]["label"])

    gradient = jax.jit(jax.grad(loss))(PARAMS)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient.tasks["depth"]))
    assert all(leaf.any() for leaf in jax.tree.leaves((gradient.shared, gradient.tasks["label"])))


def test_asked_for_one_task_the_other_gate_and_head_do_not_run():
    alone, state = MODEL.apply(PARAMS._replace(tasks={"label": PARAMS.tasks["label"]}), STATE, X, tasks=("label",))
    every, _ = MODEL.apply(PARAMS, STATE, X)
    assert sorted(alone) == ["label"]
    np.testing.assert_array_equal(alone["label"], every["label"])
    _, state = MODEL.apply(PARAMS, STATE, X, tasks=("label",), train=True)
    assert state["tasks"] == {"depth": {"gate": (), "head": {"calls": 0}}, "label": {"gate": (), "head": {"calls": 1}}}
    assert all(each == {"calls": 1} for each in state["shared"].values())
    assert jax.tree.structure(state) == jax.tree.structure(STATE)


def test_apply_is_decode_after_encode():
    features, between = MODEL.encode(PARAMS.shared, STATE, X, train=True)
    assert features["experts"][0].shape == (4, 3, 2)
    pieces = MODEL.decode(PARAMS.tasks, between, features, train=True)
    jax.tree.map(np.testing.assert_array_equal, pieces, MODEL.apply(PARAMS, STATE, X, train=True))


def test_equal_gates_are_one_gate_and_gates_of_zero_take_the_mean():
    same = plain(lambda mixture: mixture)
    model = mmoe(layer(2), {"depth": same, "label": same}, num_experts=3)
    gates = {"depth": PARAMS.tasks["label"]["gate"], "label": PARAMS.tasks["label"]["gate"]}
    state = STATE | {"tasks": {task: {"gate": (), "head": ()} for task in HEADS}}

    def run(gates):
        params = PARAMS._replace(tasks={task: {"gate": gates[task], "head": ()} for task in HEADS})
        return model.apply(params, state, X)[0]

    outputs = run(gates)
    np.testing.assert_array_equal(outputs["depth"], outputs["label"])
    outputs = run(gates | {"depth": jnp.zeros((3, 3))})
    mean = np.mean([np.tanh(X @ PARAMS.shared[f"expert/{i}"]["w"]) for i in range(3)], axis=0)
    np.testing.assert_allclose(outputs["depth"], mean, rtol=1e-5, atol=1e-6)
    assert not np.allclose(outputs["depth"], outputs["label"], rtol=0.01)


def test_one_expert_is_hard_sharing():
    model, reference = mmoe(layer(2), HEADS, num_experts=1), hard(layer(2), HEADS)
    params = PARAMS._replace(tasks={k: PARAMS.tasks[k] | {"gate": PARAMS.tasks[k]["gate"][:, :1]} for k in HEADS})
    same = params._replace(shared=params.shared["expert/0"], tasks={k: params.tasks[k]["head"] for k in HEADS})
    calls = {"calls": 0}
    outputs = reference.apply(same, {"trunk": calls, "tasks": dict.fromkeys(HEADS, calls)}, X)[0]
    jax.tree.map(np.testing.assert_array_equal, model.apply(params, STATE, X)[0], outputs)


def test_features_of_any_form_are_mixed_by_a_gate_that_says_what_it_reads():
    image = jnp.asarray(np.random.default_rng(1).normal(size=(4, 2, 3)), jnp.float32)
    pooled = Network(
        init=lambda key, x: (jax.random.normal(key, (x.shape[2], 2)), ()),
        apply=lambda w, state, x, *, key=None, train=False: (jnp.mean(x, axis=1) @ w, state),
    )
    experts = [plain(lambda x: {"map": x, "sum": x.sum((1, 2))}), plain(lambda x: {"map": -x, "sum": x[:, 0, 0]})]
    model = mmoe(experts, {"a": plain(lambda mixture: mixture)}, gate=pooled)
    params, state = jax.jit(model.init)(jax.random.key(0), image)
    outputs, _ = jax.jit(model.apply)(params, state, image)
    image = np.asarray(image)
    gates = softmax(np.mean(image, axis=1) @ np.asarray(params.tasks["a"]["gate"]))
    expected = image * (gates[:, 0] - gates[:, 1])[:, None, None]
    np.testing.assert_allclose(outputs["a"]["map"], expected, rtol=1e-5, atol=1e-6)
    expected = gates[:, 0] * image.sum((1, 2)) + gates[:, 1] * image[:, 0, 0]
    np.testing.assert_allclose(outputs["a"]["sum"], expected, rtol=1e-5, atol=1e-6)


def test_bfloat16_is_mixed_in_float32_and_returned_as_it_came():
    def halved(tree):
        return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree)

    params, _ = jax.eval_shape(MODEL.init, jax.random.key(0), halved(X))
    assert params.tasks["label"]["gate"].dtype == jnp.float32
    outputs, _ = jax.jit(MODEL.apply)(halved(PARAMS), STATE, halved(X))
    assert outputs["label"].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(outputs["label"], np.float32), by_hand(PARAMS, X, "label"), atol=0.05)
    # 1 + 16 / 256: summed in bfloat16, one part in 256 of the total would be lost every time.
    stack = jnp.asarray([[1.0] + [1 / 256] * 16], jnp.bfloat16)
    assert mix_experts("mmoe", jnp.ones((1, 17)), [stack]).tolist() == [1.0625]


IMAGE = jax.ShapeDtypeStruct((4, 8, 8), jnp.float32)


def started(inputs=IMAGE, *, expert=None, **options):
    expert = plain(lambda x: x) if expert is None else expert
    options = {"num_experts": 2} | options
    return jax.eval_shape(mmoe(expert, {"a": plain(lambda x: x)}, **options).init, jax.random.key(0), inputs)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (started, ValueError, "mmoe: a default gate's inputs must be [B, d], found [4, 8, 8]; give a gate"),
        (
            lambda: started({"x": IMAGE}),
            TypeError,
            "mmoe: a default gate's inputs must be floating, found <class 'dict'>",
        ),
        (
            lambda: started(jax.ShapeDtypeStruct((4, 8), jnp.int32), expert=plain(lambda x: x * 1.0)),
            TypeError,
            "mmoe: a default gate's inputs must be floating, found int32",
        ),
        (
            lambda: started(gate=plain(lambda x: x[:, 0, :3])),
            ValueError,
            "mmoe: the gate must return logits [B, 2], found [4, 3]",
        ),
        (
            lambda: started(gate=plain(lambda x: x[:1, 0, :2])),
            ValueError,
            "mmoe: gate weights must be of shape (4, 2), found shape (1, 2)",
        ),
        (lambda: started(gate=lambda x: x), TypeError, "mmoe: gate must be a Network, found the function '<lambda>'"),
        (
            lambda: started(expert=[plain(lambda x: x), plain(lambda x: x[:, :3])]),
            ValueError,
            "found float32[4, 8, 8] from expert/0 and float32[4, 3, 8] from expert/1",
        ),
        (
            lambda: started(expert=plain(lambda x: x > 0)),
            TypeError,
            "mmoe: experts must return floating arrays [B, ...] to be mixed, found bool[4, 8, 8]",
        ),
        (lambda: started(expert=[]), ValueError, "mmoe: expert must hold at least one Network, found 0"),
        (
            lambda: started(expert=layer),
            TypeError,
            "mmoe: expert must be a Network or a sequence of them, found the function 'layer'",
        ),
        (
            lambda: started(expert=[layer(2)]),
            ValueError,
            "mmoe: num_experts must be None or the 1 networks given, found 2",
        ),
        (lambda: started(num_experts=None), TypeError, "mmoe: num_experts must be an integer, found None"),
        (lambda: started(num_experts=0), ValueError, "mmoe: num_experts must be at least 1, found 0"),
        (
            lambda: mmoe(layer(2), {}, num_experts=2),
            ValueError,
            "mmoe: heads must hold at least one Network by task name, found none",
        ),
        (
            lambda: MODEL.apply(PARAMS, STATE, X, tasks=("edges",)),
            ValueError,
            "apply: tasks must be of the model's ['depth', 'label'], found 'edges'",
        ),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
