"""Methods as links of optax chains: shapes, extra arguments, masks, composition with optax's own wrappers."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtljax import trees
from mtljax.adapters.optax_links import OptaxState, as_optax
from mtljax.methods.common import initial_state
from mtljax.types import Method, MethodState, Params

T, NAMES = 3, ["a", "b", "c"]
PARAMS = Params(
    shared={"w": jnp.ones((4, 2)), "b": jnp.ones(2)}, tasks={name: {"v": jnp.ones(5)} for name in ("c", "a", "b")}
)


def gradients(seed=0):
    draw = np.random.default_rng(seed).normal
    return Params(
        shared={"w": jnp.asarray(draw(size=(T, 4, 2)), jnp.float32), "b": jnp.asarray(draw(size=(T, 2)), jnp.float32)},
        tasks={name: {"v": jnp.asarray(draw(size=5), jnp.float32)} for name in ("c", "a", "b")},
    )


def weighting(reads, weights_of, *, weigh_tasks=False):
    """A method written out by hand: its weights are a function of what it reads."""

    def update(evidence, state, *, losses=None, active=None, key=None, **extra):
        weights = weights_of(evidence)
        weights = weights if active is None else jnp.where(active, weights, 0.0)
        return weights, state._replace(weights=weights, inner=state.inner + 1)

    return Method(reads, lambda n, shared=None: initial_state(n, jnp.zeros(())), update, None, weigh_tasks, "by_hand")


def summed():
    """A method on rows that keeps a copy of the parameters' shapes and adds noise from its key."""

    def init(num_tasks, shared=None):
        return initial_state(num_tasks, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shared))

    def update(evidence, state, *, losses=None, active=None, key=None, **extra):
        total = jax.tree.map(lambda rows: rows.sum(0), evidence)
        if key is not None:
            total = jax.tree.map(lambda leaf: leaf + jax.random.normal(key, leaf.shape), total)
        return total, state._replace(inner=total)

    return Method("task_grads", init, update, name="summed")


INVERSE_NORMS = weighting("gramian", lambda gram: 1.0 / jnp.sqrt(jnp.diagonal(gram)))
LOSSES = weighting("losses", lambda losses: losses, weigh_tasks=True)
METHODS = {"gramian": INVERSE_NORMS, "losses": LOSSES, "task_grads": summed()}


def close(a, b, rtol=1e-6):
    chex.assert_trees_all_close(a, b, rtol=rtol, atol=1e-7)


def weighted(weights, rows):
    return jax.tree.map(lambda leaf: sum(w * row for w, row in zip(weights, leaf, strict=True)), rows)


def test_a_gramian_method_reads_the_shared_rows_alone():
    link, grads = as_optax(INVERSE_NORMS, names=NAMES), gradients()
    updates, state = link.update(grads, link.init(PARAMS), PARAMS)
    norms = [np.sqrt(sum(np.sum(np.square(leaf[k])) for leaf in grads.shared.values())) for k in range(T)]
    close(updates.shared, weighted([1 / norm for norm in norms], grads.shared), rtol=1e-5)
    close(updates.tasks, grads.tasks)
    assert isinstance(state, OptaxState) and isinstance(state.method, MethodState)
    assert state.method.inner == 1


@pytest.mark.parametrize("losses", [jnp.array([1.0, 2.0, 3.0]), {"c": jnp.array(3.0), "a": 1.0, "b": 2.0}])
def test_a_scalarization_weighs_task_gradients_too(losses):
    link, grads = as_optax(LOSSES, names=NAMES), gradients()
    updates, _ = link.update(grads, link.init(PARAMS), PARAMS, losses=losses)
    close(updates.shared, weighted([1.0, 2.0, 3.0], grads.shared))
    close(updates.tasks, {name: {"v": w * grads.tasks[name]["v"]} for w, name in zip((1, 2, 3), "abc", strict=True)})


