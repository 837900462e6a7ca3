"""Proximal steps as a link of an optax chain: minimisers that a convex solver finds, with exact zeros."""

from __future__ import annotations

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtljax.penalties.composed import total
from mtljax.penalties.dirty import dirty
from mtljax.penalties.l1 import l1
from mtljax.penalties.l21 import l21
from mtljax.penalties.proximal import proximal
from mtljax.types import Params

T, EXAMPLES, FEATURES = 3, 20, 6
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(T, EXAMPLES, FEATURES))
TRUE = RANDOM.normal(size=(T, FEATURES)) * (np.arange(FEATURES) < 3)[None, :]
Y = np.einsum("tnf,tf->tn", X, TRUE) + 0.1 * RANDOM.normal(size=(T, EXAMPLES))


def loss(w):
    return 0.5 * jnp.sum(jnp.square(jnp.einsum("tnf,tf->tn", X, w["w"]) - Y)) / EXAMPLES


def trained(chain, steps, w, loss=loss):
    """Parameters after so many steps, all in one compiled loop."""

    def step(carry, _):
        w, state = carry
        updates, state = chain.update(jax.grad(loss)(w), state, w)
        return (optax.apply_updates(w, updates), state), None

    return jax.jit(lambda w: jax.lax.scan(step, (w, chain.init(w)), None, length=steps)[0][0])(w)


@pytest.mark.parametrize("make", [l1, l21])
def test_proximal_sgd_reaches_the_minimizer_with_its_exact_zeros(make):
    with jax.enable_x64(True):
        chain = optax.chain(optax.sgd(0.3), proximal(make(0.2), 0.3))
        w = np.asarray(trained(chain, 300, {"w": jnp.zeros((T, FEATURES))})["w"])
    x = cp.Variable((T, FEATURES))
    errors = sum(cp.sum_squares(X[t] @ x[t] - Y[t]) for t in range(T)) / (2 * EXAMPLES)
    size = cp.sum(cp.abs(x)) if make is l1 else cp.sum(cp.norm(x, axis=0))
    problem = cp.Problem(cp.Minimize(errors + 0.2 * size))
    lowest = problem.solve(cp.CLARABEL)
    np.testing.assert_allclose(w, x.value, atol=1e-4)
    np.testing.assert_array_equal(w == 0, np.abs(x.value) < 1e-4)
    assert 0 < (w == 0).sum() < w.size
    x.value = w
    assert problem.objective.value <= lowest + 1e-9


def params_of(w):
    """Soft sharing's layout: a trunk and a head for each task."""
    return Params(
        shared=jnp.ones(2),
        tasks={name: {"trunk": {"w": w[k]}, "head": jnp.full(k + 1, 3.0)} for k, name in enumerate("abc")},
    )


def moved_by(link, params):
    """The parameters after a step of nothing but the prox."""

    def step(params):
        updates, _ = link.update(jax.tree.map(jnp.zeros_like, params), link.init(params), params)
        assert jax.tree.map(jnp.result_type, updates) == jax.tree.map(jnp.result_type, params)
        return optax.apply_updates(params, updates)

    return jax.jit(step)(params)


def trunks(params):
    return {name: own["trunk"] for name, own in params.tasks.items()}


def test_where_stacks_what_it_picks_and_leaves_the_rest():
    w = jnp.asarray(RANDOM.normal(size=(T, FEATURES)), jnp.float32)
    steps = jnp.asarray(RANDOM.normal(size=(T, FEATURES)), jnp.float32)
    link = proximal(l21(1.0), 0.5, where=trunks)
    params, updates = params_of(w), params_of(steps)
    found, _ = jax.jit(link.update)(updates, link.init(params), params)
    expected, _ = jax.jit(proximal(l21(1.0), 0.5).update)(steps, link.init(w), w)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    np.testing.assert_array_equal(np.stack([found.tasks[k]["trunk"]["w"] for k in "abc"]), expected)
    np.testing.assert_allclose(w + expected, jax.jit(l21(1.0).prox)(w + steps, 0.5), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.shared, updates.shared)
    for name in "abc":
        np.testing.assert_array_equal(found.tasks[name]["head"], updates.tasks[name]["head"])


