"""Tests of `per_group`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.apply import aggregate, reconcile
from mtljax.methods.from_gramian import mgda, pcgrad
from mtljax.methods.from_jacobian import graddrop
from mtljax.methods.wrappers import by_layer, by_leaf, per_group
from tests.methods.steps.wrapper import ROWS, counting


def test_per_group_reconciles_each_group_alone():
    rows = jax.random.normal(jax.random.key(1), (2, 10))
    jacobian = {"enc": {"b": rows[:, :2], "w": rows[:, 2:6].reshape(2, 2, 2)}, "neck": {"w": rows[:, 6:]}}
    found = aggregate(per_group(pcgrad(), by_layer), jacobian)
    encoder = aggregate(pcgrad(), rows[:, :6])
    np.testing.assert_allclose(found["enc"]["b"], encoder[:2], rtol=1e-5)
    np.testing.assert_allclose(found["enc"]["w"].ravel(), encoder[2:], rtol=1e-5)
    np.testing.assert_allclose(found["neck"]["w"], aggregate(pcgrad(), rows[:, 6:]), rtol=1e-5)
    leaves = aggregate(per_group(pcgrad(), by_leaf), jacobian)
    np.testing.assert_allclose(leaves["enc"]["b"], aggregate(pcgrad(), rows[:, :2]), rtol=1e-5)
    whole = aggregate(per_group(pcgrad(), lambda path: "all"), jacobian)
    np.testing.assert_allclose(whole["neck"]["w"], aggregate(pcgrad(), rows)[6:], rtol=1e-5)


def test_per_group_with_a_method_for_each_group():
    jacobian = {"a": ROWS, "b": ROWS}
    methods = {"left": counting("losses"), "right": counting("task_grads")}
    method = per_group(methods, {"a": "left", "b": "right"}, weigh_tasks=True)
    state = method.init(2, {"a": ROWS[0], "b": ROWS[0]})
    update, state, _ = reconcile(method, state, jacobian, losses=jnp.ones(2), active=jnp.array([True, False]))
    np.testing.assert_allclose(update["a"], ROWS[0])
    np.testing.assert_allclose(update["b"], ROWS[0])
    np.testing.assert_allclose(state.weights, [1.0, 0.0])
    state = method.observe(jnp.array([3.0, 4.0]), state)
    assert state.inner["left"].inner["after"].tolist() == [3.0, 4.0]


def test_per_group_without_shared_parameters():
    method = per_group(pcgrad(), by_leaf)
    update, state, _ = reconcile(method, method.init(2, {}), {}, losses=jnp.ones(2))
    assert update == {} and state.inner == {}


def test_a_group_name_must_be_a_string():
    with pytest.raises(TypeError, match="per_group: groups must be a string for each leaf, found 3"):
        per_group(mgda(), lambda path: 3).init(2, {"b": ROWS})


def test_groups_draw_apart():
    rows = jnp.broadcast_to(jnp.array([[3.0], [-1.0]]), (2, 64))
    method, tree = per_group(graddrop(), by_leaf), {"a": rows, "b": rows}
    update, _ = method.update(tree, method.init(2, {"a": rows[0], "b": rows[0]}), key=jax.random.key(0))
    assert not jnp.array_equal(update["a"], update["b"])
