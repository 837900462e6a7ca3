"""One pytree of parameters: who owns which leaf, and that a step on it is the step on `Params` split by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

import mtljax
from mtljax import methods
from mtljax.partition import layout_of, parted, split
from mtljax.types import Params

TREE = {"trunk": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array([2.0, 1.0, 1.0]), "a": {"w": jnp.array([0.5, 1.0, -1.0])}}
PARAMS = Params({"trunk": TREE["trunk"]}, {"a": TREE["a"], "b": TREE["b"]})
X = jnp.array([[0.3, 1.0, -1.0], [2.0, 0.1, 0.4]])


def losses_fn(tree, x=X):
    hidden = jnp.tanh(x * tree["trunk"][None, :])
    return {"b": jnp.mean((hidden @ tree["b"] - 1.0) ** 2), "a": jnp.mean((hidden @ tree["a"]["w"] + 2.0) ** 2)}


def by_hand(params, *args):
    return losses_fn({**params.shared, **params.tasks}, *args)


def owners(losses_fn, tree=TREE, **rest):
    """The task of each leaf; None where it is shared."""
    part = parted("test", losses_fn, tree, (), **rest)
    paths = part.layout.paths
    return {path: None if k is None else part.names[k] for path, k in zip(paths, part.layout.owners, strict=True)}


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


HEADS = {"a/w": "a", "b": "b", "trunk": None}


def scanned(tree):
    hidden, _ = jax.lax.scan(lambda h, w: (h * w, None), jnp.ones(()), tree["trunk"])
    return {"a": jnp.sum(hidden * tree["a"]["w"]), "b": jnp.sum(hidden * tree["b"])}


def called(tree):
    head = jax.checkpoint(jax.jit(lambda h, w: jax.nn.relu(h * w).sum()))
    return {"a": head(tree["trunk"], tree["a"]["w"]), "b": head(tree["trunk"], tree["b"])}


def together(tree):
    both = jax.jit(lambda h, a, b: (jnp.sum(h * a), jnp.sum(h * b)))(tree["trunk"], tree["a"]["w"], tree["b"])
    return dict(zip("ab", both, strict=True))


@jax.custom_vjp
def twice(x):
    return 2.0 * x


twice.defvjp(lambda x: (twice(x), None), lambda _, g: (2.0 * g,))


def custom(tree):
    return {"a": twice(jnp.sum(tree["trunk"] * tree["a"]["w"])), "b": jnp.sum(twice(tree["trunk"]) * tree["b"])}


@pytest.mark.parametrize("losses", [losses_fn, scanned, called, together, custom])
def test_heads_are_found(losses):
    assert owners(losses) == HEADS


def test_a_leaf_behind_a_stopped_gradient_is_not_reached():
    def losses(tree):
        kept = jax.lax.stop_gradient(tree["a"]["w"])
        return {"a": jnp.sum(tree["trunk"] * tree["a"]["w"]), "b": jnp.sum(tree["trunk"] * tree["b"] * kept)}

    assert owners(losses) == HEADS


def test_what_several_losses_reach_or_none_is_shared():
    assert owners(lambda tree: {"a": jnp.sum(tree["trunk"]), "b": jnp.sum(tree["b"])}) == {
        "a/w": None,
        "b": "b",
        "trunk": "a",
    }
    cascade = lambda tree: {"a": jnp.sum(tree["a"]["w"]), "b": jnp.sum(tree["a"]["w"] * tree["b"])}  # noqa: E731
    assert owners(cascade) == {"a/w": None, "b": "b", "trunk": None}


def test_an_array_of_losses_hides_heads_and_own_names_them():
    def vector(tree):
        losses = losses_fn(tree)
        return jnp.stack([losses["b"], losses["a"]])

    assert set(owners(vector).values()) == {None}
    assert owners(vector, names=("b", "a"), own={"a": "a", "b": "b"}) == HEADS
    losses, grads, state = mtljax.value_and_grad(vector, methods.mgda(), names=("b", "a"), own={"a": "a", "b": "b"})(
        TREE, methods.mgda().init(2)
    )
    found, expected, other = mtljax.value_and_grad(by_hand, methods.mgda())(PARAMS, methods.mgda().init(2))
    np.testing.assert_array_equal(losses, [found["b"], found["a"]])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), grads, {**expected.shared, **expected.tasks})
    np.testing.assert_allclose(state.weights, other.weights[::-1], rtol=1e-6)


@pytest.mark.parametrize(
    "own",
    [
        {"a": "a", "b": "b"},
        {"a": ["a/w"], "b": ("b",)},
        lambda path: {"a/w": "a", "b": "b"}.get(path),
    ],
)
def test_who_owns_what_may_be_said(own):
    assert owners(losses_fn, own=own) == HEADS


def test_tasks_stand_in_the_order_of_names():
    tree = {"x": jnp.array(1.0), "y": jnp.array(2.0)}
    layout = layout_of("f", {"a": "x", "b": "y"}, tree, ["b", "a"])
    parts = split(layout, tree)
    assert layout.owners == [1, 0] and [parts.tasks[key] for key in sorted(parts.tasks)] == [[2.0], [1.0]]


def test_a_path_is_not_a_prefix_of_letters():
    tree = {"head": jnp.ones(1), "head2": jnp.ones(1)}
    losses = lambda tree: {"a": jnp.sum(tree["head"]), "b": jnp.sum(tree["head2"])}  # noqa: E731
    assert owners(losses, tree, own={"a": "head"}) == {"head": "a", "head2": None}


@pytest.mark.parametrize("name", ["equal", "uncertainty", "famo", "pcgrad", "mgda", "graddrop"])
def test_a_step_on_one_tree_is_the_step_on_params(name):
    method = getattr(methods, name)()
    key = jax.random.key(1)
    found = mtljax.value_and_grad(losses_fn, method)(TREE, method.init(2, PARAMS.shared), X, key=key)
    expected = mtljax.value_and_grad(by_hand, method)(PARAMS, method.init(2, PARAMS.shared), X, key=key)
    equal(found[0], expected[0])
    equal(found[1], {**expected[1].shared, **expected[1].tasks})
    equal(found[2], expected[2])


def test_aux_and_active_pass_through():
    f = mtljax.value_and_grad(lambda tree: (losses_fn(tree), "more"), methods.equal(), has_aux=True)
    (losses, aux), grads, _ = f(TREE, methods.equal().init(2), active=jnp.array([False, True]))
    assert aux == "more" and sorted(losses) == ["a", "b"]
    assert not grads["a"]["w"].any() and grads["b"].any()


def test_nothing_is_owned_where_own_is_empty():
    method = methods.mgda()
    _, grads, state = mtljax.value_and_grad(losses_fn, method, own={})(TREE, method.init(2))
    whole = Params(TREE, {"a": (), "b": ()})
    _, expected, other = mtljax.value_and_grad(lambda p: losses_fn(p.shared), method)(whole, method.init(2))
    equal(grads, expected.shared)
    equal(state, other)
    # `Params` without tasks say the same.
    _, grads, _ = mtljax.value_and_grad(lambda p: losses_fn(p.shared), method)(Params(TREE, {}), method.init(2))
    equal(grads, Params(expected.shared, {}))


def test_task_grads_of_one_tree_are_its_jacobian():
    losses, grads = mtljax.value_and_task_grads(losses_fn, names=("b", "a"))(TREE)
    expected = jax.jacrev(lambda tree: jnp.stack([losses_fn(tree)["b"], losses_fn(tree)["a"]]))(TREE)
    assert jax.tree.structure(grads) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), grads, expected)
    assert sorted(losses) == ["a", "b"]


def test_the_methods_state_may_be_held_by_any_tree():
    method = methods.famo()
    tx = optax.chain(mtljax.carry(method, 2), optax.sgd(0.1))
    _, grads, alone = mtljax.value_and_grad(losses_fn, method)(TREE, method.init(2))
    _, same, chain = mtljax.value_and_grad(losses_fn, method)(TREE, tx.init(TREE))
    state = TrainState.create(apply_fn=None, params=TREE, tx=tx)
    _, again, state = mtljax.value_and_grad(losses_fn, method)(state.params, state)
    equal(same, grads)
    equal(again, grads)
    equal(chain[0], alone)
    equal(state.opt_state[0], alone)
    with pytest.raises(ValueError, match=r"state must be what mtljax.observe\(.* since famo learns from them"):
        mtljax.value_and_grad(losses_fn, method)(TREE, chain)
    assert isinstance(mtljax.observe(method, losses_fn(TREE), state).opt_state[0], mtljax.MethodState)


def test_a_method_that_remembers_gradients_is_told_who_owns_what():
    method, own = methods.moco(), {"a": "a", "b": "b"}
    start = mtljax.carry(method, 2, own=own).init(TREE)
    _, grads, state = mtljax.value_and_grad(losses_fn, method)(TREE, start)
    _, expected, other = mtljax.value_and_grad(by_hand, method)(PARAMS, method.init(2, PARAMS.shared))
    equal(grads, {**expected.shared, **expected.tasks})
    equal(jax.tree.leaves(state), jax.tree.leaves(other))
    with pytest.raises(ValueError, match=r"the state of moco must be made for the shared parameters.*'a/w', 'b'"):
        mtljax.value_and_grad(losses_fn, method)(TREE, mtljax.carry(method, 2).init(TREE))
    mtljax.value_and_grad(losses_fn, method, own={})(TREE, mtljax.carry(method, 2).init(TREE))


def test_the_carrying_link_may_be_given_params():
    method = methods.moco()
    equal(mtljax.carry(method, 2).init(PARAMS), method.init(2, PARAMS.shared))
