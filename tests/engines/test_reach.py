"""A loss that reaches another task's parameters is an error that names the leaf; stacked heads are none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import mtljax
from mtljax import methods

PARAMS = mtljax.Params(jnp.ones(2), {"a": {"w": jnp.array([1.0, 2.0])}, "b": {"w": jnp.array([3.0, 4.0])}})


def cascade(params):
    a, b = (params.tasks[k]["w"] for k in "ab")
    return {"a": jnp.sum(params.shared * a), "b": 10.0 * jnp.sum(params.shared * a * b)}


def consistency(params):
    a, b = (jnp.tanh(params.shared * params.tasks[k]["w"]) for k in "ab")
    return {"a": jnp.sum(a), "b": jnp.sum(jnp.where(b > 0, b - a, b))}


@pytest.mark.parametrize(
    "losses_fn", [cascade, jax.jit(cascade), consistency], ids=["cascade", "jitted", "consistency"]
)
@pytest.mark.parametrize("method", [methods.equal(), methods.mgda()], ids=lambda m: m.name)
def test_a_loss_that_reaches_another_tasks_parameters_is_named(losses_fn, method):
    message = r"params.tasks\['a'\]\['w'\] must be reached by the loss of task 'a' alone, found those of \['b'\] too"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(mtljax.value_and_grad(losses_fn, method), PARAMS, method.init(2))
    with pytest.raises(ValueError, match=r"belongs into params.shared"):
        jax.eval_shape(mtljax.value_and_task_grads(losses_fn), PARAMS)


def test_what_a_loss_only_looks_at_is_not_reached():
    def detached(params):
        a, b = (params.tasks[k]["w"] for k in "ab")
        return {"a": jnp.sum(params.shared * a), "b": jnp.sum(params.shared * jax.lax.stop_gradient(a) * b)}

    grads = mtljax.value_and_task_grads(detached)(PARAMS)[1]
    assert grads.tasks["a"]["w"].tolist() == [1.0, 1.0]


def test_stacks_are_taken_for_what_they_are():
    def stacked_heads(params):
        table = jnp.stack([params.tasks[k]["w"] for k in "ab"])
        values = jnp.sum(jnp.tanh(table * params.shared[None]) ** 2, axis=1)
        return {"a": values[0], "b": values[1]}

    def stacked_losses(params):
        return jnp.stack([jnp.sum(params.shared * params.tasks[k]["w"]) for k in "ab"])

    for losses_fn in (stacked_heads, stacked_losses):
        jax.eval_shape(mtljax.value_and_grad(losses_fn, methods.mgda()), PARAMS, methods.mgda().init(2))
