"""All methods that read losses, over several steps: an absent task changes nothing, and forms are kept."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods import table
from tests.methods.cases import CASES

STEPS = np.random.default_rng(5).uniform(0.3, 2.0, size=(5, 4)).astype(np.float32)
AFTER = np.float32(0.9) * STEPS**2
NAMES = {row.name for row in table() if row.reads == "losses"}
OF_LOSSES = [case for case in CASES if case.make(4).name in NAMES]
every_method = pytest.mark.parametrize("case", OF_LOSSES, ids=[case.name for case in OF_LOSSES])


@functools.cache
def scanned(num_tasks):
    """One compiled function for all methods: weights `[steps, T]` and last states, by name."""

    def run(losses, active, after):
        def of(case):
            method = case.make(num_tasks)

            def body(state, step):
                losses, active, after, key = step
                weights, state = method.update(losses, state, active=active, key=key)
                if method.observe is not None:
                    state = method.observe(after, state)
                return state, weights

            keys = jax.random.split(jax.random.key(0), len(losses))
            return jax.lax.scan(body, method.init(num_tasks), (losses, active, after, keys))

        return {case.name: of(case) for case in OF_LOSSES}

    return jax.jit(run)


@functools.cache
def with_an_absent_task():
    losses, after = np.insert(STEPS, 2, np.nan, axis=1), np.insert(AFTER, 2, np.nan, axis=1)
    return scanned(5)(losses, np.isfinite(losses), after)


@functools.cache
def without_it():
    return scanned(4)(STEPS, np.ones(STEPS.shape, bool), AFTER)


@every_method
def test_a_task_that_is_never_active_is_as_good_as_absent(case):
    state, weights = with_an_absent_task()[case.name]
    other, expected = without_it()[case.name]
    assert (np.asarray(weights)[:, 2] == 0).all()
    np.testing.assert_allclose(np.delete(weights, 2, axis=1), expected, rtol=2e-5, atol=1e-6)
    for found, alone in zip(jax.tree.leaves(state.inner), jax.tree.leaves(other.inner), strict=True):
        np.testing.assert_allclose(np.delete(found, 2, axis=0), alone, rtol=2e-5, atol=1e-6)


@every_method
def test_its_state_stays_as_it_was(case):

    state, _ = with_an_absent_task()[case.name]
    first = case.make(5).init(5)
    for found, start in zip(jax.tree.leaves(state.inner), jax.tree.leaves(first.inner), strict=True):
        assert (found.shape, found.dtype, found.weak_type) == (start.shape, start.dtype, start.weak_type)
        np.testing.assert_array_equal(found[2], start[2])


@every_method
def test_a_task_that_goes_and_comes_back_is_held(case):
    active = np.ones((5, 5), bool)
    active[2:4, 2] = False
    losses, after = np.insert(STEPS, 2, STEPS[:, 0], axis=1), np.insert(AFTER, 2, AFTER[:, 0], axis=1)
    poisoned = np.where(active, losses, np.nan)
    state, weights = scanned(5)(poisoned, active, after)[case.name]
    clean, expected = scanned(5)(losses, active, after)[case.name]
    assert np.isfinite(weights).all()
    np.testing.assert_array_equal(weights, expected)
    jax.tree.map(np.testing.assert_array_equal, state, clean)


@every_method
def test_nobody_there_moves_nothing(case):
    nan = np.full((5, 4), np.nan, np.float32)
    state, weights = scanned(4)(nan, np.zeros((5, 4), bool), nan)[case.name]
    np.testing.assert_array_equal(weights, 0)
    start = case.make(4).init(4)
    for (path, found), first in zip(
        jax.tree_util.tree_leaves_with_path(state.inner), jax.tree.leaves(start.inner), strict=True
    ):
        np.testing.assert_array_equal(found, first, err_msg=f"{case.name} {path}")


@every_method
def test_coarse_losses_are_read_as_float32(case):
    method = case.make(4)
    weights, state = jax.eval_shape(
        lambda losses: method.update(losses, method.init(4), key=jax.random.key(0)), jnp.ones(4, jnp.bfloat16)
    )
    assert weights.dtype == state.weights.dtype == jnp.float32
    with pytest.raises(TypeError, match="losses must be of a floating-point type, found int32"):
        method.update(jnp.ones(4, jnp.int32), method.init(4), key=jax.random.key(0))


@functools.cache
def with_and_without_one_enormous_loss():
    losses = np.random.default_rng(6).uniform(0.9, 1.1, size=(160, 4)).astype(np.float32) * np.float32(
        [0.5, 1.0, 1.5, 2.0]
    )
    broken = losses.copy()
    broken[60, 1] = 1e30
    everyone = np.ones(losses.shape, bool)
    return scanned(4)(broken, everyone, 0.99 * broken), scanned(4)(losses, everyone, 0.99 * losses)


@every_method
def test_one_enormous_loss_does_not_decide_for_ever(case):
    """A hundred steps later all weights are again of the order that they have without it."""
    broken, usual = (np.asarray(found[case.name][1]) for found in with_and_without_one_enormous_loss())
    assert np.isfinite(broken).all()
    found, expected = broken[-20:].mean(axis=0), usual[-20:].mean(axis=0)
    there = expected != 0
    ratio = found[there] / expected[there]
    assert (found[~there] == 0).all() and (ratio > 0.2).all() and (ratio < 5).all(), (found, expected)
