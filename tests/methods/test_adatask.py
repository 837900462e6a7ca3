"""Tests of `adatask`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax.methods.from_jacobian import adatask
from tests.methods.steps.jacobian import draw, run


def test_adatask_runs_the_optimizer_once_a_task():
    rows, active = draw(5, 3, 4), np.ones((5, 3), bool)
    active[1:3, 1] = False
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())
    found, _, state = run(adatask(optimizer), rows, active=active)
    states = [optimizer.init(jnp.zeros(4)) for _ in range(3)]
    for step in range(5):
        total = np.zeros(4)
        for k in np.flatnonzero(active[step]):
            direction, states[k] = optimizer.update(jnp.asarray(rows[step, k]), states[k])
            total += direction
        np.testing.assert_allclose(found[step], total, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state.inner[1].count, [5, 3, 5])


def test_adatask_of_one_task_with_sgd_is_adam():
    target = jnp.array([1.0, -2.0])
    params = mtljax.Params(jnp.zeros(2), {"a": jnp.ones(2)})

    def losses_fn(params):
        return {"a": jnp.sum((params.shared - target * params.tasks["a"]) ** 4)}

    labels = mtljax.Params(shared="shared", tasks="own")
    optimizer = optax.partition({"shared": optax.sgd(0.1), "own": optax.adam(0.1)}, labels)

    def trained(method, optimizer):
        @jax.jit
        def step(params, state, opt_state):
            _, grads, state = mtljax.value_and_grad(losses_fn, method)(params, state)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), state, opt_state

        carry = (params, method.init(1, params.shared), optimizer.init(params))
        for _ in range(3):
            carry = step(*carry)
        return carry[0]

    found = trained(adatask(optax.scale_by_adam()), optimizer)
    expected = trained(mtljax.methods.equal(), optax.adam(0.1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


def test_adatask_wants_an_optimizer():
    with pytest.raises(TypeError, match=r"adatask: optimizer must be an optax.GradientTransformation, found 0.1"):
        adatask(0.1)
