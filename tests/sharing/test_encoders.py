"""Inputs of different kinds around one body."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.sharing import encoders
from mtljax.types import Params, TaskInputs
from tests.sharing.blocks import dense

KINDS = {"digit": "image", "letter": "image", "torque": "vector"}


def model():
    plain = lambda size: dense(size, rate=0.0)  # noqa: E731
    return encoders({"image": plain(4), "vector": plain(4)}, plain(5), {k: plain(2) for k in KINDS}, kinds=KINDS)


def inputs():
    draw = np.random.default_rng(0).normal
    shapes = {"digit": (2, 6), "letter": (2, 6), "torque": (7, 3)}
    return {name: jnp.asarray(draw(size=shape), jnp.float32) for name, shape in shapes.items()}


def test_outputs_are_products_along_each_path_and_owners_are_those_whose_losses_reach_them():
    given = inputs()
    params, state = model().init(jax.random.key(0), TaskInputs(given))
    assert set(params.shared["encoders"]) == {"image"} and set(params.shared) == {"body", "encoders"}
    assert {k: set(own) for k, own in params.tasks.items()} == {
        "digit": {"head"},
        "letter": {"head"},
        "torque": {"encoder", "head"},
    }
    outputs, after = jax.jit(lambda p: model().apply(p, state, TaskInputs(given), train=True))(params)
    for name, x in given.items():
        first = params.tasks[name]["encoder"] if name == "torque" else params.shared["encoders"]["image"]
        expected = x @ first["w"] @ params.shared["body"]["w"] @ params.tasks[name]["head"]["w"]
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-5, atol=1e-6)
    calls = jax.tree.map(int, after)
    assert calls["encoders"] == {"image": {"calls": 2}, "vector": {"calls": 1}} and calls["body"] == {"calls": 3}


def test_inputs_of_one_kind_are_encoded_once_for_all_its_tasks():
    given = inputs()
    params, state = model().init(jax.random.key(0), TaskInputs(given))
    _, after = model().apply(params, state, given["digit"], tasks=("digit", "letter"), train=True)
    calls = jax.tree.map(int, after)
    assert calls["encoders"] == {"image": {"calls": 1}, "vector": {"calls": 0}} and calls["body"] == {"calls": 1}


def test_a_task_reaches_its_own_path_alone():
    given = inputs()
    params, state = model().init(jax.random.key(0), TaskInputs(given))

    def loss(params: Params):
        return jnp.sum(model().apply(params, state, TaskInputs(given), tasks=("torque",))[0]["torque"] ** 2)

    grads = jax.jit(jax.grad(loss))(params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves((grads.tasks["torque"], grads.shared["body"])))
    rest = (grads.tasks["digit"], grads.tasks["letter"], grads.shared["encoders"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(rest))


def test_kinds_and_encoders_must_match():
    with pytest.raises(ValueError, match=r"kinds must be for the tasks \['digit', 'word'\], found \['digit'\]"):
        encoders({"image": dense(1)}, dense(1), {"digit": dense(1), "word": dense(1)}, kinds={"digit": "image"})
    with pytest.raises(ValueError, match=r"must be for the tasks' kinds \['image'\], found \['image', 'text'\]"):
        encoders({"image": dense(1), "text": dense(1)}, dense(1), {"digit": dense(1)}, kinds={"digit": "image"})
