"""Every method learns again after one enormous step, and goes on where one task has nothing left to learn."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import training
from tests.methods.table import CASES, over

NAMES, SIZE, STEPS, MIDDLE, LEAST = ("a", "b", "c"), 12, 120, 40, 0.5
OPTIMIZERS = {"adam": optax.adam(0.02), "sgd": optax.sgd(0.2)}
AT_ONCE = {"equal", "famo", "nash_mtl", "uncertainty", "gradnorm", "db_mtl"}
# The shortest combination of gradients of which one is zero is zero, and zero is the gradient nearest to all others: by
# their definitions these methods hold that nothing is left to gain.
STANDS_STILL = {"mgda", "mgda_l2", "mgda_loss", "log_losses", "clip", "per_group", "krum"}
every_other = over([case for case in CASES if case.name not in STANDS_STILL], at_once=lambda case: case.name in AT_ONCE)
every_method = over(CASES, at_once=lambda case: case.name in AT_ONCE)
every_optimizer = pytest.mark.parametrize("optimizer", ["adam", pytest.param("sgd", marks=pytest.mark.slow)])
DRAWN = np.random.default_rng(0)
MATRICES = {name: DRAWN.normal(size=(4, SIZE)).astype(np.float32) / SIZE**0.5 for name in NAMES}
WANTED = {name: DRAWN.normal(size=4).astype(np.float32) for name in NAMES}


def losses_fn(params, state, batch, key, train):
    """Three regressions that one trunk can solve, down to noise; a batch multiplies losses and adds to them."""
    factor, shift = batch
    losses = {}
    for k, name in enumerate(NAMES):
        away = MATRICES[name] @ params.shared + 0.1 * params.tasks[name] - WANTED[name]
        losses[name] = factor[k] * (LEAST + jnp.mean(away**2)) + shift[k]
    return losses, mtljax.Aux(state)


@functools.cache
def program(name, optimizer):
    method = next(case for case in CASES if case.name == name).make(3)
    init, step = training.make_train_step(losses_fn, method, OPTIMIZERS[optimizer])
    params = mtljax.Params(jnp.zeros(SIZE), {name: jnp.zeros(4) for name in NAMES})
    run = jax.jit(lambda state, batches: jax.lax.scan(step, state, batches))
    return lambda batches: run(init(params, key=jax.random.key(0)), batches)


def trained(case, optimizer, factor, shift):
    """Losses `[steps, 3]` without what the batches did to them, and the last state."""
    state, metrics = program(case.name, optimizer)((factor, shift))
    losses = np.stack([np.asarray(metrics["losses"][name]) for name in NAMES], axis=1)
    for leaf in jax.tree.leaves((state.params, state.opt_state, state.method_state)):
        assert np.isfinite(np.asarray(leaf, np.float64)).all(), f"{case.name}: {jax.tree.map(jnp.isfinite, state)}"
    return losses - LEAST * factor, state


@every_method
@every_optimizer
def test_one_enormous_step_is_not_remembered_for_ever(case, optimizer):
    """A loss of 1e30 with a gradient of 1e25, once; eighty steps later losses are where they are without it."""
    factor, shift = np.ones((STEPS, 3), np.float32), np.zeros((STEPS, 3), np.float32)
    usual, _ = trained(case, optimizer, factor, shift)
    factor[MIDDLE, 1], shift[MIDDLE, 1] = 1e25, 1e30
    losses, _ = trained(case, optimizer, factor, shift)
    assert (losses[-1] < 1.25 * usual[-1] + 0.05 * usual[0]).all(), (losses[::10], usual[::10])


def progress_of_others(case, optimizer, factor, start):
    """How far tasks a and c come from `start` on: with these factors, and where task b goes on as they do."""
    usual, _ = trained(case, optimizer, np.ones_like(factor), np.zeros_like(factor))
    losses, _ = trained(case, optimizer, factor, np.zeros_like(factor))
    found, expected = losses[:, [0, 2]].sum(1), usual[:, [0, 2]].sum(1)
    return found[start] - found[-1], expected[start] - expected[-1]


@every_other
@every_optimizer
def test_a_task_without_loss_and_gradient_does_not_stop_the_others(case, optimizer):
    """Some methods go by a third of their length then, or trade one of the others for the other; none stands still."""
    factor = np.ones((STEPS, 3), np.float32)
    factor[:, 1] = 0
    found, expected = progress_of_others(case, optimizer, factor, 0)
    assert found > 0.5 * expected > 0


@every_other
@every_optimizer
def test_a_task_that_is_solved_on_the_way_does_not_stop_the_others(case, optimizer):
    factor = np.ones((STEPS, 3), np.float32)
    factor[MIDDLE:, 1] = 0
    found, expected = progress_of_others(case, optimizer, factor, MIDDLE)
    assert found > 0.5 * expected > 0
