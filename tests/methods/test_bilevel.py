"""Bilevel methods: meta-gradients against finite differences in float64, closed forms, absent tasks, mistakes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtljax import training, value_and_grad
from mtljax.methods.arithmetic import softmax
from mtljax.methods.from_batches import auto_lambda, forum, moml
from mtljax.methods.from_batches.common import descend
from mtljax.types import Aux, MethodState
from tests.methods.steps.bilevel import MAKERS, NAMES, WEIGHTS, losses_fn, problem, stepper, vector


@pytest.mark.parametrize("name", ["auto_lambda", *(pytest.param(n, marks=pytest.mark.slow) for n in ("moml", "forum"))])
def test_an_inactive_task_is_as_good_as_absent(name):
    method, update = stepper(name)
    params, train, val = problem()
    fewer, fewer_train, fewer_val = problem(keep=(0, 2))
    state, alone = method.init(3), method.init(2)
    mask = jnp.array([True, False, True])
    for _ in range(2):
        _, grads, state = update(params, state, train, val, mask)
        _, expected, alone = update(fewer, alone, fewer_train, fewer_val, jnp.ones(2, bool))
        np.testing.assert_allclose(grads.shared["w"], expected.shared["w"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(grads.tasks["a"], expected.tasks["a"], rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(grads.tasks["b"], 0)
        np.testing.assert_allclose(state.weights[np.array([0, 2])], alone.weights, rtol=1e-4)
        assert state.weights[1] == 0
    first = method.init(3)
    assert state.inner.meta[1] == first.inner.meta[1]
    _, grads, state = update(params, state, train, val, jnp.zeros(3, bool))
    assert all(not leaf.any() for leaf in jax.tree.leaves(grads))
    _, grads, state = update(params, state, train, val, jnp.ones(3, bool))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((grads, state)))


@pytest.mark.parametrize("name", MAKERS)
def test_the_state_is_arrays_that_keep_their_form(name):
    method, update = stepper(name)
    params, train, val = problem()
    state = method.init(3)
    leaves = jax.tree.leaves(state)
    assert isinstance(state, MethodState) and all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    losses, grads, after = update(params, state, train, val, jnp.ones(3, bool))
    assert jax.tree.structure(state) == jax.tree.structure(after)
    for old, new in zip(leaves, jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)
    assert sorted(losses) == list(NAMES)
    assert jax.tree.structure(grads) == jax.tree.structure(params)


@pytest.mark.parametrize("name", ["auto_lambda", *(pytest.param(n, marks=pytest.mark.slow) for n in ("moml", "forum"))])
def test_one_task_is_plain_descent_on_it(name):
    params, train, val = problem(keep=(1,))
    method, update = stepper(name)
    _, grads, state = update(params, method.init(1), train, val, jnp.ones(1, bool))
    np.testing.assert_array_less(0.0, state.weights)
    if name != "forum":
        plain = jax.grad(lambda params: vector(params, train)[0])(params)
        np.testing.assert_allclose(grads.shared["w"], state.weights[0] * plain.shared["w"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", MAKERS)
def test_aux_and_array_losses(name):
    params, train, val = problem()
    method = MAKERS[name]()
    f = value_and_grad(lambda params, *batch: (vector(params, batch), {"n": 6.0}), method, has_aux=True)
    out = jax.eval_shape(lambda state: f(params, state, train, val, key=jax.random.key(0)), method.init(3))
    assert out[0][0].shape == (3,) and list(out[0][1]) == ["n"]


@pytest.mark.parametrize("name", ["auto_lambda", "moml"])
def test_a_task_with_corrupted_training_labels_loses_weight(name):
    params, train, val = problem()
    hidden = jnp.tanh(train[0] @ jnp.asarray(WEIGHTS["shared"][::-1], jnp.float32))
    good = jnp.stack([hidden @ jnp.asarray(head, jnp.float32) for head in WEIGHTS["heads"]])
    train = (train[0], good.at[1].multiply(-2.0))
    val = (train[0], good)
    method = MAKERS[name](optimizer=optax.sgd(1.0 if name == "auto_lambda" else 5.0))
    update = value_and_grad(losses_fn, method)

    @jax.jit
    def run(params, state):
        def body(carry, _):
            params, state = carry
            _, grads, state = update(params, state, train, val)
            return (descend(params, grads, 0.02), state), None

        return jax.lax.scan(body, (params, state), None, length=60)[0]

    _, state = run(params, method.init(3))
    assert state.weights.argmin() == 1


def test_softmax_of_active_tasks():
    found = softmax(jnp.array([500.0, jnp.nan, 500.0]), jnp.array([True, False, True]))
    np.testing.assert_allclose(found, [0.5, 0.0, 0.5])
    slopes = jax.jacfwd(lambda values: softmax(values, jnp.zeros(2, bool)))(jnp.ones(2))
    np.testing.assert_array_equal(slopes, 0)


def call(name, params=None, train=None, active=None, num_tasks=3, **options):
    given, batch, val = problem()
    method = MAKERS[name](**options)
    return value_and_grad(losses_fn, method)(
        given if params is None else params,
        method.init(num_tasks),
        batch if train is None else train,
        val,
        active=active,
    )


MISTAKES = {
    "tasks": (ValueError, {"num_tasks": 2}, r"was initialised for 2 tasks but params.tasks has \['a', 'b', 'c'\]"),
    "params": (TypeError, {"params": {}}, "value_and_grad: params must be a pytree of floating arrays"),
    "batches": (ValueError, {"train": {}}, r"{name} reads 2 batches, .* found \['dict', 'tuple'\]"),
    "active": (TypeError, {"active": jnp.ones(3)}, "{name}: active must be of dtype bool"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", MAKERS)
def test_mistakes_are_named(name, mistake):
    kind, options, message = MISTAKES[mistake]
    with pytest.raises(kind, match=message.replace("{name}", name)):
        call(name, **options)


@pytest.mark.parametrize("name", MAKERS)
def test_losses_of_other_tasks_are_named(name):
    given, batch, val = problem()
    f = value_and_grad(lambda params, *batch: {"a": jnp.ones(())}, MAKERS[name]())
    with pytest.raises(ValueError, match=r"losses_fn: losses must be of the tasks .*found \['a'\]"):
        f(given, MAKERS[name]().init(3), batch, val)


@pytest.mark.parametrize("name", MAKERS)
def test_a_training_step_takes_two_batches(name):
    """The step is what `value_and_grad` and the optimizer make by hand; the first batch moves the network's state."""
    params, train, val = problem()

    def step_losses(params, state, batch, key, train):
        return losses_fn(params, *batch), Aux(state + batch[0].sum())

    method = MAKERS[name]()
    init, step = training.make_train_step(step_losses, method, optax.sgd(0.1))
    state, metrics = jax.jit(step)(init(params, jnp.zeros(()), key=jax.random.key(0)), (train, val))
    losses, grads, after = jax.jit(value_and_grad(losses_fn, method))(params, method.init(3), train, val)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), metrics["losses"].by_name(), losses)
    expected = descend(params, grads, 0.1)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), state.params, expected)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), state.method_state, after)
    np.testing.assert_allclose(state.model_state, train[0].sum(), rtol=1e-6)
    with pytest.raises(ValueError, match=rf"step: batch must be a tuple of 2 batches, as many as {name} reads, found"):
        step(state, {"train": train})
    with pytest.raises(
        ValueError, match=f"{name} reads batches, and would decide on each device by that device's alone"
    ):
        _, each = training.make_train_step(step_losses, method, optax.sgd(0.1), axis_name="batch")
        jax.vmap(each, in_axes=(None, 0), axis_name="batch")(state, jax.tree.map(lambda x: x[None], (train, val)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: auto_lambda(inner_lr=0.1, primary=[-1.0]), "auto_lambda: primary must be"),
        (lambda: auto_lambda(inner_lr=0.1, primary=[1.0]).init(2), "primary must be of shape"),
        (lambda: moml(inner_lr=0.0), "moml: inner_lr must be"),
        (lambda: moml(inner_lr=0.1, steps=0), "moml: steps"),
        (lambda: forum(inner_lr=0.1, rho=-1.0), "forum: rho must be"),
        (lambda: forum(inner_lr=0.1, steps=0), "forum: steps"),
    ],
    ids=range(6),
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
