"""A task whose loss is finite and whose gradient is NaN: the others train as if it were absent, whatever the method."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import engines, methods, participation
from mtljax.engines.linear import linearize
from mtljax.methods import fs_mtl, sampled
from tests.methods.table import CASES, FEW, over

NAMES = ("a", "b", "c")
WITHOUT_B = jnp.array([True, False, True])
PARAMS = mtljax.Params(
    {"w": 0.1 * jnp.arange(1.0, 7.0).reshape(2, 3), "bias": jnp.array([0.2, -0.1])},
    {"a": jnp.array([1.0, 2.0]), "b": jnp.array([0.3, 2.0]), "c": jnp.array([-1.0, 0.5])},
)


def losses_fn(params, poison):
    """With poison 0 task b's loss is finite, but the derivative of its root is not."""
    hidden = jnp.tanh(params.shared["w"] @ jnp.arange(1.0, 4.0) + params.shared["bias"])
    losses = {k: jnp.sum((hidden - params.tasks[k]) ** 2) for k in NAMES}
    losses["b"] = losses["b"] + jnp.sqrt(poison * jnp.sum(hidden**2))
    return losses


def flat(tree):
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])


def both_ways(method, engine=None):
    """Gradients and state where task b has a NaN gradient, and where it is sound but not asked for."""
    f = mtljax.value_and_grad(losses_fn, method, engine=engine)

    @jax.jit
    def run(poison, active):
        state = method.init(3, PARAMS.shared)
        losses, grads, state = f(PARAMS, state, poison, key=jax.random.key(0), active=active)
        return losses, grads, state

    return run(0.0, jnp.ones(3, bool)), run(0.0, WITHOUT_B)


@over(CASES, at_once=lambda case: case.name in FEW)
def test_the_others_train_as_if_it_were_absent(case):
    method = case.make(3)
    (losses, grads, state), (_, expected, expected_state) = both_ways(method)
    assert np.isfinite(flat(losses)).all()
    assert np.isfinite(flat(grads)).all() and np.isfinite(flat(state.weights)).all()
    assert not flat(grads.tasks["b"]).any() and state.weights[1] == 0
    if method.reads != "losses":
        np.testing.assert_array_equal(flat(grads), flat(expected))
        jax.tree.map(np.testing.assert_array_equal, state, expected_state)
        return
    # Asked before gradients were known: weights of the others as they were, the bad task's part of the state held.
    start = method.init(3, PARAMS.shared)
    full, _ = method.update(jnp.stack([losses[k] for k in NAMES]), start, key=jax.random.key(0))
    np.testing.assert_allclose(state.weights, full * WITHOUT_B, rtol=1e-6)
    for new, old in zip(jax.tree.leaves(state.inner), jax.tree.leaves(start.inner), strict=True):
        if jnp.shape(new)[:1] == (3,):
            np.testing.assert_array_equal(new[1], old[1])


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(engines.gramian(), id="gramian"),
        pytest.param(engines.chunked(2), id="chunked", marks=pytest.mark.slow),
        pytest.param(engines.features(), id="features"),
    ],
)
def test_every_engine_leaves_it_out(engine):
    (_, grads, state), (_, expected, expected_state) = both_ways(methods.ntkmtl(), engine)
    np.testing.assert_array_equal(flat(grads), flat(expected))
    np.testing.assert_array_equal(state.weights, expected_state.weights)


def test_the_step_names_it_and_counts_it():
    def train_losses(params, state, batch, key, train):
        return losses_fn(params, batch), mtljax.Aux(state)

    init, step = mtljax.training.make_train_step(train_losses, methods.equal(), optax.adam(0.1))
    state, metrics = jax.jit(step)(init(PARAMS, key=jax.random.key(0)), jnp.array(0.0))
    assert [bool(metrics["active"][k]) for k in NAMES] == [True, False, True]
    assert state.nonfinite.tolist() == [0, 1, 0]
    assert np.isfinite(flat((state.params, state.opt_state))).all()
    np.testing.assert_array_equal(state.params.tasks["b"], PARAMS.tasks["b"])


def test_a_trunk_that_gives_nan_to_all_voids_the_step():
    def broken(params, x):
        hidden = jnp.sqrt(jnp.sum(params.shared**2) * x)
        return {k: hidden * params.tasks[k] for k in ("a", "b")}

    params = mtljax.Params(jnp.ones(2), {"a": jnp.array(1.0), "b": jnp.array(2.0)})
    for method in (methods.equal(), methods.ntkmtl(), methods.moco()):
        state = method.init(2, params.shared)
        f = jax.jit(mtljax.value_and_grad(broken, method))
        _, grads, after = f(params, state, 0.0)
        np.testing.assert_array_equal(flat(grads.shared), 0.0)
        assert np.isfinite(flat(after)).all()
        if method.reads != "losses":  # which cannot know before the trunk is pulled
            jax.tree.map(np.testing.assert_array_equal, after, state)


