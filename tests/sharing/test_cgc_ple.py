"""Customised gate control and progressive layered extraction against their equations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import trees
from mtljax.sharing import Network, hard
from mtljax.sharing.cgc import cgc
from mtljax.sharing.mmoe import mmoe
from mtljax.sharing.ple import Experts, ple
from mtljax.types import Params
from tests.sharing.blocks import dense


def layer(size):
    return dense(size, rate=0.0, activation=jnp.tanh)


X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
HEADS = {"depth": layer(3), "label": layer(3)}


def drawn(model, seed=0):
    """Parameters and state of the model, the values drawn with NumPy, which compiles nothing."""
    rng = np.random.default_rng(seed)
    params, state = jax.eval_shape(model.init, jax.random.key(0), X)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), params)
    return params, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)


def fused(gate, z, experts):
    logits = z @ gate
    weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert weights.shape[1] == len(experts)
    return sum(weights[:, [i]] * expert for i, expert in enumerate(experts))


THREE = ple([layer(3), layer(3), layer(3)], HEADS, num_shared=2, num_specific={"depth": 1, "label": 3})
PARAMS, STATE = drawn(THREE)


def test_the_equations_of_ple_at_three_levels():
    shared, tasks = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), PARAMS)
    own, common = dict.fromkeys(HEADS, np.asarray(X, np.float64)), np.asarray(X, np.float64)
    for level in range(3):
        # What stands where: the last level's task experts and the last two levels' task gates are the tasks' own.
        experts = {
            task: [
                np.tanh(own[task] @ weights["w"])
                for weights in (
                    [tasks[task][f"level2/expert/{i}"] for i in range(count)]
                    if level == 2
                    else [shared[f"level{level}/task/{task}/{i}"] for i in range(count)]
                )
            ]
            for task, count in (("depth", 1), ("label", 3))
        }
        both = [np.tanh(common @ shared[f"level{level}/shared/{i}"]["w"]) for i in range(2)]
        gates = {
            task: shared[f"level0/gate/{task}"] if level == 0 else tasks[task][f"level{level}/gate"] for task in HEADS
        }
        if level < 2:
            common = fused(shared[f"level{level}/gate"], common, experts["depth"] + experts["label"] + both)
        own = {task: fused(gates[task], own[task], experts[task] + both) for task in HEADS}
    outputs, _ = THREE.apply(PARAMS, STATE, X)
    for task in HEADS:
        np.testing.assert_allclose(outputs[task], np.tanh(own[task] @ tasks[task]["head"]["w"]), rtol=1e-4, atol=1e-5)


def test_the_number_of_parameters():
    # Three levels of 2 + 1 + 3 experts, gates of each task over 3 and 5, two shared gates over all 6, two heads.
    assert trees.num_elements(PARAMS) == 3 * 6 * 9 + 3 * 3 * (3 + 5) + 2 * 3 * 6 + 2 * 9


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


@pytest.mark.parametrize("shared_above", [True, False])
def test_shared_is_what_both_tasks_reach_and_the_rest_is_the_tasks_own(shared_above):
    model, params, state = THREE, PARAMS, STATE
    if not shared_above:
        # Where nothing is shared at the top, tasks part one level earlier.
        top = Experts(specific={task: [layer(3), layer(3)] for task in HEADS})
        model = ple([layer(3), layer(3), top], HEADS, num_shared=2, num_specific={"depth": 1, "label": 3})
        params, state = drawn(model)
        assert sorted(params.tasks["depth"]) == [
            *("head", "level0/gate", "level1/expert/0", "level1/gate"),
            *("level2/expert/0", "level2/expert/1", "level2/gate"),
        ]
    for task in HEADS:
        assert reach(model, params, state, task) == set(named(Params(params.shared, {task: params.tasks[task]})))


def test_asked_for_one_task_nothing_of_the_others_own_runs():
    every, _ = THREE.apply(PARAMS, STATE, X, train=True)
    own = PARAMS._replace(tasks={"label": PARAMS.tasks["label"], "depth": None})
    alone, state = THREE.apply(own, STATE, X, tasks=("label",), train=True)
    assert sorted(alone) == ["label"]
    np.testing.assert_array_equal(alone["label"], every["label"])
    jax.tree.map(np.testing.assert_array_equal, state["tasks"]["depth"], STATE["tasks"]["depth"])
    assert all(calls == 1 for calls in jax.tree.leaves((state["shared"], state["tasks"]["label"])))
    features, between = THREE.encode(PARAMS.shared, STATE, X, train=True)
    pieces = THREE.decode(PARAMS.tasks, between, features, tasks=["label"], train=True)
    jax.tree.map(np.testing.assert_array_equal, pieces, (alone, state))


def test_the_equation_of_cgc():
    model = cgc(layer(3), HEADS, num_shared=2, num_specific={"depth": 1, "label": 3}, encoder=layer(3))
    params, state = drawn(model)
    outputs, _ = model.apply(params, state, X)
    shared, tasks = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    z = np.tanh(np.asarray(X, np.float64) @ shared["encoder"]["w"])
    for task, count in (("depth", 1), ("label", 3)):
        experts = [np.tanh(z @ tasks[task][f"level0/expert/{i}"]["w"]) for i in range(count)]
        experts += [np.tanh(z @ shared[f"level0/shared/{i}"]["w"]) for i in range(2)]
        mixture = fused(tasks[task]["level0/gate"], z, experts)
        np.testing.assert_allclose(outputs[task], np.tanh(mixture @ tasks[task]["head"]["w"]), rtol=1e-4, atol=1e-5)
    assert sorted(shared) == ["encoder", "level0/shared/0", "level0/shared/1"]
    # One level of ple is the same, name by name.
    same = ple([layer(3)], HEADS, num_shared=2, num_specific={"depth": 1, "label": 3}, encoder=layer(3))
    jax.tree.map(np.testing.assert_array_equal, same.apply(params, state, X)[0], outputs)


def test_one_shared_expert_and_none_of_their_own_is_hard_sharing():
    model, reference = cgc(layer(3), HEADS, num_specific=0), hard(layer(3), HEADS)
    params, state = drawn(model)
    heads = {task: params.tasks[task]["head"] for task in HEADS}
    states = {"trunk": state["shared"]["level0/shared/0"], "tasks": {k: state["tasks"][k]["head"] for k in HEADS}}
    expected, _ = reference.apply(Params(params.shared["level0/shared/0"], heads), states, X)
    jax.tree.map(np.testing.assert_array_equal, model.apply(params, state, X)[0], expected)


def test_shared_experts_alone_are_a_multi_gate_mixture():
    model, reference = cgc(layer(3), HEADS, num_shared=3, num_specific=0), mmoe(layer(3), HEADS, num_experts=3)
    params, state = drawn(model)
    same, same_state = drawn(reference)
    same = Params(
        {f"expert/{i}": params.shared[f"level0/shared/{i}"] for i in range(3)},
        {task: {"gate": params.tasks[task]["level0/gate"], "head": params.tasks[task]["head"]} for task in HEADS},
    )
    outputs = model.apply(params, state, X)[0], reference.apply(same, same_state, X)[0]
    jax.tree.map(np.testing.assert_array_equal, *outputs)


def test_without_shared_experts_tasks_share_the_encoder_alone():
    model = ple([layer(3), layer(3)], HEADS, num_shared=0, num_specific=2, encoder=layer(3))
    params, _ = drawn(model)
    assert sorted(params.shared) == ["encoder"]
    assert {"level0/expert/1", "level0/gate", "level1/expert/1", "level1/gate"} < set(params.tasks["depth"])


def test_experts_may_differ_and_gates_are_made_for_their_number():
    sizes = []

    def gate(size):
        sizes.append(size)
        return Network(lambda key, x: ((), ()), lambda p, s, x, *, key=None, train=False: (jnp.zeros((4, size)), s))

    def scaled(factor):
        return Network(lambda key, x: ((), ()), lambda p, s, x, *, key=None, train=False: (factor * x, s))

    level = Experts(shared=[scaled(1.0)], specific={"label": [scaled(2.0), scaled(6.0)]})
    model = cgc(level, {"depth": scaled(1.0), "label": scaled(1.0)}, gate=gate)
    params, state = drawn(model)
    outputs, _ = model.apply(params, state, X)
    np.testing.assert_allclose(outputs["depth"], X, rtol=1e-6)
    np.testing.assert_allclose(outputs["label"], 3 * X, rtol=1e-6)
    assert set(sizes) == {1, 3}


def test_gates_fit_levels_of_different_numbers():
    levels = (Experts([SAME], {"a": [SAME, SAME]}), Experts([SAME], {"b": [SAME]}))
    params, _ = started(levels=levels)
    sizes = {
        name: {block: leaf.shape[-1] for block, leaf in own.items() if leaf != ()} for name, own in params.tasks.items()
    }
    assert sizes == {"a": {"level0/gate": 3, "level1/gate": 1}, "b": {"level0/gate": 1, "level1/gate": 2}}


IMAGE = jax.ShapeDtypeStruct((4, 8, 8), jnp.float32)
SAME = Network(lambda key, x: ((), ()), lambda p, state, x, *, key=None, train=False: (x, state))


def started(inputs=X, *, levels=(SAME,), **options):
    return jax.eval_shape(ple(levels, {"a": SAME, "b": SAME}, **options).init, jax.random.key(0), inputs)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: started(IMAGE), ValueError, "ple: a default gate's inputs must be [B, d], found [4, 8, 8]"),
        (lambda: started(levels=SAME), TypeError, "ple: levels must be a sequence of Network or Experts"),
        (lambda: started(levels=[]), ValueError, "ple: levels must be at least one, found []"),
        (
            lambda: started(levels=[SAME, layer]),
            TypeError,
            "ple: levels[1] must be a Network or Experts, found the function 'layer'",
        ),
        (lambda: cgc([SAME], HEADS), TypeError, "cgc: levels[0] must be a Network or Experts, found a list"),
        (lambda: started(num_shared=-1), ValueError, "ple: num_shared must be at least 0, found -1"),
        (lambda: started(num_specific=1.5), TypeError, "ple: num_specific must be an integer, found 1.5"),
        (
            lambda: started(num_specific={"a": 1}),
            ValueError,
            "ple: num_specific must be for the tasks ['a', 'b'], found ['a']",
        ),
        (
            lambda: started(levels=[SAME, Experts(specific={"a": [SAME]})]),
            ValueError,
            "ple: level 1 must have experts for task 'b', found none",
        ),
        (
            lambda: started(levels=[Experts([SAME], {"c": [SAME]})]),
            ValueError,
            "ple: a task of levels[0].specific must be 'a' or 'b', found 'c'",
        ),
        (
            lambda: started(levels=[Experts([layer])]),
            TypeError,
            "ple: levels[0].shared[0] must be a Network, found the function 'layer'",
        ),
        (lambda: started(gate=SAME), TypeError, "ple: gate must be a function from the number of experts to a Network"),
        (lambda: started(gate=lambda size: SAME), ValueError, "ple: the gate must return logits [B, 2], found [4, 3]"),
        (
            lambda: started(levels=[Experts([SAME], {"a": [layer(2)], "b": [SAME]})]),
            ValueError,
            "ple: experts that are mixed must return outputs of one shape and dtype, found stacks "
            "[[4, 1, 2], [4, 1, 3]]",
        ),
        (lambda: cgc(SAME, {}), ValueError, "cgc: heads must hold at least one Network by task name, found none"),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
