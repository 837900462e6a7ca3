"""Methods that take logarithms or ratios of losses have one rule for a loss that is negative, or below its bound."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import methods
from mtljax.methods import aggregate
from tests.methods.table import CASES

MAKERS = {case.name: case.make(3) for case in CASES if not case.variant}
POSITIVE = {name: method for name, method in MAKERS.items() if method.least_loss is not None}
ROWS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
NEGATIVE = np.float32([1.0, -1.0, 2.0])


@pytest.mark.parametrize("name", POSITIVE)
def test_a_known_loss_that_is_negative_is_an_error(name):
    message = rf"{name.split('_')[0]}.*: losses must be at least 0.0, of which .*, found \[1.0, -1.0, 2.0\]"
    with pytest.raises(ValueError, match=message):
        aggregate(POSITIVE[name], ROWS, losses=NEGATIVE, key=jax.random.key(0))


def test_absent_and_unknown_ones_are_not():
    method = methods.geometric()
    weights, _ = method.update(jnp.asarray(NEGATIVE), method.init(3), active=jnp.array([True, False, True]))
    assert weights[1] == 0
    assert jax.eval_shape(method.update, jnp.asarray(NEGATIVE), method.init(3))[0].shape == (3,)
    assert methods.geometric().update(jnp.array([0.0, 1.0]), method.init(2))[0].tolist() == [0.0, 1.0]


def test_famo_s_bounds_are_its_own():
    method = methods.famo(min_losses=[-3.0, -2.0])
    assert method.update(jnp.array([-2.0, -1.0]), method.init(2))[0].tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match=r"famo: losses must be at least \[-3.0, -2.0\], .* found \[-2.0, -2.5\]"):
        method.update(jnp.array([-2.0, -2.5]), method.init(2))


def test_wrappers_have_the_bounds_of_what_they_wrap():
    mean_log = methods.mean_log()
    for method in (methods.ema(mean_log), methods.warmup(mean_log, 3), methods.preference(mean_log, [1.0, 2.0])):
        assert method.least_loss == 0
    assert methods.per_group({"a": mean_log, "b": methods.equal()}, {"a": "a", "b": "b"}).least_loss == 0
    assert methods.per_group(methods.equal(), {"a": "a"}).least_loss is None
    assert methods.log_losses(methods.mgda()).least_loss == 0
    with pytest.raises(ValueError, match=r"log_losses: method must be one that takes negative losses, .* 'geometric'"):
        methods.log_losses(methods.geometric())


def test_a_negative_loss_is_no_measure_of_a_likelihood():
    method = methods.dynamic_task_priority()
    weights, state = method.update(jnp.asarray(NEGATIVE), method.init(3))
    assert weights[1] == 1 and not state.inner.started[1]


def test_where_it_is_traced_its_task_sits_the_step_out_and_the_metrics_say_so():
    def losses_fn(params, state, batch, key, train):
        return {name: jnp.sum(params.shared * batch[name]) for name in "ab"}, mtljax.Aux(state)

    init, step = mtljax.training.make_train_step(losses_fn, methods.mean_log(), optax.sgd(1.0))
    state = init(mtljax.Params(jnp.ones(1), {"a": (), "b": ()}), key=jax.random.key(0))
    after, metrics = jax.jit(step)(state, {"a": 2.0, "b": -3.0})
    assert metrics["active"] == {"a": True, "b": False} and metrics["below"] == {"a": False, "b": True}
    assert metrics["nonfinite"] == {"a": 0, "b": 1} and metrics["weights"] == {"a": 0.5, "b": 0.0}
    assert float(after.params.shared[0]) == 0.0
    with pytest.raises(ValueError, match=r"mean_log: losses must be at least 0.0, .* found \[2.0, -3.0\]"):
        step(state, {"a": 2.0, "b": -3.0})
