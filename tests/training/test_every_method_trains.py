"""Every method trains the real digits without a NaN, in float32 and bfloat16, under jit, pmap and vmap."""

from __future__ import annotations

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import training
from mtljax.adapters.flax_linen import from_linen
from mtljax.data import load_multi_digits
from tests.methods.table import CASES, few, over

SHAPES = {"left": (10,), "right": (10,), "sum": (), "reconstruct": (12, 16, 1)}
TASKS = {
    "left": mtljax.Task(mtljax.losses.softmax_cross_entropy),
    "right": mtljax.Task(mtljax.losses.softmax_cross_entropy),
    "sum": mtljax.Task(mtljax.losses.squared_error),
    "reconstruct": mtljax.Task(mtljax.losses.squared_error),
}
BATCH, STEPS, SEEDS = 32, 4, 4


class Trunk(nn.Module):
    """From the canvas to features."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        x = x.astype(self.dtype).reshape(x.shape[0], -1)
        return nn.relu(nn.Dense(32, dtype=self.dtype, param_dtype=self.dtype)(x))


class Head(nn.Module):
    """From features to one task's output."""

    shape: tuple[int, ...]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(math.prod(self.shape), dtype=self.dtype, param_dtype=self.dtype)(x)
        return y.reshape(x.shape[0], *self.shape)


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    data = load_multi_digits(tmp_path_factory.getbasetemp().parent / "multi_digits")["train"]
    stream = mtljax.data.batches(data, batch_size=BATCH, seed=0)
    return [next(stream) for _ in range(STEPS)]


@functools.cache
def problem(case, dtype, axis_name):
    heads = {name: from_linen(Head(shape, dtype)) for name, shape in SHAPES.items()}
    model = mtljax.sharing.hard(from_linen(Trunk(dtype)), heads)
    init, step = training.make_train_step(
        mtljax.make_losses_fn(model, TASKS), case.make(4), optax.sgd(0.01), axis_name=axis_name
    )

    def start(key):
        params, model_state = model.init(key, jnp.zeros((1, 12, 16, 1)))
        return init(params, model_state, key=key)

    return start, step


def assert_trained(before, after):
    for leaf in jax.tree.leaves((after.params, after.method_state)):
        assert np.isfinite(np.asarray(leaf, np.float32)).all()
    assert not np.any(np.asarray(after.nonfinite))
    moved = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != np.asarray(b))), before, after.params)
    assert any(jax.tree.leaves(moved))


@over(CASES, at_once=lambda case: case.name in {"famo", "graddrop"})
@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float32, marks=pytest.mark.slow)])
def test_under_jit_and_vmap_over_seeds(case, dtype, batches):
    start, step = problem(case, dtype, None)
    states = jax.vmap(start)(jax.random.split(jax.random.key(0), SEEDS))
    together = jax.jit(jax.vmap(step, in_axes=(0, None)))
    alone = training.jit(step)
    state = jax.tree.map(lambda leaf: leaf[1], states)
    first = jax.tree.map(np.asarray, states.params)
    for batch in batches:
        states, _ = together(states, batch)
        state, _ = alone(state, batch)
    assert_trained(first, states)
    # One seed of the four is that seed alone, until rounding has parted them.
    tolerance = 1e-3 if dtype == jnp.float32 else 3e-2
    for a, b in zip(jax.tree.leaves(states.params), jax.tree.leaves(state.params), strict=True):
        a, b = np.asarray(a[1], np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max()))


@pytest.mark.slow
@few()
@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_under_pmap(case, batches):
    start, step = problem(case, jnp.float32, "batch")
    state = start(jax.random.key(1))
    first = jax.tree.map(np.asarray, state.params)
    run = training.pmap(step)
    for batch in batches:
        state, _ = jax.block_until_ready(run(state, training.split_batch(batch, 8)))
    assert_trained(first, state)


def with_fs_mtl(losses_fn):
    method = mtljax.methods.imtl_g()
    state = mtljax.methods.FlatState(method.init(4), method.init(4))
    return mtljax.methods.fs_mtl(losses_fn, method, rho=0.05, has_aux=True), state


def with_bilevel(make):
    def build(losses_fn):
        method = make(losses_fn)

        def f(params, state, *args):
            half = [jax.tree.map(lambda leaf, part=part: leaf[part::2], args[1]) for part in (0, 1)]
            return method.update(params, state, (args[0], half[0]), (args[0], half[1]))

        return f, method.init(4)

    return build


NEEDING_THE_LOSSES = {
    "fs_mtl": with_fs_mtl,
    "auto_lambda": with_bilevel(lambda f: mtljax.methods.auto_lambda(f, inner_lr=0.01, has_aux=True)),
    "moml": with_bilevel(lambda f: mtljax.methods.moml(f, inner_lr=0.01, has_aux=True)),
    "forum": with_bilevel(lambda f: mtljax.methods.forum(f, inner_lr=0.01, has_aux=True)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDING_THE_LOSSES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_what_needs_the_loss_function_itself(name, dtype, batches):
    heads = {task: from_linen(Head(shape, dtype)) for task, shape in SHAPES.items()}
    model = mtljax.sharing.hard(from_linen(Trunk(dtype)), heads)
    losses_fn = mtljax.make_losses_fn(model, TASKS)
    f, method_state = NEEDING_THE_LOSSES[name](losses_fn)
    optimizer = optax.sgd(0.01)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, 0, 0, None))
    def step(params, model_state, method_state, opt_state, batch):
        (losses, (_, model_state)), grads, method_state = f(params, method_state, model_state, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), model_state, method_state, opt_state, losses

    def start(key):
        params, model_state = model.init(key, jnp.zeros((1, 12, 16, 1)))
        return params, model_state, method_state, optimizer.init(params)

    state = jax.vmap(start)(jax.random.split(jax.random.key(0), SEEDS))
    first = state[0]
    for batch in batches:
        *state, losses = step(*state, batch)
        assert all(np.isfinite(np.asarray(loss)).all() for loss in losses.values())
    for leaf in jax.tree.leaves((state[0], state[2])):
        assert np.isfinite(np.asarray(leaf, np.float32)).all()
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), first, state[0])
    assert any(jax.tree.leaves(moved))
