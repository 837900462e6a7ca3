"""FAMO learns from the losses after each step, however the step is made; a step without them is an error."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import methods, training
from mtljax.methods.common import initial_state
from mtljax.types import Method, MethodState, Params, Unobserved

START = Params({"w": jnp.array([2.0, -1.0])}, {"a": {}, "b": {}})
METHOD = methods.famo()
STEPS = 60


def losses_fn(params):
    w = params.shared["w"]
    return {"a": jnp.sum((w - jnp.array([1.0, 0.0])) ** 2) + 0.01, "b": 9.0 * jnp.sum((w + 0.5) ** 2) + 0.01}


def end(params, state):
    losses = losses_fn(params)
    return np.array([*state.weights, *state.inner.logits, losses["a"], losses["b"]])


@functools.cache
def by_train_step():
    init, step = training.make_train_step(
        lambda params, state, batch, key, train: (losses_fn(params), mtljax.Aux(state)), METHOD, optax.sgd(0.05)
    )
    state, step = init(START, key=jax.random.key(0)), jax.jit(step)
    for _ in range(STEPS):
        state, _ = step(state, None)
    return end(state.params, state.method_state)


def by_value_and_grad(form):
    f = mtljax.value_and_grad(losses_fn, METHOD)

    @jax.jit
    def step(params, state):
        _, grads, state = f(params, state)
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, grads)
        return params, mtljax.observe(METHOD, form(losses_fn(params)), state)

    params, state = START, METHOD.init(2)
    for _ in range(STEPS):
        params, state = step(params, state)
    return end(params, state)


def by_optax():
    chain = optax.chain(mtljax.as_optax(METHOD), optax.sgd(0.05))

    @jax.jit
    def step(params, state):
        losses, rows = mtljax.value_and_task_grads(losses_fn)(params)
        updates, state = chain.update(rows, state, params, losses=losses)
        params = optax.apply_updates(params, updates)
        return params, mtljax.observe(METHOD, losses_fn(params), state)

    params, state = START, chain.init(START)
    for _ in range(STEPS):
        params, state = step(params, state)
    return end(params, state[0].method)


WAYS = {
    "value_and_grad, dict": lambda: by_value_and_grad(lambda losses: losses),
    "value_and_grad, array": lambda: by_value_and_grad(lambda losses: jnp.stack([losses["a"], losses["b"]])),
    "as_optax": by_optax,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_all_ways_are_the_same_famo(way):
    expected = by_train_step()
    assert np.abs(expected[2:4]).max() > 0.1  # it has learnt
    np.testing.assert_allclose(way(), expected, rtol=1e-5)


def test_a_step_without_the_losses_is_an_error():
    f = mtljax.value_and_grad(losses_fn, METHOD)
    _, _, state = f(START, METHOD.init(2))
    assert isinstance(state, Unobserved)
    text = r"state must be what mtljax.observe\(method, losses, state\) returned .*famo learns"
    with pytest.raises(ValueError, match="value_and_grad: " + text):
        jax.jit(f)(START, state)
    link = mtljax.as_optax(METHOD, names=["a", "b"])
    _, state = link.update({"w": jnp.eye(2)}, link.init({"w": jnp.ones(2)}), losses=jnp.ones(2))
    with pytest.raises(ValueError, match="as_optax: " + text):
        link.update({"w": jnp.eye(2)}, state, losses=jnp.ones(2))


def test_a_step_of_batches_without_the_losses_is_an_error():
    method = methods.fs_mtl(METHOD)
    flat = mtljax.value_and_grad(losses_fn, method)
    _, _, state = flat(START, method.init(2))
    with pytest.raises(
        ValueError, match=r"value_and_grad: state must be what mtljax.observe\(.* fs_mtl\(famo\) learns"
    ):
        flat(START, state)
    told = mtljax.observe(method, losses_fn(START), state)
    assert type(told) is MethodState
    for new, old in zip(told.inner, state.inner, strict=True):
        pairs = zip(jax.tree.leaves(new.inner), jax.tree.leaves(old.inner), strict=True)
        assert any((a != b).any() for a, b in pairs)
    flat(START, told)


def test_wrapped_and_nested_observers_wait_too_and_others_never():
    for method in (methods.every(METHOD, 2), methods.warmup(methods.equal(), 3, METHOD)):
        _, _, state = mtljax.value_and_grad(losses_fn, method)(START, method.init(2))
        assert isinstance(state, Unobserved)
        assert type(mtljax.observe(method, losses_fn(START), state)) is MethodState
    _, _, state = mtljax.value_and_grad(losses_fn, methods.equal())(START, methods.equal().init(2))
    assert type(state) is MethodState
    assert mtljax.observe(methods.equal(), losses_fn(START), state) is state


def test_the_methods_own_function_tells_it_too():
    _, _, state = mtljax.value_and_grad(losses_fn, METHOD)(START, METHOD.init(2))
    told = METHOD.observe(losses_fn(START), state)
    assert type(told) is MethodState
    jax.tree.map(np.testing.assert_array_equal, told, mtljax.observe(METHOD, losses_fn(START), state))


def test_mistakes_get_messages():
    _, _, state = mtljax.value_and_grad(losses_fn, METHOD)(START, METHOD.init(2))
    with pytest.raises(ValueError, match=r"observe: losses must be of shape \(2,\), found shape \(3,\)"):
        mtljax.observe(METHOD, jnp.ones(3), state)
    with pytest.raises(ValueError, match=r"observe: state must be what value_and_grad or as_optax returned for famo"):
        mtljax.observe(METHOD, jnp.ones(2), METHOD.init(2))


def test_what_a_method_needs_besides_reaches_it():
    """A KPI, by every public way: under a training step it comes from the losses' metrics."""
    method, kpi = methods.dynamic_task_priority(), jnp.array([0.5, 0.9])
    expected = method.update(jnp.ones(2), method.init(2), kpi=kpi)[0]
    _, _, state = mtljax.value_and_grad(losses_fn, method)(START, method.init(2), kpi=kpi)
    np.testing.assert_allclose(state.weights, expected)
    chain = optax.chain(mtljax.as_optax(method, names=["a", "b"]), optax.sgd(1.0))
    updates, state = chain.update({"w": jnp.eye(2)}, chain.init({"w": jnp.ones(2)}), losses=jnp.ones(2), kpi=kpi)
    np.testing.assert_allclose(state[0].method.weights, expected)
    np.testing.assert_allclose(-updates["w"], mtljax.aggregate(method, jnp.eye(2), losses=jnp.ones(2), kpi=kpi))
    init, step = training.make_train_step(
        lambda params, *rest: (losses_fn(params), mtljax.Aux(extra={"kpi": kpi})), method, optax.sgd(0.1)
    )
    state, _ = step(init(START, key=jax.random.key(0)), None)
    np.testing.assert_allclose(state.method_state.weights, expected)