def test_a_plain_tree_of_rows_loses_its_task_axis():
    link = as_optax(summed(), names=NAMES)
    rows = gradients().shared
    updates, _ = link.update(rows, link.init(PARAMS.shared))
    close(updates, jax.tree.map(lambda leaf: leaf.sum(0), rows), rtol=1e-5)


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_updates_look_like_the_parameters_in_any_dtype(method):
    link = as_optax(method, names=NAMES)
    params, grads = (jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree) for tree in (PARAMS, gradients()))
    state = jax.eval_shape(link.init, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params))
    assert jax.tree.structure(state) == jax.tree.structure(link.init(params))
    updates, _ = jax.jit(link.update)(grads, link.init(params), params, losses=jnp.ones(T))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), updates) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), params
    )


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
@pytest.mark.parametrize("how", ["active", "losses"])
def test_a_task_that_is_left_out_may_hold_anything(method, how):
    link, grads = as_optax(method, names=NAMES), gradients()
    losses = jnp.array([1.0, jnp.nan if how == "losses" else 2.0, 3.0])
    others = jnp.array([True, False, True])
    active = None if how == "losses" else others
    spoilt = Params(
        shared=jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), grads.shared),
        tasks=grads.tasks | {"b": {"v": jnp.full(5, jnp.inf)}},
    )
    spoilt, _ = link.update(spoilt, link.init(PARAMS), PARAMS, losses=losses, active=active)
    zeroed = grads._replace(shared=jax.tree.map(lambda leaf: leaf.at[1].set(0.0), grads.shared))
    clean, _ = link.update(zeroed, link.init(PARAMS), PARAMS, losses=jnp.array([1.0, 0.0, 3.0]), active=others)
    close(spoilt.shared, clean.shared)
    close(spoilt.tasks, clean.tasks | {"b": {"v": jnp.zeros(5)}})


def test_a_chain_hands_on_losses_active_and_key():
    chain = optax.chain(as_optax(LOSSES, names=NAMES), optax.sgd(0.1), optax.clip(100.0))
    updates, _ = jax.jit(chain.update)(
        gradients(),
        chain.init(PARAMS),
        PARAMS,
        losses=jnp.array([1.0, 2.0, 3.0]),
        active=jnp.array([True, False, True]),
        unknown=7,
    )
    close(updates.shared, weighted([-0.1, 0.0, -0.3], gradients().shared), rtol=1e-5)
    noisy = optax.chain(as_optax(summed(), names=NAMES), optax.sgd(0.1))
    runs = [noisy.update(gradients(), noisy.init(PARAMS), PARAMS, key=jax.random.key(k))[0] for k in (0, 0, 1)]
    close(runs[0], runs[1])
    assert not np.array_equal(runs[0].shared["b"], runs[2].shared["b"])


def test_a_plain_transformation_drops_losses_and_the_method_says_so():
    link = as_optax(LOSSES, names=NAMES)
    chain = optax.chain(optax.GradientTransformation(link.init, link.update), optax.sgd(0.1))
    with pytest.raises(ValueError, match="by_hand: losses must be of shape"):
        chain.update(gradients(), chain.init(PARAMS), PARAMS, losses=jnp.ones(T))


def test_adam_after_the_link_is_adam_on_the_update():
    chain, adam = optax.chain(as_optax(INVERSE_NORMS, names=NAMES), optax.adam(0.1)), optax.adam(0.1)
    link = as_optax(INVERSE_NORMS, names=NAMES)
    states = chain.init(PARAMS), (link.init(PARAMS), adam.init(PARAMS))
    for seed in range(3):
        updates, chained = chain.update(gradients(seed), states[0], PARAMS)
        merged, link_state = link.update(gradients(seed), states[1][0], PARAMS)
        expected, adam_state = adam.update(merged, states[1][1], PARAMS)
        close(updates, expected)
        states = chained, (link_state, adam_state)


def test_multi_steps_goes_after_the_link():
    every_two = optax.MultiSteps(optax.sgd(1.0), 2).gradient_transformation()
    chain, link = optax.chain(as_optax(INVERSE_NORMS, names=NAMES), every_two), as_optax(INVERSE_NORMS, names=NAMES)
    state = chain.init(PARAMS)
    first, state = chain.update(gradients(0), state, PARAMS)
    second, state = chain.update(gradients(1), state, PARAMS)
    assert not any(leaf.any() for leaf in jax.tree.leaves(first))
    merged = [link.update(gradients(seed), link.init(PARAMS), PARAMS)[0] for seed in (0, 1)]
    close(second, jax.tree.map(lambda a, b: -(a + b) / 2, *merged), rtol=1e-5)


def test_multi_steps_around_the_link_fails():
    around = optax.MultiSteps(optax.chain(as_optax(INVERSE_NORMS, names=NAMES), optax.sgd(1.0)), 2)
    with pytest.raises((TypeError, ValueError)):
        around.update(gradients(), around.init(PARAMS), PARAMS)


