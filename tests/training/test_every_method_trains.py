"""Every method trains the real digits without a NaN, in float32 and bfloat16, under jit, pmap and vmap."""

from __future__ import annotations

import functools
import math

import chex
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
def problem(make, dtype, axis_name=None):
    heads = {name: from_linen(Head(shape, dtype)) for name, shape in SHAPES.items()}
    model = mtljax.sharing.hard(from_linen(Trunk(dtype)), heads)
    init, step = training.make_train_step(
        mtljax.make_losses_fn(model, TASKS), make(4), optax.sgd(0.01), axis_name=axis_name
    )

    def start(key):
        params, model_state = model.init(key, jnp.zeros((1, 12, 16, 1)))
        return init(params, model_state, key=key)

    return start, step


def assert_trained(before, after):
    chex.assert_tree_all_finite((after.params, after.method_state))
    assert not np.any(np.asarray(after.nonfinite))
    moved = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != np.asarray(b))), before, after.params)
    assert any(jax.tree.leaves(moved))


@over(CASES, at_once=lambda case: case.name in {"famo", "graddrop"})
@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float32, marks=pytest.mark.slow)])
def test_under_jit_and_vmap_over_seeds(case, dtype, batches):
    start, step = problem(case.make, dtype, None)
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
    start, step = problem(case.make, jnp.float32, "batch")
    state = start(jax.random.key(1))
    first = jax.tree.map(np.asarray, state.params)
    run = training.pmap(step)
    for batch in batches:
        state, _ = jax.block_until_ready(run(state, training.split_batch(batch, 8)))
    assert_trained(first, state)


READING_BATCHES = {
    "fs_mtl": mtljax.methods.fs_mtl(mtljax.methods.imtl_g(), rho=0.05),
    "sampled": mtljax.methods.sampled(mtljax.methods.modo(), 2),
    "auto_lambda": mtljax.methods.auto_lambda(inner_lr=0.01),
    "moml": mtljax.methods.moml(inner_lr=0.01),
    "forum": mtljax.methods.forum(inner_lr=0.01),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", READING_BATCHES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_methods_that_read_batches(name, dtype, batches):
    method = READING_BATCHES[name]
    start, step = problem(lambda num_tasks: method, dtype)
    state = start(jax.random.key(1))
    first = jax.tree.map(np.asarray, state.params)
    run = jax.jit(step)
    for batch in batches:
        halves = tuple(jax.tree.map(lambda leaf, part=part: leaf[part::2], batch) for part in (0, 1))
        state, _ = run(state, batch if method.num_batches == 1 else halves)
    assert_trained(first, state)
