"""A model's penalty is part of its training objective, however its losses are wrapped."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import methods, sharing, training
from mtljax.data.views import with_views
from mtljax.losses.objective import attribute
from mtljax.types import Batch, Task

SCALE = sharing.Network(lambda key, x: (jnp.ones(()), ()), lambda w, s, x, **_: (x * w, s))
MODEL = sharing.soft(SCALE, ("a", "b"), lambda w: 3.0 * jnp.var(w))
TASKS = {name: Task(mtljax.losses.squared_error) for name in "ab"}
LOSSES = mtljax.make_losses_fn(MODEL, TASKS)
BATCH = Batch(jnp.ones(2), {"a": jnp.zeros(2), "b": jnp.zeros(2)})
START = mtljax.Params((), {"a": {"trunk": jnp.array(1.0), "head": ()}, "b": {"trunk": jnp.array(3.0), "head": ()}})
STATE = MODEL.init(jax.random.key(0), BATCH.inputs)[1]


@functools.wraps(LOSSES)
def by_hand(params, state, batch, key, train):
    return LOSSES(params, state, batch, key, train)


def after(losses_fn, batch=BATCH, **rest):
    init, step = training.make_train_step(losses_fn, methods.equal(), optax.sgd(0.1), **rest)
    state, metrics = step(init(START, STATE, key=jax.random.key(0)), batch)
    return {name: own["trunk"] for name, own in state.params.tasks.items()}, metrics


# d/dw_k of w_k^2 and of 3 var(w): 2 w_k and 3 (w_k - mean).
TIED = {"a": 1.0 - 0.1 * (2.0 - 3.0), "b": 3.0 - 0.1 * (6.0 + 3.0)}

WRAPPED = {
    "bare": LOSSES,
    "jit": jax.jit(LOSSES, static_argnums=4),
    "checkpoint": jax.checkpoint(LOSSES, static_argnums=4),
    "partial": functools.partial(LOSSES),
    "wraps": by_hand,
    "all at once": functools.partial(jax.jit(jax.checkpoint(by_hand, static_argnums=4), static_argnums=4)),
}


@pytest.mark.parametrize("losses_fn", WRAPPED.values(), ids=list(WRAPPED))
def test_no_documented_wrapper_loses_it(losses_fn):
    assert attribute(losses_fn, "penalty") is MODEL.penalty
    assert attribute(losses_fn, "tasks") == ("a", "b")


def test_it_is_in_the_step():
    found, metrics = after(WRAPPED["all at once"])
    assert {name: float(w) for name, w in found.items()} == pytest.approx(TIED)
    assert float(metrics["penalty"]) == pytest.approx(3.0)


def test_views_keep_it():
    model = sharing.soft(SCALE, ("a", "b", "negate"), lambda w: 3.0 * jnp.var(w))
    losses_fn = with_views(
        mtljax.make_losses_fn(model, TASKS | {"negate": Task(mtljax.losses.squared_error)}),
        {"negate": lambda key, x: (-x, x)},
    )
    assert (losses_fn.penalty, losses_fn.model, losses_fn.tasks) == (model.penalty, model, ("a", "b", "negate"))
    params, state = model.init(jax.random.key(0), BATCH.inputs)
    init, step = training.make_train_step(losses_fn, methods.equal(), optax.sgd(0.1))
    apart = params._replace(tasks=params.tasks | {"a": {"trunk": jnp.array(4.0), "head": ()}})
    _, metrics = step(init(apart, state, key=jax.random.key(0)), BATCH)
    assert float(metrics["penalty"]) == pytest.approx(6.0)


def test_stages_and_schedules_keep_it():
    stage = training.Stage("one", MODEL, LOSSES, methods.equal(), optax.sgd(0.1), lambda start: iter([BATCH]), 1)
    start, step = training.stage_functions(stage, BATCH.inputs)
    state = start(jax.random.key(0))._replace(params=START)
    for each in (step, training.scheduled(step, lambda step: {"a": step >= 0})):
        found = each(state, BATCH)[0].params.tasks
        assert {name: float(own["trunk"]) for name, own in found.items()} == pytest.approx(TIED)


def test_given_as_argument_too_it_counts_once_and_another_one_more():
    found, _ = after(LOSSES, penalty=MODEL.penalty)
    assert {name: float(w) for name, w in found.items()} == pytest.approx(TIED)
    found, metrics = after(LOSSES, penalty=lambda params: 5.0 * params.tasks["a"]["trunk"])
    assert {name: float(w) for name, w in found.items()} == pytest.approx(TIED | {"a": TIED["a"] - 0.5})
    assert float(metrics["penalty"]) == pytest.approx(8.0)


def test_a_model_without_one_has_none():
    model = MODEL._replace(penalty=None)
    losses_fn = mtljax.make_losses_fn(model, TASKS)
    assert losses_fn.penalty is None
    found, metrics = after(losses_fn)
    assert {name: float(w) for name, w in found.items()} == pytest.approx({"a": 0.8, "b": 2.4})
    assert "penalty" not in metrics


def test_a_wrapper_that_loses_it_is_an_error():
    def lost(*args):
        return LOSSES(*args)

    with pytest.raises(ValueError, match=r"the model has a penalty, but losses_fn has lost its attribute 'penalty'"):
        after(lost)
    found, _ = after(lost, penalty=MODEL.penalty)
    assert {name: float(w) for name, w in found.items()} == pytest.approx(TIED)


def test_the_losses_and_what_is_reported_of_them():
    losses, aux = LOSSES(START, STATE, BATCH)
    assert {name: float(loss) for name, loss in losses.items()} == {"a": 1.0, "b": 9.0}
    np.testing.assert_allclose(aux.penalty, 3.0, rtol=1e-6)
