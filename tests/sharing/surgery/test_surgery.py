"""Trained models with a task more or less, and optimisers that leave some parameters alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax.sharing import Network, add_task, carry_over, freeze, hard, part_labels, soft, thaw, without_task
from mtljax.types import Params, TaskInputs
from tests.sharing.blocks import dense

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
HEADS = {"depth": dense(1), "label": dense(5)}
MORE = HEADS | {"edges": dense(2)}


def normalized(size):
    """A linear layer and batch normalisation, with running moments as its state."""

    def init(key, x):
        params = {"w": jax.random.normal(key, (x.shape[-1], size)), "scale": jnp.ones(size)}
        return params, {"mean": jnp.zeros(size), "var": jnp.ones(size)}

    def apply(params, state, x, *, key=None, train=False):
        y = x @ params["w"]
        if train:
            found = {"mean": y.mean(0), "var": y.var(0)}
            state = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, state, found)
        y = (y - state["mean"][None]) * jax.lax.rsqrt(state["var"] + 1e-5)[None]
        return y * params["scale"][None], state

    return Network(init, apply)


BUILD = {"hard": lambda heads: hard(normalized(4), heads), "soft": lambda heads: soft(normalized(4), heads)}


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def drawn(tree, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(10.0 * rng.normal(size=leaf.shape), leaf.dtype), tree)


def parameters():
    return drawn(
        Params({"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}, {"depth": {"w": jnp.zeros(2)}, "label": jnp.zeros(3)})
    )


def descend(optimizer, params, state, steps, *, first=0):
    """Some steps with gradients drawn anew at each, the same whatever is frozen."""
    for k in range(first, first + steps):
        updates, state = optimizer.update(drawn(params, 100 + k), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


ADAMW = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.1, weight_decay=0.3))


@pytest.mark.parametrize(
    "where", ["shared", ("tasks", "depth"), lambda path: path.endswith("w")], ids=["prefix", "prefixes", "function"]
)
def test_frozen_parameters_stay_to_the_bit_and_the_others_move_as_if_alone(where):
    params = parameters()
    optimizer = freeze(ADAMW, where)
    held = part_labels((where, "held"), default="")(params)
    trained = [leaf for leaf, label in zip(jax.tree.leaves(params), jax.tree.leaves(held), strict=True) if not label]
    found, _ = descend(optimizer, params, optimizer.init(params), 3)

    alone, state = trained, ADAMW.init(trained)
    for k in range(3):
        grads = jax.tree.leaves(drawn(params, 100 + k))
        grads = [leaf for leaf, label in zip(grads, jax.tree.leaves(held), strict=True) if not label]
        updates, state = ADAMW.update(grads, state, alone)
        alone = optax.apply_updates(alone, updates)
    expected = iter(alone)
    for before, after, label in zip(*map(jax.tree.leaves, (params, found, held)), strict=True):
        if label:
            np.testing.assert_array_equal(before.view(jnp.int32), after.view(jnp.int32))
        else:
            np.testing.assert_allclose(after, next(expected), rtol=1e-6)


def test_a_frozen_parameter_survives_a_gradient_that_is_not_a_number():
    params = parameters()
    optimizer = freeze(ADAMW, "shared")
    grads = drawn(params)._replace(shared=jax.tree.map(lambda leaf: leaf * jnp.nan, params.shared))
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    found = optax.apply_updates(params, updates)
    equal(found.shared, params.shared)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found.tasks))


def test_thawing_goes_on_with_the_trained_and_starts_the_frozen_afresh():
    params, adam = parameters(), optax.adam(0.1)
    frozen, thawed = freeze(adam, "shared"), thaw(adam, "shared")
    params_then, state = descend(frozen, params, frozen.init(params), 2)
    state = carry_over(thawed.init(params_then), state)
    found, _ = descend(thawed, params_then, state, 2, first=2)

    never_frozen, _ = descend(adam, params, adam.init(params), 4)
    equal(found.tasks, never_frozen.tasks)
    fresh, _ = descend(adam, params_then, adam.init(params_then), 2, first=2)
    equal(found.shared, fresh.shared)


def test_freezing_in_the_middle_keeps_the_moments_of_what_goes_on():
    params, adam = parameters(), optax.adam(0.1)
    frozen = freeze(adam, "shared")
    half, state = descend(adam, params, adam.init(params), 2)
    state = carry_over(frozen.init(half), optax.PartitionState({"trained": optax.MaskedState(state)}))
    found, _ = descend(frozen, half, state, 2, first=2)
    equal(found.shared, half.shared)
    equal(found.tasks, descend(adam, params, adam.init(params), 4)[0].tasks)


def test_parts_have_learning_rates_of_their_own():
    labels = part_labels(("shared", "slow"), (("tasks", "depth"), "fast"), default="usual")
    optimizer = optax.partition({"slow": optax.sgd(0.5), "usual": optax.sgd(1.0), "fast": optax.sgd(2.0)}, labels)
    params = parameters()
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    for found, before, rate in (
        (updates.shared, params.shared, 0.5),
        (updates.tasks["label"], params.tasks["label"], 1.0),
    ):
        equal(found, jax.tree.map(lambda leaf, rate=rate: -rate * leaf, before))
    equal(updates.tasks["depth"]["w"], -2.0 * params.tasks["depth"]["w"])


@pytest.mark.parametrize("build", BUILD.values(), ids=list(BUILD))
def test_a_new_task_leaves_the_old_ones_as_they_were(build):
    old, new, adam = build(HEADS), build(MORE), optax.adam(0.1)
    old_params, old_state = old.init(jax.random.key(0), X)
    old_state = jax.tree.map(jnp.abs, drawn(old_state))
    old_opt_state = drawn(adam.init(old_params))

    params, state = add_task(old_params, old_state, new, jax.random.key(1), X)
    outputs = new.apply(params, state, X)[0]
    assert sorted(outputs) == sorted(MORE)
    equal({task: outputs[task] for task in HEADS}, old.apply(old_params, old_state, X)[0])
    equal(params.tasks["edges"], new.init(jax.random.key(1), X)[0].tasks["edges"])

    # Old moments and the step count go on; those of the new task start at zero.
    opt_state = carry_over(adam.init(params), old_opt_state)
    assert not any(
        np.any(leaf) for leaf in jax.tree.leaves((opt_state[0].mu.tasks["edges"], opt_state[0].nu.tasks["edges"]))
    )
    # Without the new task, everything is what it was.
    back = without_task(params, state, old, jax.ShapeDtypeStruct(X.shape, X.dtype))
    equal(back, (old_params, old_state))
    equal(carry_over(adam.init(back[0]), opt_state), old_opt_state)


def test_a_new_head_is_trained_alone_in_a_whole_training_step():
    model, only = BUILD["hard"](MORE), freeze(optax.adamw(0.1), lambda path: not path.startswith("tasks/edges"))
    params, model_state = model.init(jax.random.key(0), X)
    losses_fn = mtljax.make_losses_fn(model, dict.fromkeys(MORE, mtljax.Task(mtljax.losses.squared_error)))
    init, step = mtljax.training.make_train_step(losses_fn, mtljax.methods.equal(), only)
    state, step = init(params, model_state, key=jax.random.key(5)), jax.jit(step)
    targets = {"depth": jnp.ones((6, 1)), "label": jnp.ones((6, 5)), "edges": jnp.ones((6, 2))}
    for _ in range(2):
        state, _ = step(state, mtljax.Batch(X, targets))
    for task in HEADS:
        equal(state.params.tasks[task], params.tasks[task])
    equal(state.params.shared, params.shared)
    assert np.all(state.params.tasks["edges"]["w"] != params.tasks["edges"]["w"])
    # Batch statistics are no parameters.
    assert np.all(state.model_state["trunk"]["mean"] != model_state["trunk"]["mean"])


def test_a_new_task_takes_steps_of_the_usual_length_with_a_count_of_its_own():
    old, new, adam = hard(dense(4, rate=0.0), HEADS), hard(dense(4, rate=0.0), MORE), optax.adam(0.1)
    params = jax.tree.map(jnp.copy, old.init(jax.random.key(0), X)[0])
    params, opt_state = descend(adam, params, adam.init(params), 20)
    params, _ = add_task(params, old.init(jax.random.key(0), X)[1], new, jax.random.key(1), X)
    own = thaw(adam, ("tasks", "edges"))
    careful = carry_over(own.init(params), optax.PartitionState({"trained": optax.MaskedState(opt_state)}))
    one, _ = descend(own, params, careful, 1, first=20)
    step = np.abs(one.tasks["edges"]["w"] - params.tasks["edges"]["w"])
    np.testing.assert_allclose(step, 0.1, rtol=1e-4)
    # With the count of the old parameters it is too long: |g| (1 - b1) / sqrt(1 - b2) is not corrected.
    other, _ = descend(adam, params, carry_over(adam.init(params), opt_state), 1, first=20)
    step = np.abs(other.tasks["edges"]["w"] - params.tasks["edges"]["w"])
    long = 0.1 * (0.1 / (1 - 0.9**21)) / np.sqrt(0.001 / (1 - 0.999**21))
    np.testing.assert_allclose(step, long, rtol=1e-4)
    equal(one.tasks["depth"], other.tasks["depth"])


def test_a_new_task_may_bring_inputs_of_its_own():
    old, new = soft(dense(4), HEADS), soft(dense(4), MORE)
    params, state = old.init(jax.random.key(0), X)
    inputs = TaskInputs({"depth": X, "label": X, "edges": X[:2]})
    params, state = add_task(params, state, new, jax.random.key(1), inputs)
    assert new.apply(params, state, inputs)[0]["edges"].shape == (2, 2)


def with_matrix(heads):
    """A model whose shared parameters are as many as its tasks."""
    model = hard(dense(4), heads)
    return model._replace(init=lambda key, x: (Params({"mix": jnp.eye(len(heads))}, model.init(key, x)[0].tasks), ()))


def added(old, new, heads=MORE):
    return add_task(*old(HEADS).init(jax.random.key(0), X), new(heads), jax.random.key(1), X)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: added(BUILD["hard"], BUILD["hard"], {"depth": dense(1), "edges": dense(2)}),
            ValueError,
            "add_task: model must have the old tasks ['depth', 'label'] and at least one more, found",
        ),
        (
            lambda: added(with_matrix, with_matrix),
            ValueError,
            "add_task: leaf .shared['mix'] must be float32[3, 3] in the old tree, found float32[2, 2]",
        ),
        (
            lambda: added(BUILD["hard"], lambda heads: hard(dense(4), heads)),
            ValueError,
            "add_task: the parameters of model must have the old leaf .shared['scale'], found none",
        ),
        (
            lambda: without_task(*BUILD["hard"](HEADS).init(jax.random.key(0), X), BUILD["hard"](HEADS), X),
            ValueError,
            "without_task: model must have some of the old tasks ['depth', 'label'] and not all, found",
        ),
        (
            lambda: without_task(
                *hard(dense(4), HEADS).init(jax.random.key(0), X), BUILD["hard"]({"depth": dense(1)}), X
            ),
            ValueError,
            "without_task: the old parameters must have the new leaf .shared['scale'], found none",
        ),
        (
            lambda: carry_over({"a": X}, {"b": X}),
            ValueError,
            "carry_over: new and old must have a path in common, found",
        ),
        (
            lambda: freeze(ADAMW, ("tasks", 0)),
            TypeError,
            "freeze: where must be a prefix such as 'shared' or ('tasks', 'depth'), or a function",
        ),
        (lambda: freeze(ADAMW, "heads").init(parameters()), ValueError, "the rule ('heads', 'held') must match a path"),
        (
            lambda: thaw(ADAMW, ()),
            TypeError,
            "thaw: where must be a prefix such as 'shared' or ('tasks', 'depth'), or a function",
        ),
        (
            lambda: part_labels("shared", default="a"),
            TypeError,
            "part_labels: a rule must be a pair (where, label), found 'shared'",
        ),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