def by_turns():
    """A method that reads the gradient of one task a step, the tasks by turns."""

    def update(row, state, **rest):
        return row, state._replace(inner=state.inner + 1)

    return Method(
        "task_grads",
        lambda num_tasks, shared=None: initial_state(num_tasks, jnp.zeros((), jnp.int32)),
        update,
        name="by_turns",
        pick=lambda state, active=None: state.inner % 2,
    )


def by_lengths():
    def update(gramian, state, **rest):
        weights = 1.0 / jnp.sqrt(jnp.diagonal(gramian))
        return weights, state._replace(weights=weights)

    return Method("gramian", lambda num_tasks, shared=None: initial_state(num_tasks), update, name="by_lengths")


@pytest.mark.parametrize("method", [by_turns(), methods.every(by_lengths(), 2)], ids=lambda method: method.name)
def test_what_is_not_due_or_not_picked_is_the_same_by_every_way(method):
    """Three steps: a task picked each time, and weights that are kept for a step."""
    f, link = mtljax.value_and_grad(losses_fn, method), mtljax.as_optax(method)
    init, step = training.make_train_step(
        lambda params, *rest: (losses_fn(params), mtljax.Aux()), method, optax.sgd(0.1)
    )
    state, by_hand, linked = init(START, key=jax.random.key(0)), method.init(2), link.init(START)
    for turn in range(3):
        params = state.params
        _, grads, by_hand = f(params, by_hand)
        rows = mtljax.value_and_task_grads(losses_fn)(params)[1]
        updates, linked = link.update(rows, linked)
        state, _ = step(state, None)
        np.testing.assert_allclose(updates.shared["w"], grads.shared["w"], rtol=1e-6)
        np.testing.assert_allclose(params.shared["w"] - 0.1 * grads.shared["w"], state.params.shared["w"], rtol=1e-6)
        if turn == 0:
            np.testing.assert_allclose(mtljax.aggregate(method, rows.shared)["w"], grads.shared["w"], rtol=1e-6)
