"""Tests of `m_config`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax
from mtljax.methods import aggregate
from mtljax.methods.from_gramian.config import config
from mtljax.methods.from_jacobian import m_config
from tests.methods.steps.jacobian import compiled, draw, run


def test_m_config_with_adam_is_the_papers_algorithm():
    """Algorithm 2 by hand, with tasks that had no turn yet left out, and numpy's pseudo-inverse for the direction."""
    rows, lr = draw(7, 3, 6).astype(np.float64), 0.1
    found, weights, _ = run(m_config(beta=0.8), rows.astype(np.float32))
    moment, steps = np.zeros((3, 6)), np.zeros(3)
    old, second, params = np.zeros(6), np.zeros(6), np.zeros(6)
    adam = optax.adam(lr, b1=0.8, b2=0.9)
    ours, opt_state = jnp.zeros(6), adam.init(jnp.zeros(6))
    for t in range(1, 8):
        k = (t - 1) % 3
        moment[k] = 0.8 * moment[k] + 0.2 * rows[t - 1, k]
        steps[k] += 1
        seen = steps > 0
        corrected = moment[seen] / (1 - 0.8 ** steps[seen])[:, None]
        units = corrected / np.linalg.norm(corrected, axis=1, keepdims=True)
        direction = np.linalg.pinv(units) @ np.ones(seen.sum())
        direction /= np.linalg.norm(direction)
        direction *= (corrected @ direction).sum()
        np.testing.assert_allclose(weights[t - 1][seen] @ corrected, direction, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(weights[t - 1][~seen], 0)
        fake = direction * (1 - 0.8**t)
        pseudo, old = (fake - 0.8 * old) / 0.2, fake
        second = 0.9 * second + 0.1 * pseudo**2
        params -= lr * direction / (np.sqrt(second / (1 - 0.9**t)) + 1e-8)
        np.testing.assert_allclose(found[t - 1], pseudo, rtol=1e-3, atol=1e-4)
        updates, opt_state = adam.update(jnp.asarray(found[t - 1], jnp.float32), opt_state)
        ours = optax.apply_updates(ours, updates)
    np.testing.assert_allclose(ours, params, rtol=1e-4, atol=1e-5)


def test_m_config_without_momentum_is_config_of_the_last_gradients():
    rows = draw(3, 3, 6)
    found, _, state = run(m_config(beta=0.0), rows)
    last = jnp.asarray(rows[np.arange(3), np.arange(3)])
    np.testing.assert_allclose(found[-1], aggregate(config(), last), rtol=1e-5, atol=1e-6)
    assert float(state.residual) < 1e-4


def test_m_config_takes_turns_among_the_active():
    method = m_config()
    state, update = method.init(4, jnp.zeros(3)), jax.jit(method.update)
    masks = [[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 1], [0, 1, 0, 1]]
    turns = []
    for mask in masks:
        active = jnp.array(mask, bool)
        turns.append(int(method.pick(state, active=active)))
        _, state = update(jnp.ones(3), state, active=active)
    assert [turn for turn, mask in zip(turns, masks, strict=True) if any(mask)] == [0, 2, 0, 1, 3, 1]
    np.testing.assert_array_equal(state.inner.steps, [2, 2, 1, 1])
    assert int(method.pick(state)) == 2


def test_m_config_costs_one_backward_pass():
    """A train step gives what the full Jacobian's row gives."""
    params = mtljax.Params({"w": jnp.array([1.0, -2.0])}, {k: jnp.ones(2) * i for i, k in enumerate("abc")})

    def losses_fn(params):
        return {k: jnp.sum(jnp.sin(params.shared["w"] - params.tasks[k])) for k in "abc"}

    method = m_config()
    state = other = method.init(3, params.shared)
    step = jax.jit(mtljax.value_and_grad(losses_fn, method))
    _, rows = mtljax.value_and_task_grads(losses_fn)(params)
    for _ in range(4):
        _, grads, state = step(params, state)
        expected, other = compiled(method)(other, rows.shared, jnp.ones(3), jnp.ones(3, bool))
        np.testing.assert_allclose(grads.shared["w"], expected["w"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(grads.tasks["b"], rows.tasks["b"])