@pytest.mark.parametrize("where", ["after", "inside"])
def test_partition_over_shared_and_task_parameters(where):
    link = as_optax(INVERSE_NORMS, names=NAMES)
    labels = Params("shared", "tasks")
    if where == "after":
        chain = optax.chain(link, optax.partition({"shared": optax.sgd(1.0), "tasks": optax.sgd(0.5)}, labels))
    else:
        chain = optax.partition({"shared": optax.chain(link, optax.sgd(1.0)), "tasks": optax.sgd(0.5)}, labels)
    updates, _ = jax.jit(chain.update)(gradients(), chain.init(PARAMS), PARAMS, losses=jnp.ones(T))
    merged, _ = link.update(gradients(), link.init(PARAMS), PARAMS)
    close(updates.shared, jax.tree.map(lambda leaf: -leaf, merged.shared), rtol=1e-5)
    close(updates.tasks, jax.tree.map(lambda leaf: -0.5 * leaf, gradients().tasks))
    optax.apply_updates(PARAMS, updates)


def test_partition_around_a_scalarization_leaves_task_gradients_unweighted():
    chain = optax.partition(
        {"shared": as_optax(LOSSES, names=NAMES), "tasks": optax.identity()}, Params("shared", "tasks")
    )
    updates, _ = chain.update(gradients(), chain.init(PARAMS), PARAMS, losses=jnp.array([1.0, 2.0, 3.0]))
    close(updates.shared, weighted([1.0, 2.0, 3.0], gradients().shared))
    close(updates.tasks, gradients().tasks)


def test_a_chain_descends():
    targets = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    params = {"x": jnp.array([2.0, 3.0])}
    chain = optax.chain(as_optax(weighting("gramian", lambda gram: jnp.full(T, 1 / T)), names=NAMES), optax.sgd(0.3))

    @jax.jit
    def step(params, state):
        rows = jax.vmap(jax.grad(lambda p, t: jnp.sum((p["x"] - t) ** 2)), in_axes=(None, 0))(params, targets)
        updates, state = chain.update(rows, state, params)
        return optax.apply_updates(params, updates), state

    state = chain.init(params)
    for _ in range(60):
        params, state = step(params, state)
    np.testing.assert_allclose(params["x"], targets.mean(0), atol=1e-6)
    assert trees.num_elements(state[0].method.weights) == T


def call(method=INVERSE_NORMS, grads=None, **extra):
    link = as_optax(method, names=NAMES)
    return link.update(gradients() if grads is None else grads, link.init(PARAMS), PARAMS, **extra)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: as_optax(INVERSE_NORMS, names=[]), ValueError, "names must be names that differ, found []"),
        (lambda: as_optax(INVERSE_NORMS, names="abc"), TypeError, "names must be a sequence of strings, found 'abc'"),
        (lambda: as_optax(INVERSE_NORMS).init({"w": jnp.ones(2)}), ValueError, "names must be given where parameters"),
        (
            lambda: as_optax(INVERSE_NORMS, names=["a", "b"]).init(PARAMS),
            ValueError,
            "names must be those of params.tasks, ['a', 'b', 'c'], found ['a', 'b']",
        ),
        (
            lambda: as_optax(INVERSE_NORMS, own={}).init(PARAMS),
            ValueError,
            "as_optax: own must be None where parameters are mtljax.Params, found {}",
        ),
        (lambda: call(LOSSES), ValueError, "by_hand: losses must be of shape (3,), found None"),
        (
            lambda: call(losses=jnp.ones(2)),
            ValueError,
            "as_optax: losses must be of shape (3,) for ['a', 'b', 'c'], found (2,)",
        ),
        (
            lambda: call(losses={"a": 1.0}),
            ValueError,
            "as_optax: losses must be of the tasks ['a', 'b', 'c'], found ['a']",
        ),
        (
            lambda: call(losses={"a": 1.0, "b": 1.0, "x": 1.0}),
            ValueError,
            "as_optax: losses must be of the tasks ['a', 'b', 'c'], found ['a', 'b', 'x']",
        ),
        (
            lambda: call(losses=jnp.ones(3), task_losses=jnp.ones(3)),
            ValueError,
            "as_optax: losses must be given once, found both losses= and task_losses=",
        ),
        (
            lambda: as_optax(LOSSES, names=NAMES).update(gradients(), LOSSES.init(T), losses=jnp.ones(3)),
            TypeError,
            "as_optax: state must be an OptaxState, as init makes it",
        ),
        (
            lambda: call(active=jnp.ones(2, bool)),
            ValueError,
            "by_hand: active must be of shape (3,), found an array of shape (2,)",
        ),
        (
            lambda: call(grads=PARAMS),
            ValueError,
            "as_optax: updates.shared['b'] must have a leading task axis of 3, found shape (2,)",
        ),
        (
            lambda: call(grads={"w": jnp.ones((2, 5))}),
            ValueError,
            "as_optax: updates['w'] must have a leading task axis of 3, found shape (2, 5)",
        ),
        (
            lambda: call(LOSSES, gradients()._replace(tasks={"a": jnp.ones(3)}), losses=jnp.ones(3)),
            ValueError,
            "as_optax: names must be those of params.tasks, ['a'], found ['a', 'b', 'c']",
        ),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)


