"""A training run to be killed: `python -m tests.training.killable DIRECTORY NUM_STEPS CHECKPOINT_EVERY SOURCE`.

The real step, with what could go astray on the way through a checkpoint: dropout, a method that draws at random, Adam,
and batches either of a function of the step or of an iterator whose own place is in the checkpoint.
Prints the step it starts from. Slow on purpose, so that a kill can be aimed.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax
from tests.training.problem import batch_at


def losses_fn(params, state, batch, key, train):
    """Two regressions on a hidden layer with dropout, and a count of the batches seen."""
    keep = jax.random.bernoulli(key, 0.7, batch["x"].shape)
    hidden = jnp.tanh((batch["x"] * keep) @ params.shared["w"])
    losses = {name: jnp.mean((hidden @ task["v"] - batch[name]) ** 2) for name, task in params.tasks.items()}
    return losses, mtljax.Aux({"seen": state["seen"] + 1})


INIT, STEP = mtljax.training.make_train_step(losses_fn, mtljax.methods.pcgrad(), optax.adam(1e-2))


def make_state() -> mtljax.TrainState:
    params = mtljax.Params(
        shared={"w": jax.random.normal(jax.random.key(1), (3, 4))},
        tasks={"a": {"v": jnp.ones(4)}, "b": {"v": -jnp.ones(4)}},
    )
    return INIT(params, {"seen": jnp.zeros((), jnp.int32)}, key=jax.random.key(0))


DATA = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(batch_at(number) for number in range(5)))
SOURCES = {
    "function": lambda: lambda start: map(batch_at, itertools.count(start)),
    "iterator": lambda: mtljax.data.batches(DATA, batch_size=8, seed=3, prefetch=2),
}


def train(directory: Path, num_steps: int, checkpoint_every: int, source: str, *, seconds_a_step: float = 0.0):
    step = mtljax.training.jit(STEP)
    begun = False

    def slow(state, batch):
        nonlocal begun
        if not begun:
            print(int(state.step), flush=True)
        begun = True
        time.sleep(seconds_a_step)
        return step(state, batch)

    slow.__wrapped__ = step  # by which the run is known again in a process with other hashes
    return mtljax.training.fit(
        slow,
        make_state(),
        SOURCES[source](),
        num_steps=num_steps,
        evaluate=lambda state: {"norm": jnp.linalg.norm(state.params.shared["w"])},
        eval_every=7,
        log=directory / "log.jsonl",
        log_every=1,
        checkpoint_dir=directory / "checkpoints",
        checkpoint_every=checkpoint_every,
    )


if __name__ == "__main__":
    train(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], seconds_a_step=0.01)
