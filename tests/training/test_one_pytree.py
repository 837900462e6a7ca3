"""Training on parameters that are one pytree: the step on `Params` split by hand, resting heads, checkpoints."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import methods, training
from mtljax.types import Params

TREE = {
    "trunk": jnp.array([[1.0, -2.0], [0.5, 0.3]]),
    "heads": {"a": jnp.array([0.5, 1.0]), "b": jnp.array([2.0, 1.0])},
}
SPLIT = Params({"trunk": TREE["trunk"]}, TREE["heads"])
X = jnp.array([[0.3, 1.0], [2.0, 0.1]])
LABELED, WITHOUT_B = jnp.ones(2), jnp.array([1.0, 0.0])


def losses_fn(tree, state, examples, key, train):
    hidden = jnp.tanh(X @ tree["trunk"])
    losses = {k: jnp.mean((hidden @ tree["heads"][k] - n) ** 2) for n, k in enumerate("ab", start=1)}
    return losses, mtljax.Aux(state, weight_sum=examples)


def by_hand(params, *rest):
    return losses_fn({**params.shared, "heads": params.tasks}, *rest)


def run(losses_fn, params, method, optimizer, batches, **rest):
    init, step = training.make_train_step(losses_fn, method, optimizer, **rest)
    state, step = init(params, key=jax.random.key(0)), jax.jit(step)
    for batch in batches:
        state, metrics = step(state, batch)
    return state, metrics


def as_tree(params):
    return {**params.shared, "heads": params.tasks} if isinstance(params, Params) else params


def l2(params):
    """Added up in one order for both forms, since a step of Polyak's size follows its last digit."""
    return 0.1 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(as_tree(params)))


def shared_l2(params):
    return 0.1 * jnp.sum(as_tree(params)["trunk"] ** 2)


OPTIMIZERS = {
    "adamw": optax.adamw(0.1, weight_decay=0.1),
    "plateau": optax.chain(optax.sgd(0.1, momentum=0.9), optax.contrib.reduce_on_plateau(patience=1)),
    "polyak": optax.polyak_sgd(),
}


DEFAULT = {("adamw", shared_l2), ("polyak", None)}
CASES = [
    pytest.param(name, penalty, marks=[] if (name, penalty) in DEFAULT else pytest.mark.slow)
    for name in OPTIMIZERS
    for penalty in (None, l2, shared_l2)
]


@pytest.mark.parametrize(("optimizer", "penalty"), CASES)
def test_a_step_is_that_of_params(optimizer, penalty):
    """The second step is without b, whose head rests where no penalty reaches it."""
    batches = [LABELED, WITHOUT_B, LABELED]
    told = {"method": methods.equal(), "optimizer": OPTIMIZERS[optimizer], "penalty": penalty, "batches": batches}
    state, metrics = run(losses_fn, TREE, names=["a", "b"], **told)
    expected, other = run(by_hand, SPLIT, **told)
    found = state.params
    np.testing.assert_allclose(found["trunk"], expected.params.shared["trunk"], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found["heads"], expected.params.tasks)
    assert jax.tree.structure(metrics) == jax.tree.structure(other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), metrics, other)


def test_the_head_of_an_absent_task_rests():
    state, _ = run(losses_fn, TREE, methods.equal(), OPTIMIZERS["adamw"], [WITHOUT_B], names=["a", "b"])
    np.testing.assert_array_equal(state.params["heads"]["b"], TREE["heads"]["b"])
    assert not np.array_equal(state.params["heads"]["a"], TREE["heads"]["a"])


def test_many_losses_without_heads_in_an_order_of_their_own():
    """A physics-informed fit: its losses are an array, and weights come in the order of names."""

    def losses(w, state, batch, key, train):
        return jnp.stack([jnp.sum((w - 1.0) ** 2), jnp.sum((w + 1.0) ** 2), 9.0 * jnp.sum(w**2)]), mtljax.Aux(state)

    method = methods.fixed(jnp.array([1.0, 2.0, 4.0]))
    state, metrics = run(losses, jnp.ones(2), method, optax.sgd(0.1), [None], names=["u", "initial", "boundary"])
    assert {k: float(v) for k, v in metrics["losses"].items()} == {"u": 0.0, "initial": 8.0, "boundary": 18.0}
    weights = {k: float(v) for k, v in metrics["weights"].items()}
    assert weights["boundary"] == 2 * weights["initial"] == 4 * weights["u"]
    slope = weights["initial"] * 4.0 + weights["boundary"] * 18.0
    np.testing.assert_allclose(state.params, 1.0 - 0.1 * slope, rtol=1e-6)


def test_what_learns_after_the_step_is_told():
    state, _ = run(losses_fn, TREE, methods.famo(), optax.sgd(0.1), [LABELED] * 2, names=["a", "b"])
    expected, _ = run(by_hand, SPLIT, methods.famo(), optax.sgd(0.1), [LABELED] * 2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state.method_state, expected.method_state)


def test_a_run_resumes_to_the_bit(tmp_path):
    init, step = training.make_train_step(losses_fn, methods.pcgrad(), optax.adam(0.1), names=["a", "b"])
    step = training.jit(step)

    def train(num_steps, **rest):
        batches = lambda start: iter([LABELED] * (num_steps - start))  # noqa: E731
        first = init(TREE, key=jax.random.key(0))
        return training.fit(step, first, batches, num_steps=num_steps, progress=False, **rest).state

    train(2, checkpoint_dir=tmp_path)
    resumed, whole = train(4, checkpoint_dir=tmp_path), train(4)
    assert jax.tree.structure(resumed.params) == jax.tree.structure(TREE)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    found = training.restore_params(tmp_path, jax.tree.map(jnp.zeros_like, TREE))
    jax.tree.map(np.testing.assert_array_equal, found.params, whole.params)