def test_samples_leave_out_what_is_nan_in_one_of_them():
    method = sampled(methods.modo())
    f = jax.jit(mtljax.value_and_grad(losses_fn, method))
    samples = [(1.0,), (0.0,), (1.0,)]
    _, grads, state = f(PARAMS, method.init(3), *samples)
    _, expected, expected_state = f(PARAMS, method.init(3), *samples, active=WITHOUT_B)
    np.testing.assert_array_equal(flat(grads), flat(expected))
    np.testing.assert_array_equal(state.weights, expected_state.weights)
    assert np.isfinite(flat(grads)).all() and flat(grads.shared).any()


def test_sharpness_leaves_it_out():
    method = fs_mtl(methods.ntkmtl())
    f = jax.jit(mtljax.value_and_grad(losses_fn, method))
    state = method.init(3)
    _, grads, after = f(PARAMS, state, 0.0)
    _, expected, expected_after = f(PARAMS, state, 0.0, active=WITHOUT_B)
    np.testing.assert_array_equal(flat(grads), flat(expected))
    np.testing.assert_array_equal(after.weights, expected_after.weights)
    assert np.isfinite(flat(grads)).all() and flat(grads.shared).any()


@pytest.mark.parametrize(
    "make",
    [
        methods.auto_lambda,
        pytest.param(methods.moml, marks=pytest.mark.slow),
        pytest.param(methods.forum, marks=pytest.mark.slow),
    ],
)
def test_bilevel_steps_leave_it_out(make):
    """A NaN gradient or loss, in the training batch or the validation batch; the state is one that has moved."""
    method = make(inner_lr=0.1)
    f = mtljax.value_and_grad(losses_fn, method)
    update = jax.jit(lambda state, train, val, active: f(PARAMS, state, (train,), (val,), active=active))
    everyone = jnp.ones(3, bool)
    _, _, state = update(method.init(3), 1.0, 0.5, everyone)
    assert (state.weights != 0).all()
    for train, val in ((0.0, 1.0), (1.0, 0.0), (jnp.nan, 1.0), (1.0, jnp.nan), (0.0, jnp.nan)):
        _, grads, after = update(state, train, val, everyone)
        _, expected, expected_after = update(state, train, val, WITHOUT_B)
        np.testing.assert_array_equal(flat(grads), flat(expected))
        jax.tree.map(np.testing.assert_array_equal, after, expected_after)
        assert np.isfinite(flat((grads, after))).all() and flat(grads.shared).any()
        assert after.weights[1] == 0 and after.inner.meta[1] == state.inner.meta[1]
        assert after.weights[0] > 0 and (flat(after) != flat(state)).any()
        _, sound, _ = update(state, 1.0, 1.0, WITHOUT_B)  # what is masked need not be sound, and makes no difference
        if val == 1.0:
            np.testing.assert_array_equal(flat(grads), flat(sound))
    _, grads, after = update(state, 1.0, 1.0, jnp.zeros(3, bool))
    np.testing.assert_array_equal(flat(grads), 0.0)
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_a_bilevel_step_whose_losses_cannot_be_told_apart_is_void():
    def stacked(params, poison):
        losses = losses_fn(params, poison)
        return jnp.sin(jnp.stack([losses[k] for k in NAMES]))

    method = methods.auto_lambda(inner_lr=0.1)
    state = method.init(3)
    _, grads, after = jax.jit(mtljax.value_and_grad(stacked, method))(PARAMS, state, (0.0,), (1.0,))
    np.testing.assert_array_equal(flat(grads), 0.0)
    jax.tree.map(np.testing.assert_array_equal, after, state)


