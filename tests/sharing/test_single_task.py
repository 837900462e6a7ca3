"""One whole network for each task, nothing shared."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.sharing import single_task, soft
from mtljax.types import TaskInputs
from tests.sharing.blocks import dense

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
HEADS = {"label": dense(5), "depth": dense(1)}
MODEL = single_task(dense(4), HEADS)


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_each_task_runs_its_own_network_from_values_of_its_own():
    params, state = MODEL.init(jax.random.key(0), X)
    assert params.shared == () and MODEL.penalty is None and MODEL.encode is None and MODEL.decode is None
    outputs, after = MODEL.apply(params, state, X)
    equal(state, after)
    for task in HEADS:
        own = params.tasks[task]
        np.testing.assert_allclose(outputs[task], X @ own["trunk"]["w"] @ own["head"]["w"], rtol=1e-5)
    trunks = [params.tasks[task]["trunk"]["w"] for task in ("depth", "label")]
    assert np.all(trunks[0] != trunks[1])


def test_it_has_the_layout_of_soft():
    params, state = MODEL.init(jax.random.key(0), X)
    copies, copies_state = soft(dense(4), HEADS).init(jax.random.key(0), X)
    assert jax.tree.structure(params) == jax.tree.structure(copies)
    assert jax.tree.structure(state) == jax.tree.structure(copies_state)


def test_a_task_is_the_same_alone_and_beside_others():
    alone = single_task(dense(4), {"label": HEADS["label"]})
    key, drops = jax.random.key(0), jax.random.key(1)
    whole, single = MODEL.init(key, X), alone.init(key, X)
    equal(single[0].tasks["label"], whole[0].tasks["label"])
    together = MODEL.apply(*whole, X, key=drops, train=True)
    own = alone.apply(*single, X, key=drops, train=True)
    equal(own[0]["label"], together[0]["label"])
    equal(own[1]["tasks"]["label"], together[1]["tasks"]["label"])
    assert together[1]["tasks"]["label"] == {"trunk": {"calls": 1}, "head": {"calls": 1}}
    # Nothing of the other task is read, and its state stays.
    whole[0].tasks["depth"] = None
    found, after = MODEL.apply(*whole, X, tasks=("label",), key=drops, train=True)
    equal(found, {"label": together[0]["label"]})
    equal(after["tasks"]["depth"], whole[1]["tasks"]["depth"])


def test_a_dict_of_whole_networks_needs_no_heads_and_each_drops_units_of_its_own():
    model = single_task({"b": dense(4), "a": dense(4)})
    params, state = model.init(jax.random.key(0), X)
    assert jax.tree.map(jnp.shape, params.tasks["a"]) == {"trunk": {"w": (3, 4)}, "head": ()}
    params.tasks["b"] = params.tasks["a"]
    outputs, _ = model.apply(params, state, X)
    equal(outputs["a"], outputs["b"])
    outputs, _ = model.apply(params, state, X, key=jax.random.key(1), train=True)
    assert not np.array_equal(outputs["a"], outputs["b"])


def test_each_network_may_read_inputs_of_its_own_shape():
    inputs = TaskInputs({"depth": jnp.ones((2, 7)), "label": X})
    params, state = MODEL.init(jax.random.key(0), inputs)
    assert params.tasks["depth"]["trunk"]["w"].shape == (7, 4)
    outputs, _ = MODEL.apply(params, state, inputs)
    assert {task: out.shape for task, out in outputs.items()} == {"depth": (2, 1), "label": (6, 5)}
    equal(outputs["label"], MODEL.apply(params, state, X, tasks=("label",))[0]["label"])
    with pytest.raises(ValueError, match=r"TaskInputs must hold task 'label', found \['depth'\]"):
        MODEL.apply(params, state, TaskInputs({"depth": inputs.by_task["depth"]}))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: single_task(dense(4)),
            TypeError,
            "single_task: heads must be a dict of Network by task name, found None",
        ),
        (
            lambda: single_task({"a": dense(4)}, HEADS),
            TypeError,
            "single_task: heads must be None where networks is a dict, found a dict",
        ),
        (
            lambda: single_task([dense(4)]),
            TypeError,
            "single_task: networks must be a dict of Network by task name, found a list",
        ),
        (
            lambda: single_task({}),
            ValueError,
            "single_task: networks must hold at least one Network by task name, found none",
        ),
        (
            lambda: single_task(dense(4), {0: dense(1)}),
            TypeError,
            "single_task: the names of heads must be a sequence of strings, found [0]",
        ),
        (lambda: MODEL.apply(None, {"tasks": {}}, X, tasks=("edges",)), ValueError, "found 'edges'"),
        (lambda: MODEL.apply(None, {"tasks": {}}, X, tasks="depth"), TypeError, "found the string 'depth'"),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