def test_the_state_shows_angles_lengths_and_conflicts():
    link = as_optax(INVERSE_NORMS, names=NAMES)
    rows = {"w": jnp.array([[3.0, 4.0], [-4.0, 3.0], [-6.0, -8.0]])}
    start = link.init({"w": jnp.ones(2)})
    _, state = jax.jit(link.update)(rows, start)
    assert [(a.shape, a.dtype) for a in jax.tree.leaves(state)] == [(a.shape, a.dtype) for a in jax.tree.leaves(start)]
    np.testing.assert_allclose(state.cosines, [[1, 0, -1], [0, 1, 0], [-1, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(state.grad_norms, [5, 5, 10], rtol=1e-6)
    assert int(state.conflicts) == 1
    _, state = link.update(rows, start, active=jnp.array([True, True, False]))
    assert int(state.conflicts) == 0 and state.cosines[2].tolist() == [0.0, 0.0, 0.0]
    together = jax.vmap(link.update, in_axes=(0, None))(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), rows), start)
    assert together[1].conflicts.tolist() == [1, 1]
    assert as_optax(LOSSES, names=NAMES).init(PARAMS)[1:] == (None, None, None)


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_tasks_may_share_nothing(method):
    link, grads = as_optax(method, names=NAMES), gradients()._replace(shared=())
    params = PARAMS._replace(shared=())
    updates, _ = link.update(grads, link.init(params), params, losses=jnp.ones(T))
    assert updates.shared == ()
    close(updates.tasks, grads.tasks)


def test_task_losses_is_another_name_of_losses():
    link = as_optax(LOSSES, names=NAMES)
    found, _ = link.update(gradients(), link.init(PARAMS), task_losses=jnp.array([1.0, 2.0, 3.0]))
    expected, _ = link.update(gradients(), link.init(PARAMS), losses=jnp.array([1.0, 2.0, 3.0]))
    close(found, expected)


@pytest.mark.parametrize("names", [None, NAMES])
def test_params_have_names_already(names):
    link, given = as_optax(LOSSES, names=names), as_optax(LOSSES, names=NAMES)
    found, _ = link.update(gradients(), link.init(PARAMS), losses=jnp.array([1.0, 2.0, 3.0]))
    expected, _ = given.update(gradients(), given.init(PARAMS), losses=jnp.array([1.0, 2.0, 3.0]))
    close(found, expected)


@pytest.mark.parametrize("method", [INVERSE_NORMS, LOSSES, summed()], ids=["gramian", "losses", "task_grads"])
def test_own_leaves_of_one_tree_are_those_of_params(method):
    grads, losses, active = gradients(), jnp.array([1.0, 2.0, 3.0]), jnp.array([True, False, True])
    heads = {
        name: {"v": jnp.stack([own["v"] if k == name else jnp.full(5, 7.0) for k in NAMES])}
        for name, own in grads.tasks.items()
    }
    link, by_hand = as_optax(method, names=NAMES, own={name: f"heads/{name}" for name in NAMES}), as_optax(method)
    tree = {**PARAMS.shared, "heads": PARAMS.tasks}
    told = {"losses": losses, "active": active}
    found, state = link.update({**grads.shared, "heads": heads}, link.init(tree), **told)
    expected, other = by_hand.update(grads, by_hand.init(PARAMS), **told)
    close(found, {**expected.shared, "heads": expected.tasks})
    close(state.method.weights, other.method.weights)


def test_the_order_of_tasks_is_that_of_names():
    link, rows = as_optax(LOSSES, names=["b", "c", "a"]), gradients().shared
    updates, _ = link.update(rows, link.init(PARAMS.shared), losses={"a": 3.0, "b": 1.0, "c": 2.0})
    close(updates, weighted([1.0, 2.0, 3.0], rows))


def test_as_optax_names_its_method_where_a_link_was_meant_to_carry():
    """A gradient without task axis, as `value_and_grad` makes it, is for `mtljax.carry`."""
    link = as_optax(LOSSES, names=NAMES)
    with pytest.raises(ValueError, match=r"leading task axis of 3.*mtljax.carry"):
        link.update(PARAMS.shared, link.init(PARAMS.shared), PARAMS.shared, losses=jnp.ones(T))