def test_parts_of_a_trunk_are_stacked_part_by_part():
    tree = {"block": {"w": jnp.array([2.0, 0.1])}, "element": {"w": jnp.array([-1.0, 0.2])}}
    params = Params((), {name: {"trunk": tree, "head": ()} for name in "ab"})
    link = proximal(dirty(1.0, 0.4), 1.0, where=trunks)
    moved = moved_by(link, params).tasks["b"]["trunk"]
    np.testing.assert_allclose(moved["block"]["w"], [1.5, 0.0], rtol=1e-6)
    np.testing.assert_allclose(moved["element"]["w"], [-0.6, 0.0], rtol=1e-6)


def test_a_schedule_counts_its_steps():
    link = proximal(l1(1.0), lambda count: 0.25 * (count + 1))
    w = {"w": jnp.array([[4.0], [-4.0]])}
    state = link.init(w)
    update = jax.jit(link.update)
    for expected in (3.75, 3.25, 2.5):
        updates, state = update({"w": jnp.zeros((2, 1))}, state, w, value=0.0)
        w = optax.apply_updates(w, updates)
        np.testing.assert_array_equal(w["w"], [[expected], [-expected]])
    assert (int(state.count), state.count.dtype) == (3, jnp.int32)


def test_zeros_are_exact_in_bfloat16_and_updates_keep_their_dtype():
    w = {"w": jnp.asarray(RANDOM.normal(size=(T, 40)), jnp.bfloat16)}
    moved = np.asarray(moved_by(proximal(l21(1.0), 1.0), w)["w"])
    assert moved.dtype == jnp.bfloat16
    np.testing.assert_array_equal(moved == 0, np.asarray(jax.jit(l21(1.0).prox)(w, 1.0)["w"]) == 0)
    assert 0 < (moved == 0).sum() < moved.size


def test_part_of_the_parameters_may_be_masked():
    w = {"stacked": jnp.array([[1.0], [3.0]]), "other": jnp.array(5.0)}
    link = optax.masked(proximal(l1(1.0), 2.0), {"stacked": True, "other": False})
    moved = moved_by(link, w)
    np.testing.assert_array_equal(moved["stacked"], [[0.0], [1.0]])
    assert float(moved["other"]) == 5.0


ROWS = jnp.ones((2, 2))
OWN = Params((), {"a": {"trunk": jnp.ones(2)}, "b": {"trunk": jnp.ones(3)}})


def step(link, params):
    return link.update(params, link.init(params), params)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: proximal(jnp.sum, 0.1), TypeError, "proximal: penalty must be a Penalty, found the function 'sum'"),
        (
            lambda: proximal(total(l1(), l21()), 0.1),
            ValueError,
            "proximal: penalty must have a prox, found none; add it to the objective instead",
        ),
        (lambda: proximal(l1(), -0.1), ValueError, "proximal: learning_rate must be at least 0, found -0.1"),
        (lambda: proximal(l1(), 0.1).update(ROWS, None), ValueError, "proximal: update needs params"),
        (
            lambda: step(proximal(l1(), 0.1, where=lambda p: p.tasks["a"]["trunk"]), OWN),
            TypeError,
            "proximal: where must return a dict of trees by task, found int",
        ),
        (
            lambda: step(proximal(l1(), 0.1, where=lambda p: {"a": 2.0 * p.tasks["a"]["trunk"]}), OWN),
            TypeError,
            "proximal: where must return parts of its argument, found leaves that it has made",
        ),
        (
            lambda: step(proximal(l1(), 0.1, where=lambda p: dict.fromkeys("ab", p.tasks["a"])), OWN),
            ValueError,
            "proximal: where must select at least one task",
        ),
        (lambda: step(proximal(l1(), 0.1, where=trunks), OWN), ValueError, "shape (3,), but (2,) in tree 0"),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)
