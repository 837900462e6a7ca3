"""Adaptive task-to-task fusion against its equations, with and without shared experts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import trees
from mtljax.sharing import Network
from mtljax.sharing.adatt import adatt
from mtljax.sharing.ple import Experts
from mtljax.types import Params
from tests.sharing.blocks import dense


def layer(size):
    return dense(size, rate=0.0, activation=jnp.tanh)


X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
HEADS = {"depth": layer(3), "label": layer(3)}
COUNTS = {"depth": 1, "label": 2}
SAME = Network(lambda key, x: ((), ()), lambda p, state, x, *, key=None, train=False: (x, state))


def drawn(model):
    """Parameters and state of the model, the values drawn with NumPy, which compiles nothing."""
    rng = np.random.default_rng(1)
    params, state = jax.eval_shape(model.init, jax.random.key(0), X)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), params)
    return params, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)


def adatt_by_hand(params, num_shared):
    """Three levels, in NumPy: a dict of the tasks' outputs."""
    shared, tasks = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    units = ["depth", "label"] + (["s"] if num_shared else [])
    inputs = dict.fromkeys(units, np.asarray(X, np.float64))
    for level in range(3):

        def block(what, unit, level=level):
            if unit == "s":
                return shared[f"level{level}/{what}"]
            return tasks[unit][f"level2/{what}"] if level == 2 else shared[f"level{level}/{what}/{unit}"]

        experts = {
            unit: [
                np.tanh(
                    inputs[unit]
                    @ shared[f"level{level}/" + ("shared" if unit == "s" else f"task/{unit}") + f"/{i}"]["w"]
                )
                for i in range(COUNTS.get(unit, num_shared))
            ]
            for unit in units
        }
        every = [expert for unit in units for expert in experts[unit]]
        fused = {}
        for unit in units:
            if unit == "s" and level == 2:
                continue
            logits = inputs[unit] @ block("gate", unit)
            gates = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            native = [1.0] if len(experts[unit]) == 1 else block("native", unit)
            fused[unit] = sum(gates[:, [i]] * expert for i, expert in enumerate(every))
            fused[unit] = fused[unit] + sum(v * expert for v, expert in zip(native, experts[unit], strict=True))
        inputs = fused
    return {task: np.tanh(inputs[task] @ tasks[task]["head"]["w"]) for task in tasks}


@pytest.mark.parametrize("num_shared", [0, 2])
def test_the_equations(num_shared):
    model = adatt([layer(3)] * 3, HEADS, num_specific=COUNTS, num_shared=num_shared)
    params, state = drawn(model)
    outputs, _ = jax.jit(model.apply)(params, state, X)
    for task, expected in adatt_by_hand(params, num_shared).items():
        np.testing.assert_allclose(outputs[task], expected, rtol=1e-4, atol=1e-5)
    # Gates of every unit over all experts, native weights where there are two, none for the shared unit at the top.
    experts, units = 3 + num_shared, 2 * 3 + (2 if num_shared else 0)
    native = 3 * 2 + (2 * 2 if num_shared else 0)
    assert trees.num_elements(params) == 3 * experts * 9 + units * 3 * experts + native + 2 * 9


def reach(model, params, state, task):
    """Names of the parameters that a task's outputs are computed from: the task's program, read backwards."""
    program = jax.make_jaxpr(lambda params: model.apply(params, state, X, tasks=(task,))[0])(params).jaxpr
    read = set(program.outvars)
    for step in reversed(program.eqns):
        if read.intersection(step.outvars):
            read.update(variable for variable in step.invars if not hasattr(variable, "val"))
    return {name for name, variable in zip(named(params), program.invars, strict=True) if variable in read}


def named(params):
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]


@pytest.mark.parametrize("num_shared", [0, 1])
def test_a_task_owns_its_last_gate_native_weights_and_head_alone(num_shared):
    # A shared unit that only the middle level has fuses below it and nowhere else.
    middle = Experts([SAME] * num_shared, {task: [layer(3)] * COUNTS[task] for task in HEADS})
    model = adatt([layer(3), middle, layer(3)], HEADS, num_specific=COUNTS)
    params, state = drawn(model)
    assert sorted(params.tasks["depth"]) == ["head", "level2/gate"]
    assert sorted(params.tasks["label"]) == ["head", "level2/gate", "level2/native"]
    assert ("level0/gate" in params.shared) == bool(num_shared) and "level1/gate" not in params.shared
    for task in HEADS:
        assert reach(model, params, state, task) == set(named(Params(params.shared, {task: params.tasks[task]})))


def test_one_native_expert_is_kept_whole_and_several_start_as_their_mean():
    level = Experts(specific={"a": [scaled(1.0)], "b": [scaled(2.0), scaled(6.0)]})
    model = adatt([level], {"a": SAME, "b": SAME}, gate=even)
    params, state = jax.jit(model.init)(jax.random.key(0), X)
    assert params.tasks["b"]["level0/native"].tolist() == [0.5, 0.5] and "level0/native" not in params.tasks["a"]
    outputs, _ = jax.jit(model.apply)(params, state, X)
    np.testing.assert_allclose(outputs["a"], (3.0 + 1.0) * np.asarray(X), rtol=1e-6)
    np.testing.assert_allclose(outputs["b"], (3.0 + 4.0) * np.asarray(X), rtol=1e-6)


def scaled(factor):
    return Network(lambda key, x: ((), ()), lambda p, s, x, *, key=None, train=False: (factor * x, s))


def even(size):
    """A gate whose weights are all equal."""
    zeros = jnp.zeros((4, size))
    return Network(lambda key, x: ((), ()), lambda p, s, x, *, key=None, train=False: (zeros, s))


def test_asked_for_one_task_the_others_last_gate_and_head_do_not_run():
    model = adatt([layer(3)] * 2, HEADS, num_specific=COUNTS)
    params, state = drawn(model)

    @jax.jit
    def both(params):
        own = Params(params.shared, {"label": params.tasks["label"]})
        alone = model.apply(own, state, X, tasks=("label",), train=True)
        features, between = model.encode(params.shared, state, X, train=True)
        pieces = model.decode(params.tasks, between, features, tasks=("label",), train=True)
        return alone, pieces, model.apply(params, state, X, train=True)[0]

    (alone, after), pieces, every = both(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), alone, {"label": every["label"]})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), (alone, after), pieces)
    assert after["tasks"]["depth"]["head"]["calls"] == 0 and after["tasks"]["label"]["head"]["calls"] == 1
    assert all(calls == 1 for calls in jax.tree.leaves(after["shared"]))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: adatt([SAME], HEADS, num_specific={"depth": 0, "label": 1}, num_shared=1),
            ValueError,
            "adatt: level 0 must have a native expert of task 'depth', found none",
        ),
        (lambda: adatt([], HEADS), ValueError, "adatt: levels must be at least one, found []"),
        (lambda: adatt([SAME], {}), ValueError, "adatt: heads must hold at least one Network by task name, found none"),
        (lambda: adatt([SAME], HEADS, num_shared=-1), ValueError, "adatt: num_shared must be at least 0, found -1"),
        (
            lambda: jax.eval_shape(adatt([SAME], HEADS).init, jax.random.key(0), X[:, :, None]),
            ValueError,
            "adatt: a default gate's inputs must be [B, d], found [4, 3, 1]",
        ),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
