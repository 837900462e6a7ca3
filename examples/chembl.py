"""placeholder"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import linen as nn

import mtljax
from mtljax.adapters.flax_linen import from_linen

WIDTH, DROPOUT = 512, 0.25
BATCH_SIZE, LEARNING_RATE = 128, 1e-3  # of Adam
ENTRY = "targets"


class Trunk(nn.Module):
    """From the fingerprint to features."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return nn.Dropout(DROPOUT, deterministic=not train)(nn.relu(nn.Dense(WIDTH)(x)))


class Head(nn.Module):
    """From features to the affinity for one target."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(1)(x)[:, 0]


def network(names: tuple[str, ...]) -> mtljax.Model:
    """One trunk, and a bank of heads."""
    return mtljax.sharing.hard(from_linen(Trunk()), {ENTRY: mtljax.sharing.Bank(from_linen(Head()), names)})


class Scale(NamedTuple):
    """Mean and standard deviation of the labels for training: of all targets together."""

    mean: float
    deviation: float


def load(data_dir: Path) -> tuple[dict[str, mtljax.Batch], Scale]:
    """The splits, with labels of mean 0 and variance 1 over the training part, and their scale."""
    splits = mtljax.data.load("chembl", data_dir=data_dir)
    known = splits["train"].targets[ENTRY][splits["train"].mask[ENTRY]]
    scale = Scale(float(known.mean()), float(known.std()))
    for name, batch in splits.items():
        scaled = (batch.targets[ENTRY] - scale.mean) / scale.deviation
        splits[name] = batch._replace(targets={ENTRY: np.where(batch.mask[ENTRY], scaled, 0.0).astype(np.float32)})
    return splits, scale


def root_mean_squared_error(losses: Any, split: mtljax.Batch, scale: Scale) -> float:
    """Over all labels of a split, from the mean squared error of each target (NaN without labels)."""
    counts = split.mask[ENTRY].sum(0)
    return scale.deviation * float(np.sqrt(np.nansum(counts * losses) / counts.sum()))


def run(model, method, splits, scale, *, epochs, seed, optimizer=None):
    tasks = {ENTRY: mtljax.Task(mtljax.losses.squared_error)}
    train = splits["train"]
    init, step = mtljax.training.make_train_step(
        mtljax.make_losses_fn(model, tasks), method, optimizer or optax.adam(LEARNING_RATE))
    evaluate = mtljax.training.make_evaluate(model, tasks)
    t = time.perf_counter()
    state = init(jax.random.key(seed), train.inputs[:1])
    print("init", time.perf_counter() - t)
    step, per_epoch = mtljax.training.jit(step), len(train.inputs) // BATCH_SIZE

    def batches(first: int):
        return mtljax.data.batches(train, batch_size=BATCH_SIZE, seed=seed, start_step=first)

    best = {"validation": np.inf}
    for epoch in range(1, epochs + 1):
        t = time.perf_counter()
        state = mtljax.training.fit(step, state, batches, num_steps=epoch * per_epoch, progress=False).state
        jax.block_until_ready(state)
        t1 = time.perf_counter()
        found = {
            name: root_mean_squared_error(
                evaluate(state, mtljax.data.evaluation_batches(splits[name], 1000))[ENTRY]["loss"].array,
                splits[name], scale,
            )
            for name in ("validation", "test")
        }
        print(epoch, found, t1 - t, time.perf_counter() - t1, flush=True)
        if found["validation"] < best["validation"]:
            best = found | {"epoch": epoch}
    return best


if __name__ == "__main__":
    import sys
    splits, scale = load(Path("/tmp/data/tfds"))
    names = mtljax.data.banks("chembl")[ENTRY]
    print(run(network(names), getattr(mtljax.methods, sys.argv[1])(), splits, scale, epochs=14, seed=int(sys.argv[2])))