@pytest.mark.parametrize("method", [methods.ntkmtl(), methods.graddrop(), methods.equal()], ids=lambda m: m.name)
def test_a_link_of_optax_leaves_it_out(method):
    rows = mtljax.Params({"w": jnp.arange(6.0).reshape(3, 2).at[1, 0].set(jnp.nan)}, {k: jnp.ones(1) for k in NAMES})
    link: Any = mtljax.as_optax(method, names=NAMES)
    told = {"losses": jnp.ones(3), "key": jax.random.key(0)}
    found, state = link.update(rows, link.init(jax.tree.map(lambda leaf: leaf[0], rows.shared)), **told)
    expected, _ = link.update(rows, link.init(rows.shared), active=WITHOUT_B, **told)
    np.testing.assert_array_equal(flat(found), flat(expected))
    assert np.isfinite(flat(found)).all() and state.method.weights[1] == 0
    own_nan = rows._replace(shared={"w": jnp.ones((3, 2))}, tasks={**rows.tasks, "b": jnp.array([jnp.inf])})
    found, state = link.update(own_nan, state, **told)
    assert np.isfinite(flat(found)).all() and state.method.weights[1] == 0


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
@pytest.mark.parametrize(
    "method",
    [
        pytest.param(methods.ntkmtl(), id="gramian"),
        pytest.param(methods.equal(), id="losses", marks=pytest.mark.slow),
        pytest.param(methods.graddrop(), id="rows", marks=pytest.mark.slow),
    ],
)
def test_all_devices_decide_alike_where_one_sees_the_nan(method):
    poison = jnp.abs(jnp.arange(8.0) - 3.0)
    f = mtljax.value_and_grad(losses_fn, method, axis_name="devices")

    def run(poison, active):
        state = method.init(3, PARAMS.shared)
        return f(PARAMS, state, poison, key=jax.random.key(0), active=active)[1:]

    copies = jax.pmap(run, axis_name="devices", in_axes=(0, None))
    grads, state = jax.block_until_ready(copies(poison, jnp.ones(3, bool)))
    expected, expected_state = jax.block_until_ready(copies(poison, WITHOUT_B))
    for leaf in jax.tree.leaves(jax.device_get((grads, state))):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    assert np.isfinite(flat(grads)).all() and (np.asarray(state.weights)[:, 1] == 0).all()
    np.testing.assert_array_equal(flat(grads.tasks["b"]), 0.0)
    if method.reads != "losses":
        np.testing.assert_array_equal(flat(grads), flat(expected))
        np.testing.assert_array_equal(state.weights, expected_state.weights)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_in_a_pmap_of_ones_own_gradients_are_means_over_the_devices():
    poison, method = jnp.arange(1.0, 9.0), methods.ntkmtl()
    grads_of = mtljax.value_and_grad(losses_fn, method, axis_name="devices")
    rows_of = mtljax.value_and_task_grads(losses_fn, axis_name="devices")

    def run(poison):
        return grads_of(PARAMS, method.init(3), poison)[:2], rows_of(PARAMS, poison)

    def whole(params):
        return jax.tree.map(lambda leaf: leaf.mean(), jax.vmap(losses_fn, (None, 0))(params, poison))

    found = jax.block_until_ready(jax.pmap(run, axis_name="devices")(poison))
    on_one = jax.jit(mtljax.value_and_task_grads(whole))(PARAMS)
    expected = jax.jit(mtljax.value_and_grad(whole, method))(PARAMS, method.init(3))[:2], on_one
    for leaf, one in zip(jax.tree.leaves(jax.device_get(found)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, np.broadcast_to(one, leaf.shape), rtol=2e-5, atol=1e-6)


def test_entries_are_guarded_one_by_one():
    tree = {"w": jnp.array([1.0, jnp.nan, -jnp.inf, 2.0])}
    np.testing.assert_array_equal(participation.guarded(tree, jnp.array(True))["w"], [1.0, 0.0, 0.0, 2.0])
    np.testing.assert_array_equal(participation.guarded(tree, jnp.array(False))["w"], 0.0)


def test_kernels_are_told_by_their_factors_alike():
    """`x^T d` larger than x and d is not read where they are small; what overflows, or is NaN, is named as before."""

    def losses_fn(params, inputs, out):
        return {k: jnp.sum(jnp.tanh(params.shared) * out[k] * (inputs[k] @ params.tasks[k])) for k in NAMES}

    params = mtljax.Params(jnp.ones((2, 8)), {k: jnp.zeros((8, 8)) for k in NAMES})
    x, ones = jnp.ones((2, 8)), jnp.ones((2, 8))

    @jax.jit
    def run(inputs, out):
        linear = linearize(losses_fn, params, (inputs, out), False)
        _, own, factors = linear.heads([jnp.ones(())] * 3)
        assert [len(pair) for name in NAMES for pair in factors[name]] == [2, 2, 2]
        leaves, pairs = [own[k] for k in NAMES], [factors[k] for k in NAMES]
        return participation.sound(leaves, squared=True, factors=pairs), participation.sound(leaves, squared=True)

    for b, d, expected in [
        (x, ones, True),
        (1e10 * x, 1e11 * ones, False),  # each square is finite, that of the product is not
        (1e10 * x, 1e-10 * ones, True),
        (1e18 * x, ones, True),  # beyond what the factors can tell
        (x.at[1, 3].set(jnp.nan), ones, False),
        (1e25 * x, 0 * ones, True),
        (1e-30 * x, 1e30 * ones, True),
    ]:
        told, read = run({"a": x, "b": b, "c": x}, {"a": ones, "b": d, "c": ones})
        assert told.tolist() == read.tolist() == [True, expected, True]
