"""Tasks at several depths, predictions that feed the layers above, and the successive regularisation."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import trees
from mtljax.sharing.hierarchical import hierarchical, successive_regularization
from mtljax.types import Params
from tests.sharing.blocks import dense as dropping

dense = functools.partial(dropping, rate=0.0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 6)), jnp.float32)
HEADS = {"pos": dense(5), "chunk": dense(4), "parse": dense(2)}
LAYERS = {"pos": 0, "chunk": 1, "parse": 2}
STAGES = [dense(4), dense(4), dense(4)]
JOINT = {"embed": dense(7), "shortcut": True, "predictions": ("pos", "chunk"), "label_size": 3}
MODEL = hierarchical(STAGES, HEADS, LAYERS, **JOINT)


def filled(model, x=X):
    """Parameters that are drawn, without compiling what `init` does, and a state of zeros."""
    shapes, state = jax.eval_shape(model.init, jax.random.key(0), x)
    draw = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), leaf.dtype), shapes)
    return params, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)


def parts(params):
    """All parts, wherever they stand, in float64."""
    found = dict(params.shared)
    for own in params.tasks.values():
        found |= own
    return {part: np.asarray(value.get("w") if isinstance(value, dict) else value) for part, value in found.items()}


def softmax(z):
    shifted = np.exp(z - z.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def test_a_row_of_stages_with_heads_at_several_depths():
    model = hierarchical(STAGES, HEADS, LAYERS | {"chunk": 0})
    params, state = filled(model)
    outputs, after = jax.jit(model.apply)(params, state, X)
    assert {name: sorted(own) for name, own in params.tasks.items()} == {
        "pos": ["head/pos"],
        "chunk": ["head/chunk"],
        "parse": ["head/parse", "stage/1", "stage/2"],
    }
    assert list(params.shared) == ["stage/0"]
    p = parts(params)
    low = X @ p["stage/0"]
    np.testing.assert_allclose(outputs["pos"], low @ p["head/pos"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs["chunk"], low @ p["head/chunk"], rtol=1e-4, atol=1e-5)
    top = low @ p["stage/1"] @ p["stage/2"]
    np.testing.assert_allclose(outputs["parse"], top @ p["head/parse"], rtol=1e-4, atol=1e-4)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_the_joint_many_task_models_equations():
    params, state = filled(MODEL)
    outputs, _ = jax.jit(MODEL.apply)(params, state, X)
    p = parts(params)
    x = np.asarray(X, np.float64) @ p["embed"]
    h = x @ p["stage/0"]
    pos = h @ p["head/pos"]
    label_pos = softmax(pos) @ p["label/pos"]
    h = np.concatenate([h, x, label_pos], -1) @ p["stage/1"]
    chunk = h @ p["head/chunk"]
    label_chunk = softmax(chunk) @ p["label/chunk"]
    h = np.concatenate([h, x, label_pos + label_chunk], -1) @ p["stage/2"]
    for name, expected in {"pos": pos, "chunk": chunk, "parse": h @ p["head/parse"]}.items():
        np.testing.assert_allclose(outputs[name], expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())


def test_the_parameters_are_counted_part_by_part():
    params, _ = filled(MODEL)
    embed, stages = 6 * 7, [7 * 4, (4 + 7 + 3) * 4, (4 + 7 + 3) * 4]
    heads, labels = {"pos": 4 * 5, "chunk": 4 * 4, "parse": 4 * 2}, {"pos": 5 * 3, "chunk": 4 * 3}
    assert trees.num_elements(params.shared) == embed + sum(stages[:2]) + heads["pos"] + heads["chunk"] + labels["pos"]
    assert trees.num_elements(params.tasks["parse"]) == stages[2] + heads["parse"] + labels["chunk"]
    assert params.tasks["pos"] == params.tasks["chunk"] == {}


@pytest.mark.parametrize("stopped", [False, True], ids=["through", "stopped"])
def test_losses_reach_the_heads_below_unless_predictions_are_stopped(stopped):
    model = hierarchical(STAGES, HEADS, LAYERS, **JOINT, stop_predictions=stopped)
    params, state = filled(model)

    @jax.jit
    def slope(params, weights):
        def loss(params):
            outputs, _ = model.apply(params, state, X)
            return sum(weights[name] * jnp.sum(outputs[name] ** 2) for name in HEADS)

        return jax.grad(loss)(params)

    reached = {}
    for name in HEADS:
        found = slope(params, {other: jnp.float32(other == name) for other in HEADS})
        for part, value in [(part, v) for own in (found.shared, *found.tasks.values()) for part, v in own.items()]:
            if any(np.any(leaf) for leaf in jax.tree.leaves(value)):
                reached.setdefault(part, set()).add(name)
    every = {"pos", "chunk", "parse"}
    through = {"pos": every, "chunk": {"chunk", "parse"}, "parse": {"parse"}}
    assert reached == {
        "embed": every,
        "stage/0": every,
        "stage/1": {"chunk", "parse"},
        "stage/2": {"parse"},
        "label/pos": {"chunk", "parse"},
        "label/chunk": {"parse"},
        **{f"head/{name}": {name} if stopped else by for name, by in through.items()},
    }
    for part, by in reached.items():
        assert (part in params.shared) == (len(by) > 1)
        assert len(by) > 1 or part in params.tasks[next(iter(by))]


def test_a_task_runs_what_it_depends_on_and_no_more():
    ran = []

    def noted(name, network):
        def apply(*given, **rest):
            ran.append(name)
            return network.apply(*given, **rest)

        return network._replace(apply=apply)

    model = hierarchical(
        [noted(f"stage/{level}", stage) for level, stage in enumerate(STAGES)],
        {name: noted(f"head/{name}", head) for name, head in HEADS.items()},
        LAYERS,
        **JOINT,
    )
    params, state = filled(model)
    low = ["stage/0", "head/pos"]
    for task, expected in {
        "pos": low,
        "chunk": [*low, "stage/1", "head/chunk"],
        "parse": [*low, "stage/1", "head/chunk", "stage/2", "head/parse"],
    }.items():
        ran.clear()
        outputs, after = jax.eval_shape(functools.partial(model.apply, tasks=(task,)), params, state, X)
        assert (list(outputs), ran) == ([task], expected)
        assert jax.tree.structure(after) == jax.tree.structure(state)


ANCHOR = Params({"w": jnp.array([1.0, -2.0]), "b": [jnp.float32(0.5)]}, {"a": jnp.array([3.0])})
MOVED = Params({"w": jnp.array([2.0, -2.5]), "b": [jnp.float32(0.0)]}, {"a": jnp.array([9.0])})
WHOLE = Params(jnp.arange(2, dtype=jnp.int32), {})


def test_the_regularization_is_a_squared_distance_to_the_anchor():
    penalty = successive_regularization(ANCHOR, 2.0)
    value, slope = jax.jit(jax.value_and_grad(penalty))(MOVED)
    assert float(value) == 2.0 * (1.0 + 0.25 + 0.25)
    np.testing.assert_array_equal(slope.shared["w"], [4.0, -2.0])
    assert float(slope.shared["b"][0]) == -2.0 and not np.any(slope.tasks["a"])
    assert float(penalty(ANCHOR)) == 0.0
    assert float(successive_regularization(ANCHOR, 1.0, select=lambda p: p.tasks["a"])(MOVED)) == 36.0
    assert float(successive_regularization(Params((), {"a": ()}), 1.0)(Params((), {"a": ()}))) == 0.0


def test_the_regularization_of_narrow_parameters_is_summed_wide():
    narrow = Params(jnp.asarray(np.full(1000, 1.0), jnp.bfloat16), {})
    anchor = Params(jnp.asarray(np.full(1000, 1.0 + 2**-7), jnp.bfloat16), {})
    value, slope = jax.jit(jax.value_and_grad(successive_regularization(anchor, 1.0)))(narrow)
    assert value.dtype == jnp.float32 and float(value) == pytest.approx(1000 * 2**-14, rel=1e-6)
    assert slope.shared.dtype == jnp.bfloat16 and float(slope.shared[0]) == -(2**-6)


def test_a_step_holds_the_network_and_the_anchor_moves_without_another_trace():
    def losses_fn(params, state, batch, key, train):
        return {"a": 0.0 * jnp.sum(params.shared["w"])}, mtljax.Aux(state)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(state, anchor):
        penalty = successive_regularization(anchor, 0.5)
        return make(penalty)[1](state, None)[0]

    def make(penalty=None):
        return mtljax.training.make_train_step(losses_fn, mtljax.methods.equal(), optax.sgd(0.1), penalty=penalty)

    state = make()[0](MOVED, key=jax.random.key(0))
    for _ in range(2):
        state = step(state, ANCHOR)
    expected = [1.0 + 0.81 * 1.0, -2.0 + 0.81 * -0.5]
    np.testing.assert_allclose(state.params.shared["w"], expected, rtol=1e-6)
    held = step(state, state.params)
    np.testing.assert_array_equal(held.params.shared["w"], state.params.shared["w"])


def make(**change):
    given = {"stages": STAGES, "heads": HEADS, "layers": LAYERS} | change
    model = hierarchical(given.pop("stages"), given.pop("heads"), given.pop("layers"), **given)
    return jax.eval_shape(model.init, jax.random.key(0), X)


READ = {"predictions": ("pos",), "label_size": 3}


@pytest.mark.parametrize(
    ("attempt", "error", "text"),
    [
        (
            lambda: make(layers={"pos": 0}),
            ValueError,
            "hierarchical: layers must be for the tasks ['chunk', 'parse', 'pos'], found ['pos']",
        ),
        (
            lambda: make(layers=LAYERS | {"pos": 3}),
            ValueError,
            "hierarchical: layers['pos'] must be from 0 to 2, found 3",
        ),
        (
            lambda: make(layers=LAYERS | {"pos": -1}),
            ValueError,
            "hierarchical: layers['pos'] must be from 0 to 2, found -1",
        ),
        (
            lambda: make(layers=LAYERS | {"parse": 1}),
            ValueError,
            "hierarchical: layers must name the last stage, 2, for a task, found 1 at most",
        ),
        (
            lambda: make(stages=dense(4)),
            TypeError,
            "hierarchical: stages must be a sequence of Network, found a Network; write (network,)",
        ),
        (
            lambda: make(heads={}),
            ValueError,
            "hierarchical: heads must hold at least one Network by task name, found none",
        ),
        (
            lambda: make(**READ | {"predictions": ("ner",)}),
            ValueError,
            "hierarchical: a task of predictions must be 'chunk' or 'parse' or 'pos', found 'ner'",
        ),
        (
            lambda: make(**READ | {"predictions": ("parse",)}),
            ValueError,
            "hierarchical: predictions must be of tasks below the last stage, found 'parse'",
        ),
        (
            lambda: make(**READ | {"predictions": "pos"}),
            TypeError,
            "hierarchical: predictions must be a sequence of strings, found 'pos'; write ('pos',)",
        ),
        (lambda: make(predictions=("pos",)), TypeError, "label_size must be an integer, found None"),
        (
            lambda: make(label_size=3),
            ValueError,
            "hierarchical: label_size must be None where there are no predictions, found 3",
        ),
        (lambda: make(**READ | {"label_size": 0}), ValueError, "label_size must be at least 1, found 0"),
        (
            lambda: make(heads=HEADS | {"pos": dropping(5)._replace(apply=lambda p, s, x, **_: (x[:, 0], s))}, **READ),
            ValueError,
            "must have all axes of the features (2, 3, 4) but the last, found shape (2, 4)",
        ),
        (lambda: successive_regularization(ANCHOR, -1.0), ValueError, "strength must be at least 0, found -1.0"),
        (
            lambda: successive_regularization(ANCHOR, 1.0)(Params({"w": jnp.ones(3), "b": [jnp.ones(())]}, {})),
            ValueError,
            "leaf ['w'] of the parameters must be (2,), as in the anchor, found (3,)",
        ),
        (
            lambda: successive_regularization(ANCHOR, 1.0)(Params({"w": jnp.ones(2)}, {})),
            ValueError,
            "leaf ['b'][0] of the parameters must be (), as in the anchor, found no such leaf",
        ),
        (
            lambda: successive_regularization(WHOLE, 1.0)(WHOLE),
            TypeError,
            "leaf itself must be of a floating-point type, found int32",
        ),
    ],
)
def test_mistakes_get_messages(attempt, error, text):
    with pytest.raises(error) as caught:
        attempt()
    assert text in str(caught.value)
